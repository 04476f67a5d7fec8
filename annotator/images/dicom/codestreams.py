"""Compressed frames: what their headers say, and the decoding of those that Pillow can read."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.images.pixels import stripes

# Markers of JPEG (ISO/IEC 10918-1, table B.1), and the frame of JPEG-LS (ISO/IEC 14495-1).
_JPEG_LS_FRAME = 0xF7
_FRAMES = {*range(0xC0, 0xD0), _JPEG_LS_FRAME} - {0xC4, 0xC8, 0xCC}
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
_LOSSLESS_FRAME = 0xC3
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_START_OF_SCAN = 0xDA
_MAX_PRECISION = 32
_JPEG_2000_START = b"\xff\x4f\xff\x51"
# The first box of a JP2 file, which DICOM does not allow but has.
_JP2_START = b"\0\0\0\x0cjP  "
# The capability of Rsiz that marks high throughput (ISO/IEC 15444-15).
_HIGH_THROUGHPUT = 1 << 14


@dataclass(frozen=True)
class Codestream:
    """Header of a compressed frame.

    Attributes:
        syntax: The transfer syntax it follows, as a keyword of `pydicom.uid`.
        columns: Width.
        rows: Height.
        components: Samples per pixel.
        precision: Bits per sample.
        is_signed: Whether samples are signed, which JPEG 2000 alone can tell.
        is_subsampled: Whether a component of JPEG 2000 has fewer samples than pixels.
        is_ycc: Whether a JPEG says that it holds YCbCr; None where it does not say.
    """

    syntax: str
    columns: int
    rows: int
    components: int
    precision: int
    is_signed: bool = False
    is_subsampled: bool = False
    is_ycc: bool | None = None

    @property
    def is_jpeg(self) -> bool:
        """JPEG proper, with or without loss; not JPEG-LS or JPEG 2000."""
        return self.syntax in ("JPEGBaseline8Bit", "JPEGExtended12Bit", "JPEGLossless")

    @property
    def is_lossy_jpeg(self) -> bool:
        return self.is_jpeg and self.syntax != "JPEGLossless"

    @property
    def for_pillow(self) -> bool:
        """Whether Pillow reads it: not JPEG 2000 in colour that is deep or subsampled."""
        if self.syntax != "JPEG2000":
            return self.syntax == "JPEGBaseline8Bit"
        return self.precision <= (16 if self.components == 1 else 8) and not self.is_subsampled


def without_boxes(frame: bytes) -> bytes:
    """The codestream of a frame, which may be a JP2 file."""
    start = frame.find(_JPEG_2000_START) if frame.startswith(_JP2_START) else 0
    return frame[max(0, start) :]


def read_codestream(frame: bytes) -> Codestream | None:
    """Read the header of a JPEG, JPEG-LS or JPEG 2000 frame; None where there is none."""
    stream = None
    try:
        if frame[:2] == b"\xff\xd8":
            stream = _read_jpeg(frame)
        elif frame[:4] == _JPEG_2000_START:
            stream = _read_jpeg_2000(frame)
    except (IndexError, struct.error):
        return None
    return stream if stream is not None and 1 <= stream.precision <= _MAX_PRECISION else None


def _read_jpeg(frame: bytes) -> Codestream | None:
    position = 2
    has_jfif, adobe = False, None
    while True:
        while frame[position] == 0xFF:
            position += 1
        marker = frame[position]
        position += 1
        if marker in _WITHOUT_LENGTH:
            continue
        (length,) = struct.unpack_from(">H", frame, position)
        content = frame[position + 2 : position + length]
        if marker == 0xE0 and content[:4] == b"JFIF":
            has_jfif = True
        elif marker == 0xEE and content[:5] == b"Adobe" and len(content) >= 12:
            adobe = content[11]
        elif marker in _FRAMES:
            break
        elif marker == _START_OF_SCAN or length < 2:
            return None
        position += length
    if frame.find(bytes((0xFF, _START_OF_SCAN)), position) < 0:
        return None
    precision, rows, columns, components = struct.unpack_from(">BHHB", content)
    names = content[6 : 6 + 3 * components : 3]
    if marker == _JPEG_LS_FRAME:
        syntax = "JPEGLSLossless"
    elif marker == _LOSSLESS_FRAME:
        syntax = "JPEGLossless"
    else:
        is_8_bit = precision == 8 and marker in _HUFFMAN_FRAMES
        syntax = "JPEGBaseline8Bit" if is_8_bit else "JPEGExtended12Bit"
    # In the order of libjpeg, so that Pillow's own decision is the same.
    is_ycc: bool | None
    if has_jfif:
        is_ycc = True
    elif adobe is not None:
        is_ycc = adobe != 0
    else:
        is_ycc = False if names in (b"RGB", b"rgb") else None
    return Codestream(syntax, columns, rows, components, precision, is_ycc=is_ycc)


def _read_jpeg_2000(frame: bytes) -> Codestream:
    """Read the SIZ segment (ISO/IEC 15444-1, A.5.1)."""
    capabilities, right, bottom, left, top = struct.unpack_from(">6x H 4I", frame)
    components, depth = struct.unpack_from(">HB", frame, 40)
    steps = [frame[start : start + 2] for start in range(43, 43 + 3 * components, 3)]
    return Codestream(
        syntax="HTJ2K" if capabilities & _HIGH_THROUGHPUT else "JPEG2000",
        columns=right - left,
        rows=bottom - top,
        components=components,
        precision=(depth & 0x7F) + 1,
        is_signed=depth >> 7 == 1,
        is_subsampled=any(step != b"\1\1" for step in steps),
    )


def with_full_scan(frame: bytes) -> bytes:
    """A sequential JPEG whose scan has all coefficients, as it must (ISO/IEC 10918-1, B.2.3).

    Some encoders write that it ends with the first, which libjpeg ignores and others refuse.
    """
    start = frame.find(bytes((0xFF, _START_OF_SCAN)))
    if frame.find(b"\xff\xc1", 0, start) < 0:
        return frame
    end_of_selection = start + 6 + 2 * frame[start + 4]
    return frame[:end_of_selection] + b"\x3f" + frame[end_of_selection + 1 :]


def decode_with_pillow(frame: bytes, stream: Codestream, *, is_ycc: bool) -> NDArray[Any]:
    """Decode a frame in this process: Pillow's decoders survive corrupt input.

    Args:
        frame: The compressed frame.
        stream: Its header.
        is_ycc: Whether a JPEG in colour holds YCbCr.

    Returns:
        Unsigned integers of `stream.precision` bits, [rows, columns] or [rows, columns, 3]; the
        latter as RGB if it is JPEG.
    """
    from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
    from PIL.JpegImagePlugin import JpegImageFile

    if stream.syntax == "JPEGBaseline8Bit":
        with JpegImageFile(io.BytesIO(frame)) as image:
            if stream.components == 3 and not is_ycc and stream.is_ycc is None:
                image.draft("YCbCr", image.size)  # libjpeg would convert it, so ask for it raw
            return _as_array(image)
    with Jpeg2KImageFile(io.BytesIO(frame)) as image:
        values = _as_array(image)
    # Pillow scales samples up to 8 or 16 bits, and shifts signed ones to begin at 0.
    values >>= 8 * values.dtype.itemsize - stream.precision
    if stream.is_signed:
        values ^= 1 << (stream.precision - 1)
    return values


def _as_array(image: Image.Image) -> NDArray[Any]:
    """The pixels of a picture. numpy alone makes three copies of them on the way."""
    top = np.asarray(image.crop((0, 0, image.width, 1)))
    values = np.empty((image.height, *top.shape[1:]), top.dtype)
    for rows in stripes(image.height, image.width):
        values[rows] = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
    return values
