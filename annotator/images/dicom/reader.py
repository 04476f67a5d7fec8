"""Reading of DICOM files: parsing, and the refusal of those that hold no image."""

from __future__ import annotations

import io
import logging
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, BinaryIO

from annotator.errors import ImageError
from annotator.images.dicom.attributes import EXPORT_HINT, uid_name
from annotator.images.dicom.colour import colour_picture, palette_picture
from annotator.images.dicom.grey import grey_frame
from annotator.images.dicom.header import read_header
from annotator.images.dicom.stored import EncapsulatedFrames, NativeFrames
from annotator.images.frames import Frame, View
from annotator.images.pixels import MAX_DEFLATED_BYTES

# pydicom reports odd attributes with their values, which may identify a patient: here as warnings,
# in `load_pydicom` to its log. Both are set once, since a change for the length of a call would not
# be safe with threads.
warnings.filterwarnings("ignore", module=r"pydicom\.")

# Larger elements are not copied when the file is parsed.
_LARGE = 1 << 20
_UNDEFINED_LENGTH = 0xFFFFFFFF
_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_loading = threading.Lock()


class DicomReader:
    """A DICOM file, opened; see `annotator.images.frames.FrameReader`.

    Stored values go through the modality LUT or rescale, then the VOI LUT or the first window that
    shows something. Where there is none, 8-bit values are shown as they are and deeper ones between
    their 0.5th and 99.5th percentiles, padding left out. MONOCHROME1 is inverted; padding becomes
    black.

    Args:
        data: The whole file.
        max_pixels: Largest width x height of one frame.

    Raises:
        ImageError: No image, too large, truncated, or compressed in a way that cannot be read.
        Exception: pydicom's own, on corrupt input; the caller turns them into ImageError.
    """

    def __init__(self, data: bytes, max_pixels: int) -> None:
        load_pydicom()
        from pydicom.pixels.decoders.base import get_decoder
        from pydicom.uid import RLELossless

        self._ds = ds = _read(data)
        keyword = next((keyword for keyword in _PIXEL_KEYWORDS if keyword in ds), None)
        if keyword is None:
            raise _without_pixels(ds)
        syntax = ds.file_meta.TransferSyntaxUID
        try:
            get_decoder(syntax)
        except NotImplementedError:
            message = f"unsupported DICOM transfer syntax {uid_name(syntax)}".rstrip()
            hint = "Convert it to Explicit VR Little Endian."
            raise ImageError(message, hint, "unsupported") from None
        element = ds.get_item(keyword, keep_deferred=True)
        is_encapsulated = element.length == _UNDEFINED_LENGTH
        length = None if is_encapsulated else element.length
        header = read_header(ds, keyword, length, max_pixels)
        self.pixels = header.rows * header.columns
        content = _content(element, data)
        self._frames: NativeFrames | EncapsulatedFrames
        if length is None:
            self._frames = EncapsulatedFrames(header, content, syntax)
        else:
            self._frames = NativeFrames(
                header,
                content,
                length,
                is_little_endian=ds.original_encoding[1],
                in_words=element.VR == "OW",
            )
        self.n_frames = self._frames.n_frames
        # What a frame is compressed with is told by its content; only RLE is decoded by ourselves.
        self.needs_process = length is None and syntax != RLELossless

    def read(self, indices: Sequence[int], view: View | None = None) -> Iterator[Frame]:
        for index, stored in zip(indices, self._frames.read(indices), strict=True):
            if stored.photometric == "PALETTE_COLOR":
                yield Frame(palette_picture(self._ds, stored))
            elif stored.values.ndim == 3:
                yield Frame(colour_picture(stored))
            else:
                yield grey_frame(self._ds, index, stored, view)


def load_pydicom() -> None:
    """Import pydicom, and keep its log, which quotes values, from being shown.

    Threads that import it at the same moment may get a part of it: its modules import each other.
    """
    with _loading:
        _load_pydicom()


@cache
def _load_pydicom() -> None:
    import pydicom.config  # which sets the level of the log itself
    import pydicom.pixels.decoders.base  # noqa: F401

    logging.getLogger("pydicom").setLevel(logging.CRITICAL)


def _read(data: bytes) -> Any:
    """Parse the data set; a missing transfer syntax is filled in from how it was read."""
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    defer_size = None if _is_deflated(data) else _LARGE
    ds = dcmread(io.BytesIO(data), force=True, defer_size=defer_size)
    if "TransferSyntaxUID" not in ds.file_meta:
        implicit, little = ds.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return ds


def read_meta(file: BinaryIO) -> Any:
    """The file meta information (PS3.10, section 7.1) from the start of a file, left after it."""
    from pydicom.filereader import read_dataset

    file.seek(132 if file.read(132)[128:] == b"DICM" else 0)
    return read_dataset(file, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)


def _is_deflated(data: bytes) -> bool:
    """Whether the data set is deflated (PS3.5, A.5).

    Raises:
        ImageError: It would fill the memory once inflated.
    """
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    if len(data) < _LARGE and DeflatedExplicitVRLittleEndian.encode() not in data:
        return False  # quicker for small files, in which it counts
    file = io.BytesIO(data)
    if read_meta(file).get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return False
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    size = 0
    while chunk := file.read(1 << 16):
        size += len(inflater.decompress(chunk))
        if size > MAX_DEFLATED_BYTES:
            message = f"deflated DICOM of more than {MAX_DEFLATED_BYTES} bytes"
            raise ImageError(message, EXPORT_HINT, "too_large")
    return True


def _content(element: Any, data: bytes) -> memoryview:
    """The pixel data: a view of the file, where it was left there.

    Args:
        element: The element as it was read (`pydicom.dataelem.RawDataElement`).
        data: The whole file.
    """
    if element.value is not None:
        return memoryview(element.value)
    end = len(data) if element.length == _UNDEFINED_LENGTH else element.value_tell + element.length
    return memoryview(data)[element.value_tell : end]


def _without_pixels(ds: Any) -> ImageError:
    if "Rows" in ds and "SpectroscopyData" not in ds:
        message = "DICOM whose pixel data is missing or truncated"
        return ImageError(message, EXPORT_HINT, "broken")
    sop_class = ds.get("SOPClassUID") or ds.file_meta.get("MediaStorageSOPClassUID")
    what = f" ({uid_name(sop_class)})" if uid_name(sop_class) else ""
    return ImageError(f"DICOM without an image{what}", "Leave it out.", "no_pixels")
