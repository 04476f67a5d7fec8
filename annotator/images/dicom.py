"""Decoding of DICOM files: parsing, limits and refusals, and the choice of pixel decoder.

Follows the Image Pixel module of DICOM PS3.3 (C.7.6.3). `dicom_windowing` brings stored values to
8 bits.
"""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import warnings
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.errors import ImageError
from annotator.images.dicom_windowing import EXPORT_HINT, render
from annotator.images.frames import Frame
from annotator.images.pixels import check_size
from index.distribution import pip_install

# pydicom reports odd attributes with their values, which may identify a patient: here as warnings,
# in `silence_log` to its log. Both are set once, since a change for the length of a call would not
# be safe with threads.
warnings.filterwarnings("ignore", module=r"pydicom\.")

# A megabyte can inflate to a gigabyte, of which pydicom makes two copies.
_MAX_INFLATED = 1 << 28
# Decoders of compressed pixel data that may run in this process: they survive corrupt input.
_TRUSTED = ("pillow", "pydicom")
_WORKER_SECONDS = 120
_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_INSTALL_HINT = f"Install the decoders with: {pip_install('dicom')}"
_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN "
    b"UR US UT UV".split()
)


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file is DICOM, by its first 132 bytes (PS3.10, section 7.1).

    Without "DICM" after the preamble the first data element must be plausible: group 0002 or
    0008, one of its first elements, with a known VR or (implicit VR) a short even length.
    """
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8:
        return False
    vr_is_known = head[4:6] in _VRS
    if head[:2] == b"\0\x08" and vr_is_known:  # explicit VR big endian
        return head[2] == 0 and head[3] <= 0x18
    if head[:2] not in (b"\x02\0", b"\x08\0") or head[3] != 0 or head[2] > 0x18:
        return False
    length = int.from_bytes(head[4:8], "little")
    return vr_is_known or (length <= 1024 and length % 2 == 0)


class DicomReader:
    """A DICOM file, opened; see `annotator.images.frames.FrameReader`.

    Stored values go through the modality LUT or rescale, then the VOI LUT or the first window.
    Where there is neither, 8-bit values are shown as they are and deeper ones between their 0.5th
    and 99.5th percentiles, padding left out. MONOCHROME1 is inverted; padding becomes black.

    Args:
        data: The whole file.
        max_pixels: Largest width x height of one frame.

    Raises:
        ImageError: No image, too large, truncated, or compressed in a way that cannot be read.
        Exception: pydicom's own, on corrupt input; the caller turns them into ImageError.
    """

    def __init__(self, data: bytes, max_pixels: int) -> None:
        from pydicom.pixels.utils import get_nr_frames

        self._data = data
        self._ds = ds = _read(data)
        _check_has_pixels(ds)
        rows, columns = int(ds.Rows), int(ds.Columns)
        check_size(columns, rows, max_pixels)
        self.pixels = rows * columns
        self.n_frames = get_nr_frames(ds, warn=False)
        if self.n_frames < 1:
            raise ImageError("DICOM with a number of frames below 1", EXPORT_HINT, "broken")
        _check_decodable(ds)

    def read(self, indices: Sequence[int]) -> Iterator[Frame]:
        stored = _stored_values(self._ds, self._data, indices)
        for index, values in zip(indices, stored, strict=True):
            yield Frame(render(self._ds, index, values))


@cache
def silence_log() -> None:
    """Keep pydicom's log, which quotes values, from being shown."""
    import pydicom.config  # noqa: F401 - which sets the level itself

    logging.getLogger("pydicom").setLevel(logging.CRITICAL)


def _read(data: bytes) -> Any:
    """Parse the data set; a missing transfer syntax is filled in from how it was read."""
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    silence_log()
    _check_inflated_size(data)
    ds = dcmread(io.BytesIO(data), force=True)
    if "TransferSyntaxUID" not in ds.file_meta:
        implicit, little = ds.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return ds


def _check_inflated_size(data: bytes) -> None:
    """Refuse a deflated data set (PS3.5, A.5) that would fill the memory once inflated."""
    from pydicom.filereader import read_dataset
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    file = io.BytesIO(data)
    file.seek(132 if data[128:132] == b"DICM" else 0)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    size = 0
    while chunk := file.read(1 << 16):
        size += len(inflater.decompress(chunk))
        if size > _MAX_INFLATED:
            message = f"deflated DICOM of more than {_MAX_INFLATED} bytes"
            raise ImageError(message, EXPORT_HINT, "too_large")


def _check_has_pixels(ds: Any) -> None:
    if any(keyword in ds for keyword in _PIXEL_KEYWORDS):
        return
    if "Rows" in ds:
        message = "DICOM whose pixel data is missing or truncated"
        raise ImageError(message, EXPORT_HINT, "broken")
    sop_class = ds.get("SOPClassUID") or ds.file_meta.get("MediaStorageSOPClassUID")
    what = f" ({_name(sop_class)})" if _name(sop_class) else ""
    raise ImageError(f"DICOM without an image{what}", "Leave it out.", "no_pixels")


def _name(uid: Any) -> str:
    """The standard's name for a UID, or nothing: another value must not get into a message."""
    name = str(getattr(uid, "name", ""))
    return "" if name == uid else name


def _check_decodable(ds: Any) -> None:
    """Check the transfer syntax, and of uncompressed data the length that the header claims."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import get_expected_length

    syntax = ds.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        message = f"unsupported DICOM transfer syntax {_name(syntax)}".rstrip()
        hint = "Convert it to Explicit VR Little Endian."
        raise ImageError(message, hint, "unsupported") from None
    if not decoder.is_available:
        message = f"no decoder for DICOM transfer syntax {_name(syntax)}"
        raise ImageError(message, _INSTALL_HINT, "unsupported")
    if not syntax.is_encapsulated:
        stored = next(len(ds[k].value or b"") for k in _PIXEL_KEYWORDS if k in ds)
        if stored < get_expected_length(ds):
            message = "truncated DICOM: the pixel data is shorter than its header says"
            raise ImageError(message, EXPORT_HINT, "broken")


def _stored_values(ds: Any, data: bytes, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
    """The stored values of these frames, each [rows, columns] or [rows, columns, samples]."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import pixel_array
    from pydicom.uid import JPEGExtended12Bit

    syntax = ds.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        for index in indices:
            yield pixel_array(ds, index=index)
        return
    plugin = next((p for p in get_decoder(syntax).available_plugins if p in _TRUSTED), None)
    if plugin is None or (syntax == JPEGExtended12Bit and ds.BitsStored > 8):
        yield from _decoded_apart(data, indices, _name(syntax))
        return
    for index in indices:
        _check_frame(ds, index, syntax)
        try:
            values = pixel_array(ds, index=index, decoding_plugin=plugin)
        except RuntimeError:
            raise _cannot_be_decoded(_name(syntax)) from None
        yield values


def _check_frame(ds: Any, index: int, syntax: Any) -> None:
    """Refuse a compressed frame that would decode to more than its header says.

    Decoders fill memory first and compare with Rows and Columns later: a kilobyte of JPEG 2000 may
    hold more than a hundred million pixels.
    """
    from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
    from PIL.JpegImagePlugin import JpegImageFile
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import get_nr_frames
    from pydicom.uid import RLELossless

    n_frames = get_nr_frames(ds, warn=False)
    frame = get_frame(ds.PixelData, index, number_of_frames=n_frames)
    if syntax == RLELossless:
        claimed = ds.Rows * ds.Columns * ds.SamplesPerPixel * -(-ds.BitsAllocated // 8)
        fits = _fits_rle(frame, 2 * claimed)  # padded frames are fine
    else:
        reader = JpegImageFile if frame.startswith(b"\xff\xd8") else Jpeg2KImageFile
        try:
            with reader(io.BytesIO(frame)) as image:
                fits = image.size == (ds.Columns, ds.Rows)
        except Exception:  # readers of hostile bytes fail in many ways
            raise _cannot_be_decoded(_name(syntax)) from None
    if not fits:
        message = "DICOM frame of another size than its header says"
        raise ImageError(message, EXPORT_HINT, "broken")


def _fits_rle(frame: bytes, limit: int) -> bool:
    """Whether an RLE frame (PS3.5, annex G) decodes to at most `limit` bytes."""
    header = np.frombuffer(frame[:64], "<u4").tolist()
    size = 0
    for position, end in pairwise([*header[1 : header[0] + 1], len(frame)]):
        while position < end and size <= limit:
            code = frame[position]
            if code < 128:  # as many literal bytes and one more
                size += code + 1
                position += code + 2
            else:  # a byte, repeated; 128 stands for nothing
                size += 257 - code if code > 128 else 0
                position += 2 if code > 128 else 1
    return size <= limit


def _decoded_apart(data: bytes, indices: Sequence[int], syntax: str) -> NDArray[Any]:
    """Decode in a process of its own, which a corrupt file may then take down.

    A single changed byte makes GDCM abort the process. Starting one takes about half a second.
    """
    # -P: the script's folder must not get in the way of modules of the standard library.
    command = [sys.executable, "-P", str(Path(__file__).with_name("dicom_worker.py"))]
    try:
        done = subprocess.run(
            [*command, *map(str, indices)],
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_WORKER_SECONDS,
            check=True,
        )
    except subprocess.SubprocessError:
        raise _cannot_be_decoded(syntax) from None
    decoded: NDArray[Any] = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    return decoded


def _cannot_be_decoded(syntax: str) -> ImageError:
    message = f"DICOM pixel data that cannot be decoded as {syntax}"
    return ImageError(message, f"It may be corrupt. {_INSTALL_HINT}", "broken")
