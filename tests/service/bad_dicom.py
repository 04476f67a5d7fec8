"""DICOM files that are broken or hostile, and a few good ones."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4.50"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"
MPEG2 = "1.2.840.10008.1.2.4.100"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def dicom(pixels: bytes | list[bytes] | None, syntax: str = EXPLICIT, **attributes: Any) -> bytes:
    """A grey 8-bit image of 48 x 64 pixels; frames as a list are encapsulated."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = UID(SECONDARY_CAPTURE)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = UID("1.2.3.4")
    ds.PatientName = "Secret^Name"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = 64, 48, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # wrong values are the point
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        if isinstance(pixels, list):
            ds.PixelData = encapsulate(pixels)
            ds["PixelData"].is_undefined_length = True
        elif pixels is not None:
            ds.PixelData = pixels
        if pixels is not None:
            ds["PixelData"].VR = "OB"
        file = io.BytesIO()
        ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


def rle(*segments: bytes) -> bytes:
    """An RLE frame of segments that are encoded already (PS3.5, annex G)."""
    offsets = [64]
    for segment in segments[:-1]:
        offsets.append(offsets[-1] + len(segment))
    header = np.zeros(16, "<u4")
    header[: len(segments) + 1] = [len(segments), *offsets]
    return header.tobytes() + b"".join(segments)


def picture(width: int, height: int, format: str) -> bytes:
    """A black picture as a compressed frame."""
    file = io.BytesIO()
    options = {"no_jp2": True} if format == "JPEG2000" else {}
    Image.new("L", (width, height)).save(file, format, **options)
    return file.getvalue()


def good_dicoms(pixels: NDArray[np.uint8]) -> dict[str, bytes]:
    """Sound files of uint8[64, 48] in several transfer syntaxes."""
    frames = {}
    for format in ("JPEG", "JPEG2000"):
        file = io.BytesIO()
        options = {"no_jp2": True} if format == "JPEG2000" else {}
        Image.fromarray(pixels).save(file, format, **options)
        frames[format] = file.getvalue()
    literal = b"".join(b"\x2f" + row.tobytes() for row in pixels)  # 48 bytes as they are
    raw = pixels.tobytes()
    return {
        "dicom": dicom(raw),
        "dicom-implicit": dicom(raw, IMPLICIT),
        "dicom-deflated": dicom(raw, DEFLATED),
        "dicom-rle": dicom([rle(literal)], RLE),
        "dicom-jpeg": dicom([frames["JPEG"]], JPEG),
        "dicom-jpeg-2000": dicom([frames["JPEG2000"]], JPEG_2000),
    }


def wrong_headers() -> Iterator[tuple[str, bytes]]:
    """Sound pixels, and a header that says something else or nonsense."""
    raw = bytes(64 * 48)
    yield "no pixels", dicom(None)
    yield "no pixels but a document", dicom(None, EncapsulatedDocument=b"%PDF-1.7\n", Rows=None)
    yield "empty pixels", dicom(b"")
    yield "65535 x 65535", dicom(raw, Rows=65535, Columns=65535)
    yield "8000 x 8000 without the pixels", dicom(raw, Rows=8000, Columns=8000)
    yield "no rows", dicom(raw, Rows=0)
    yield "rows without a value", dicom(raw, Rows=None)
    yield "columns twice", dicom(raw, Columns=[48, 48])
    yield "a trillion frames", dicom(raw, NumberOfFrames="999999999999")
    yield "minus one frame", dicom(raw, NumberOfFrames="-1")
    yield "three samples of one", dicom(raw, SamplesPerPixel=3, PlanarConfiguration=0)
    yield "no samples", dicom(raw, SamplesPerPixel=0)
    yield "64 bits", dicom(raw, BitsAllocated=64, BitsStored=64, HighBit=63)
    yield "7 bits allocated", dicom(raw, BitsAllocated=7)
    yield "no bits", dicom(raw, BitsAllocated=0, BitsStored=0)
    yield "strange colours", dicom(raw, PhotometricInterpretation="<script>alert(1)</script>")
    yield "a palette that is missing", dicom(raw, PhotometricInterpretation="PALETTE COLOR")
    yield "one bit short", dicom(raw[:-2])


def hostile_syntaxes() -> Iterator[tuple[str, bytes]]:
    """Transfer syntaxes that are unknown, wrong, or decode to more than they say."""
    raw = bytes(64 * 48)
    jpeg = picture(48, 64, "JPEG")
    yield "unknown syntax", dicom(raw).replace(b"1.2.840.10008.1.2.1\0", b"1.2.999.99999.9.9.9\0")
    yield (
        "syntax with a path",
        dicom(raw).replace(b"1.2.840.10008.1.2.1\0", b"../../../etc/passwd\0"),
    )
    yield "video", dicom([bytes(200)], MPEG2)
    yield "jpeg that is none", dicom([b"no JPEG at all, " * 4], JPEG)
    yield "jpeg cut off", dicom([jpeg[: len(jpeg) // 2]], JPEG)
    yield "jpeg of 12000 x 12000", dicom([picture(12_000, 12_000, "JPEG")], JPEG)
    yield "jpeg 2000 of 12000 x 12000", dicom([picture(12_000, 12_000, "JPEG2000")], JPEG_2000)
    yield "lossless jpeg that is none", dicom([bytes(100)], JPEG_LOSSLESS)
    yield "jpeg-ls that is none", dicom([bytes(100)], JPEG_LS)
    yield "rle bomb", dicom([rle(b"\x81\0" * 2_000_000)], RLE)
    yield "rle of 15 segments", dicom([rle(*[b"\x81\0"] * 15)], RLE)
    yield "rle header cut off", dicom([b"\x01\0\0\0\x40\0"], RLE)
    wild = struct.pack("<16I", 2, 2**32 - 1, 64, *[0] * 13)
    yield "rle offsets beyond the frame", dicom([wild + b"\x81\0" * 50], RLE)
    yield "deflated bomb", _deflated_bomb(300 << 20)
    yield "deflated rubbish", dicom(raw, DEFLATED)[:-400] + bytes(400)
    yield (
        "encapsulated but not",
        dicom(raw).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"),
    )
    yield "more frames than fragments", dicom([jpeg], JPEG, NumberOfFrames="9")


def _deflated_bomb(size: int) -> bytes:
    """Pixels of `size` zeros, deflated to a thousandth, without ever having them."""
    head, dataset = (
        _parts(dicom(b"\0\0", syntax))[i] for i, syntax in enumerate((DEFLATED, EXPLICIT))
    )
    packer, block = zlib.compressobj(1, wbits=-zlib.MAX_WBITS), bytes(1 << 20)
    pieces = [head, packer.compress(dataset[:-6] + struct.pack("<I", size))]
    pieces += [packer.compress(block) for _ in range(size >> 20)]
    return b"".join([*pieces, packer.flush()])


def _parts(file: bytes) -> tuple[bytes, bytes]:
    """Preamble and meta group, and the data set."""
    end = 144 + int.from_bytes(file[140:144], "little")
    return file[:end], file[end:]


def broken_structure() -> Iterator[tuple[str, bytes]]:
    """Lengths and nesting that lead nowhere, and other faults that some readers overlook."""
    good = dicom(bytes(64 * 48))
    element = good.index(b"\xe0\x7f\x10\0OB")
    for name, length in (("odd", 3001), ("undefined", 2**32 - 1), ("huge", 2**31), ("none", 0)):
        pixels = good[: element + 8] + struct.pack("<I", length) + good[element + 12 :]
        yield f"{name} length of the pixels", pixels
    rows = good.index(b"\x28\0\x10\0US") + 6
    yield "huge length of rows", good[:rows] + b"\xff\xff" + good[rows + 2 :]
    group = good.index(b"DICM") + 4
    yield "meta group of 4 GiB", good[: group + 8] + b"\xff\xff\xff\xff" + good[group + 12 :]
    yield "no meta group", good[:132] + good[group + 200 :]
    yield "unknown vr", good[:element] + good[element : element + 4] + b"??" + good[element + 6 :]
    sequence = b"\x40\0\x75\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
    for depth in (200, 3_000, 100_000):
        yield f"{depth} nested sequences", good[:element] + sequence * depth + good[element:]
    items = b"\x40\0\x75\x02SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\0\0\0\0" * 100_000
    yield "a hundred thousand items", good[:element] + items + good[element:]
    yield "private elements without end", good[:element] + b"\x29\0\x10\0UN\0\0\0\0\0\0" * 100_000
    yield "elements in reverse", good[:132] + good[132:][::-1]
    yield "the same twice", good + good[132:]
    yield "jpeg 2000 that is a jpeg", dicom([picture(48, 64, "JPEG")], JPEG_2000)
