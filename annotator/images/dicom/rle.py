"""RLE compressed frames (DICOM PS3.5, annex G)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray


def decode_rle(frame: bytes, rows: int, columns: int, samples: int, size: int) -> NDArray[Any]:
    """Decode a frame.

    Args:
        frame: The compressed frame.
        rows: Of the picture.
        columns: Of the picture.
        samples: Per pixel.
        size: Bytes of a sample.

    Returns:
        Unsigned integers, [rows, columns] or [rows, columns, samples].

    Raises:
        ValueError: A segment is missing, too short or far too long.
    """
    count, *offsets = np.frombuffer(frame[:64], "<u4").tolist()
    if count != samples * size or len(offsets) != 15:
        raise ValueError("a number of RLE segments that does not fit")
    planes = np.empty((samples, size, rows * columns), np.uint8)
    segments = pairwise([*offsets[:count], len(frame)])
    for number, (start, end) in enumerate(segments):
        sample, byte = divmod(number, size)  # the most significant byte comes first
        segment = _decode_segment(frame[start:end], rows * columns)
        planes[sample, size - 1 - byte] = np.frombuffer(segment, np.uint8, rows * columns)
    words = np.ascontiguousarray(planes.transpose(2, 0, 1)).view(f"<u{size}")
    return words.reshape((rows, columns, samples) if samples > 1 else (rows, columns))


def _decode_segment(segment: bytes, wanted: int) -> bytearray:
    """At least as many bytes as wanted (G.3.2); some writers pad."""
    decoded = bytearray()
    position, end = 0, len(segment)
    while position < end and len(decoded) <= 2 * wanted:
        code = segment[position]
        if code < 128:  # as many literal bytes and one more
            decoded += segment[position + 1 : position + 2 + code]
            position += 2 + code
        elif code > 128:  # a byte, repeated
            decoded += segment[position + 1 : position + 2] * (257 - code)
            position += 2
        else:
            position += 1
    if not wanted <= len(decoded) <= 2 * wanted:
        raise ValueError("an RLE segment of another size than its picture")
    return decoded
