"""The stored values of frames, from uncompressed or encapsulated pixel data (PS3.5, 8 and A.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.errors import ImageError
from annotator.images.dicom.attributes import EXPORT_HINT, uid_name
from annotator.images.dicom.codestreams import (
    Codestream,
    decode_with_pillow,
    read_codestream,
    with_full_scan,
    without_boxes,
)
from annotator.images.dicom.header import PixelHeader
from annotator.images.dicom.plugins import Request, Workers, available_plugins, install_hint
from annotator.images.dicom.rle import decode_rle

_ITEM = b"\xfe\xff\x00\xe0"
_MAX_FRAGMENTS = 1 << 20
_FRAME_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")
_TRUNCATED = "truncated DICOM: the pixel data is shorter than its header says"
# Bytes that are looked at to tell in which order they are.
_LOOKED_AT = 1 << 18


@dataclass(frozen=True)
class Stored:
    """The stored values of a frame.

    Attributes:
        values: Integers or floats, [rows, columns] or [rows, columns, 3]. YBR_FULL_422 has its
            samples as they lie, uint[rows, columns / 2, 4]: two of Y, one of CB and CR.
        bits: Significant bits of integers.
        photometric: What the values are, see `PixelHeader.photometric`.
    """

    values: NDArray[Any]
    bits: int
    photometric: str


class NativeFrames:
    """Uncompressed frames.

    Args:
        header: Their description.
        data: The pixel data.
        length: Its length as the file has it, which it may fall short of.
        is_little_endian: Byte order of the file.
        in_words: Whether the pixel data is a sequence of 16-bit words (OW).

    Raises:
        ImageError: There is less than one frame, or a frame is cut off.
    """

    def __init__(
        self,
        header: PixelHeader,
        data: memoryview,
        length: int,
        *,
        is_little_endian: bool,
        in_words: bool,
    ) -> None:
        self._header = header
        self._data = data
        self._order = "<" if is_little_endian else ">"
        self._swaps_bytes = in_words and not is_little_endian and header.bits_allocated == 8
        self.n_frames = _count_frames(header, len(data), length)

    def read(self, indices: Sequence[int]) -> Iterator[Stored]:
        """The stored values of the frames with these indices, views of the data if possible."""
        for index in indices:
            yield self._frame(index)

    def _frame(self, index: int) -> Stored:
        header = self._header
        if header.bits_allocated == 1:
            return self._bits(index)
        size = header.bits_allocated // 8
        count, start = header.frame_bits // header.bits_allocated, index * header.frame_bits // 8
        words: NDArray[Any]
        if self._swaps_bytes:
            words = self._swapped(start, count)
        else:
            kind = "f" if header.kind == "f" else "u"
            words = np.frombuffer(self._data, f"{self._order}{kind}{size}", count, start)
            words = words.astype(words.dtype.newbyteorder("="), copy=False)
        if header.kind != "f":
            words = significant(words, header.kind, header.bits_stored, header.high_bit)
        rows, columns = header.rows, header.columns
        if header.photometric == "YBR_FULL_422":
            words = words.reshape(rows, columns // 2, 4)
        elif header.samples == 1:
            words = words.reshape(rows, columns)
        elif header.by_plane:
            words = words.reshape(header.samples, rows, columns).transpose(1, 2, 0)
        else:
            words = words.reshape(rows, columns, header.samples)
        return Stored(words, header.bits_stored, header.photometric)

    def _bits(self, index: int) -> Stored:
        """One bit per pixel; a frame may begin within a byte (PS3.5, D)."""
        header = self._header
        first = index * header.frame_bits
        count = header.frame_bits + first % 8
        packed = np.frombuffer(self._data, np.uint8, -(-count // 8), first // 8)
        bits = np.unpackbits(packed, bitorder="little")[first % 8 : count]
        shape = (header.rows, header.columns, header.samples)
        return Stored(bits.reshape(shape[: 2 if header.samples == 1 else 3]), 1, header.photometric)

    def _swapped(self, start: int, count: int) -> NDArray[np.uint8]:
        """8-bit samples in 16-bit words of a big endian file: every two of them are swapped.

        Not all writers do so. The order in which neighbours differ less is taken.
        """
        end = start + count
        plain = np.frombuffer(self._data[: len(self._data) & ~1], np.uint8)
        pairs = plain[start & ~1 : end + 1 & ~1].reshape(-1, 2)
        swapped = pairs[:, ::-1].reshape(-1)[start & 1 :][:count]
        plain = plain[start:end]
        step = 1 if self._header.by_plane else self._header.samples
        if len(swapped) == count and _roughness(swapped, step) <= _roughness(plain, step):
            return swapped
        return plain


class EncapsulatedFrames:
    """Compressed frames (PS3.5, A.4).

    Args:
        header: Their description.
        data: The pixel data, from its basic offset table on.
        syntax: The transfer syntax (`pydicom.uid.UID`). JPEG, JPEG-LS and JPEG 2000 are told by
            their content, whatever it says.

    Raises:
        ImageError: There are no frames, too many fragments or one that is cut off.
    """

    def __init__(self, header: PixelHeader, data: memoryview, syntax: Any) -> None:
        self._header = header
        self._data = data
        self._syntax = syntax
        self._frames = _frames_of(data, header.n_frames)
        self.n_frames = len(self._frames)

    def read(self, indices: Sequence[int]) -> Iterator[Stored]:
        """The stored values of the frames with these indices."""
        with Workers() as workers:
            for index in indices:
                yield self._frame(index, workers)

    def _frame(self, index: int, workers: Workers) -> Stored:
        from pydicom.uid import RLELossless

        header = self._header
        frame = b"".join(self._data[start:end] for start, end in self._frames[index])
        if self._syntax == RLELossless:
            return self._rle(frame)
        frame = without_boxes(frame)
        stream = read_codestream(frame)
        if stream is None:
            raise self._undecodable(EXPORT_HINT)
        if (stream.columns, stream.rows) != (header.columns, header.rows):
            message = "DICOM frame of another size than its header says"
            raise ImageError(message, EXPORT_HINT, "broken")
        if stream.components not in (1, 3):
            message = f"DICOM frame of {stream.components} components"
            raise ImageError(message, EXPORT_HINT, "unsupported")
        is_ycc = self._is_ycc(stream)
        words = None
        if stream.for_pillow:
            try:
                words = decode_with_pillow(frame, stream, is_ycc=is_ycc)
            except Exception:  # decoders of hostile bytes fail in many ways
                if stream.is_jpeg:  # others would fill up what is missing
                    raise self._undecodable(f"It may be corrupt. {EXPORT_HINT}") from None
        if words is None:
            words = self._decode_apart(frame, stream, is_ycc, workers)
        elif stream.is_jpeg:
            is_ycc = False  # Pillow converts
        if stream.components == 3:
            bits = min(stream.precision, 8 * words.dtype.itemsize)
            return Stored(words, bits, "YBR_FULL" if is_ycc else "RGB")
        photometric = header.photometric if header.samples == 1 else "MONOCHROME2"
        return Stored(*self._significant(words, stream), photometric)

    def _rle(self, frame: bytes) -> Stored:
        header = self._header
        size = header.bits_allocated // 8
        try:
            words = decode_rle(frame, header.rows, header.columns, header.samples, size)
        except (IndexError, ValueError):
            raise self._undecodable(f"It may be corrupt. {EXPORT_HINT}") from None
        words = significant(words, header.kind, header.bits_stored, header.high_bit)
        photometric = header.photometric.removesuffix("_422")  # no sample is left out
        return Stored(words, header.bits_stored, photometric)

    def _is_ycc(self, stream: Codestream) -> bool:
        """Whether a frame in colour decodes to YCbCr: as it says itself, or else the header."""
        if stream.is_ycc is not None:
            return stream.is_ycc
        photometric = self._header.photometric
        return photometric.startswith("YBR_FULL") or (stream.is_lossy_jpeg and photometric != "RGB")

    def _significant(self, words: NDArray[Any], stream: Codestream) -> tuple[NDArray[Any], int]:
        """The grey values in the words that a decoder gave, and how many bits they have."""
        header, precision = self._header, stream.precision
        kind = "u" if stream.is_jpeg and precision < header.bits_stored else header.kind
        bits = min(header.bits_stored, precision)
        if stream.syntax not in ("JPEGLossless", "JPEGLSLossless"):
            return significant(words, kind, precision, precision - 1), bits
        # These may hold whole words with unused bits.
        high_bit = header.high_bit if header.high_bit < precision else bits - 1
        return significant(words, kind, bits, high_bit), bits

    def _decode_apart(
        self, frame: bytes, stream: Codestream, is_ycc: bool, workers: Workers
    ) -> NDArray[Any]:
        import pydicom.uid

        plugins = available_plugins(stream.syntax)
        if not plugins:
            name = uid_name(getattr(pydicom.uid, stream.syntax))
            message = f"no decoder for DICOM transfer syntax {name}"
            raise ImageError(message, install_hint(stream.syntax), "unsupported")
        if b"\xff\xd9" not in frame[-64:]:  # plug-ins fill up what is missing
            raise self._undecodable(f"It is cut off. {EXPORT_HINT}")
        if stream.syntax == "JPEGExtended12Bit":
            frame = with_full_scan(frame)
        colour = "YBR_FULL" if is_ycc else "RGB"
        description = {
            "rows": stream.rows,
            "columns": stream.columns,
            "samples_per_pixel": stream.components,
            "photometric_interpretation": colour if stream.components == 3 else "MONOCHROME2",
            "planar_configuration": 0,
            "bits_allocated": next(n for n in (8, 16, 32, 64) if stream.precision <= n),
            "bits_stored": stream.precision,
            "pixel_representation": 0,  # `significant` sees to signs
            "number_of_frames": 1,
        }
        shape = (stream.rows, stream.columns, 3)[: 3 if stream.components == 3 else 2]
        values = workers.decode(Request(frame, stream.syntax, description, shape), plugins)
        if values is None:
            raise self._undecodable(install_hint(stream.syntax))
        return values

    def _undecodable(self, hint: str) -> ImageError:
        message = f"DICOM pixel data that cannot be decoded as {uid_name(self._syntax)}"
        return ImageError(message, hint, "broken")


def significant(words: NDArray[Any], kind: str, bits: int, high_bit: int) -> NDArray[Any]:
    """The values stored in words of which `bits` are used, up to and with `high_bit`.

    The other bits may hold anything (PS3.5, 8.1.1): overlays, or a sign that is not extended. A
    high bit above the used ones is not believed if there is nothing in any word.

    Args:
        words: Unsigned integers in the byte order of this machine.
        kind: "i" where the values are signed, "u" where not.
        bits: At most those of a word.
        high_bit: From ``bits - 1`` to the highest bit of a word.

    Returns:
        The values; a view of `words` if nothing is to be done.
    """
    size = 8 * words.dtype.itemsize
    values: NDArray[Any] = words.view(f"{kind}{words.dtype.itemsize}")
    if bits == size:
        return values
    top = int(words.max(initial=0))
    if top >> bits == 0:
        high_bit = bits - 1
        if kind == "u" or top >> high_bit == 0:
            return values
    elif kind == "i" and high_bit == bits - 1:
        half = 1 << (bits - 1)
        if values.min(initial=0) >= -half and values.max(initial=0) < half:
            return values
    shifted: NDArray[Any] = np.left_shift(values, size - 1 - high_bit)
    np.right_shift(shifted, size - bits, out=shifted)
    return shifted


def _count_frames(header: PixelHeader, available: int, length: int) -> int:
    """Number of uncompressed frames: as the header says, or fewer if so many are whole.

    Args:
        header: Their description.
        available: Bytes of pixel data.
        length: Bytes of pixel data before anything was cut off.
    """
    there = 8 * available // header.frame_bits
    left_over = available - -(-there * header.frame_bits // 8)
    is_exact = there >= 1 and available == length and left_over <= 1  # a byte of padding
    wanted = header.n_frames
    if wanted is None or wanted < 1:
        wanted = there if is_exact and wanted is not None else 1
    if there >= wanted:
        return wanted
    if is_exact:
        return there
    raise ImageError(_TRUNCATED, EXPORT_HINT, "broken")


def _frames_of(data: memoryview, n_frames: int | None) -> list[list[tuple[int, int]]]:
    """The fragments of each frame of encapsulated pixel data, as start and end in `data`.

    Where there are several frames, and not one fragment for each, the basic offset table tells
    where they begin; if it does not fit, their first bytes do.
    """
    table, *fragments = _fragments(data)
    offsets = np.frombuffer(data, "<u4", (table[1] - table[0]) // 4, table[0])
    if n_frames is None or n_frames < 1:
        n_frames = len(offsets) or 1
    if n_frames == 1:
        return [fragments]
    if len(fragments) <= n_frames:
        return [[fragment] for fragment in fragments]
    in_table = set(offsets.tolist())
    begins = [start - 8 - table[1] in in_table for start, _ in fragments]
    if sum(begins) != n_frames:
        begins = [
            bytes(data[start : start + 4]).startswith(_FRAME_STARTS) for start, _ in fragments
        ]
    frames: list[list[tuple[int, int]]] = []
    for fragment, is_first in zip(fragments, begins, strict=True):
        if is_first or not frames:
            frames.append([])
        frames[-1].append(fragment)
    return frames[:n_frames]


def _fragments(data: memoryview) -> list[tuple[int, int]]:
    """Start and end of the basic offset table and of at least one fragment (PS3.5, A.4).

    Raises:
        ImageError: There are none, too many, or one is cut off.
    """
    items: list[tuple[int, int]] = []
    position = 0
    while data[position : position + 4] == _ITEM:
        start = position + 8
        position = start + int.from_bytes(data[position + 4 : start], "little")
        items.append((start, position))
        if len(items) > _MAX_FRAGMENTS:
            message = f"DICOM of more than {_MAX_FRAGMENTS} fragments"
            raise ImageError(message, EXPORT_HINT, "too_many_frames")
    if len(items) < 2 or position > len(data):
        raise ImageError(_TRUNCATED, EXPORT_HINT, "broken")
    return items


def _roughness(samples: NDArray[np.uint8], step: int) -> int:
    """How much samples differ from the next of their kind, `step` further on."""
    few = samples[:_LOOKED_AT].astype(np.int16)
    return int(np.abs(few[step:] - few[:-step]).sum())
