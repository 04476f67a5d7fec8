"""Look-up tables of DICOM files: modality, VOI and palette LUTs (PS3.3, C.11 and C.7.9)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.images.dicom.attributes import numbers

_MOST_ENTRIES = 1 << 16
# Kinds of segment (C.7.9.2).
_DISCRETE, _LINEAR, _INDIRECT = range(3)


@dataclass(frozen=True)
class LookUpTable:
    """A table for consecutive integers; values outside of them take its first or last entry.

    Attributes:
        first: The value that `entries` begins with.
        entries: uint16[n], at least one.
        bits: Of an entry; as the file says, so perhaps more or fewer than are used.
    """

    first: int
    entries: NDArray[np.uint16]
    bits: int

    def __call__(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """The entries for these values, which are rounded."""
        places = np.nan_to_num(values.astype(np.float64) - self.first)
        np.clip(places, 0, self.entries.size - 1, out=places)
        return self.entries[np.rint(places, out=places).astype(np.intp)]

    @property
    def used_bits(self) -> int:
        """Bits of the largest entry."""
        return int(self.entries.max()).bit_length()


def read_lut(
    ds: Any, descriptor: str, data: str, *, is_little_endian: bool, is_signed: bool
) -> LookUpTable | None:
    """Read a table.

    Its entries are 16-bit words in the byte order of the file, or bytes if there are as many bytes
    as entries: the descriptor is often wrong about their bits.

    Args:
        ds: The data set or item that holds it.
        descriptor: Keyword of its descriptor: number of entries, first value, bits per entry.
        data: Keyword of its entries; of their segments (C.7.9.2) if it begins with "Segmented".
        is_little_endian: Byte order of the file.
        is_signed: Whether the values that it maps may be negative.

    Returns:
        None where it is absent or unusable.
    """
    described = numbers(ds, descriptor)
    if len(described) != 3 or any(map(math.isnan, described)) or data not in ds:
        return None
    n_entries, first, bits = map(int, described)
    n_entries = n_entries % _MOST_ENTRIES or _MOST_ENTRIES  # 0 stands for 65,536
    if is_signed and first > 0x7FFF:
        first -= 1 << 16  # a negative value that was written as unsigned
    content = _content(ds[data], is_little_endian)
    if data.startswith("Segmented"):
        unit = np.dtype("u1" if bits == 8 else "<u2")
        entries: NDArray[Any] = _expand(np.frombuffer(content, unit, len(content) // unit.itemsize))
    elif len(content) in (n_entries, n_entries + n_entries % 2):
        entries, bits = np.frombuffer(content, np.uint8), 8
    else:
        entries = np.frombuffer(content, "<u2", len(content) // 2)
    if not entries.size:
        return None
    return LookUpTable(first, entries[:n_entries].astype(np.uint16), bits)


def _content(element: Any, is_little_endian: bool) -> bytes:
    """The value of an element with LUT data, as little endian words or as bytes."""
    value = element.value
    if isinstance(value, bytes):
        # Bytes in words are swapped as well; bytes that are no words lie in their order.
        if is_little_endian or element.VR == "OB":
            return value
        return np.frombuffer(value, ">u2", len(value) // 2).astype("<u2").tobytes()
    return (np.atleast_1d(value).astype(np.int64) & 0xFFFF).astype("<u2").tobytes()


def _expand(codes: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.int64]:
    """The entries of a segmented table.

    Args:
        codes: Its words or, in tables of 8 bits, bytes.

    Raises:
        IndexError: It ends within a segment.
        ValueError: A segment is of an unknown kind or refers to itself.
    """
    size = codes.dtype.itemsize
    data: list[int] = codes.tolist()
    entries: list[int] = []

    def add(position: int, *, may_refer: bool) -> int:
        """Add the segment at `position`, and give the position of the next."""
        kind, length = data[position], data[position + 1]
        position += 2
        if kind == _DISCRETE:
            entries.extend(data[position : position + length])
            return position + length
        if kind == _LINEAR:
            steps = np.linspace(entries[-1], data[position], length + 1)[1:]
            entries.extend(np.rint(steps).astype(int).tolist())
            return position + 1
        if kind != _INDIRECT or not may_refer:
            raise ValueError("a segment of a look-up table that cannot be read")
        fields = 4 // size  # an offset in bytes
        offset = sum(data[position + i] << 8 * size * i for i in range(fields)) // size
        for _ in range(min(length, _MOST_ENTRIES - len(entries))):
            offset = add(offset, may_refer=False)
        return position + fields

    position = 0
    while position + 2 < len(data) and len(entries) < _MOST_ENTRIES:
        position = add(position, may_refer=True)
    return np.array(entries, np.int64)
