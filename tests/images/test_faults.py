"""The kind of fault that each unusable image is told to have."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

from annotator.errors import ImageError, ImageFault
from annotator.images import decode as decode_module
from annotator.images import dicom, parquet, sources
from annotator.images.decode import decode
from annotator.images.sources import find_images

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)


def encode(format: str, pages: int = 1) -> bytes:
    file = io.BytesIO()
    pictures = [Image.fromarray(np.roll(PIXELS, page)) for page in range(pages)]
    more: dict[str, Any] = {"save_all": True, "append_images": pictures[1:]} if pages > 1 else {}
    pictures[0].save(file, format, **more)
    return file.getvalue()


def dicom_file(syntax: str = ExplicitVRLittleEndian, **changes: Any) -> bytes:
    """A small secondary capture; a change to None takes the attribute out."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3.4"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = 32, 32, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.PixelData = PIXELS.tobytes()
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


APNG = b"\x89PNG\r\n\x1a\n" + b"".join(
    struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    for kind, body in (
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        (b"acTL", struct.pack(">II", 1 << 30, 0)),
        (b"IDAT", zlib.compress(b"\0\5")),
    )
)
CASES: dict[str, tuple[ImageFault, Callable[[], bytes]]] = {
    "nothing": ("empty", lambda: b""),
    "text": ("unknown_format", lambda: b"Not a picture, but a text about one."),
    "truncated": ("broken", lambda: encode("PNG")[:500]),
    "corrupt": ("broken", lambda: b"\xff\xd8\xff" + bytes(50)),
    "wide": ("too_large", lambda: encode("PNG")),
    "scans": ("too_many_frames", lambda: b"\xff\xd8\xff" + b"\xff\xda" * 101),
    "pages": ("too_many_frames", lambda: encode("TIFF", 4)),
    "animation": ("too_many_frames", lambda: APNG),
    "all frames": ("too_large", lambda: encode("TIFF", 3)),
    "report": ("no_pixels", lambda: dicom_file(PixelData=None, Rows=None)),
    "no rows": ("no_pixels", lambda: dicom_file(Rows=0)),
    "no pixel data": ("broken", lambda: dicom_file(PixelData=None)),
    "short": ("broken", lambda: dicom_file(PixelData=bytes(100))),
    "no frames": ("broken", lambda: dicom_file(NumberOfFrames=-1)),
    "private syntax": (
        "unsupported",
        lambda: dicom_file().replace(b"1.2.840.10008.1.2.1\0", b"1.2.999.10008.1.2.1\0"),
    ),
    "colour space": (
        "unsupported",
        lambda: dicom_file(
            SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="HSV",
            PixelData=PIXELS.tobytes() * 3,
        ),
    ),
    "no JPEG": (
        "broken",
        lambda: dicom_file(JPEGBaseline8Bit, PixelData=encapsulate([b"\xff\xd8\xff\xd9"])),
    ),
    "deflated": (
        "too_large",
        lambda: dicom_file(DeflatedExplicitVRLittleEndian, PatientComments="x" * 10_000),
    ),
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {"wide": {"max_pixels": 1023}, "all frames": {"frames": "all"}}


@pytest.mark.parametrize("case", CASES)
def test_what_decode_says(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, make = CASES[case]
    data = make()
    if case == "pages":
        monkeypatch.setattr(decode_module, "_MAX_PAGES", 3)
    if case == "all frames":
        # As if the later pages were larger than the first, by which they are counted.
        monkeypatch.setattr(decode_module, "MAX_TOTAL_PIXELS", 2047)
    if case == "deflated":
        monkeypatch.setattr(dicom, "_MAX_INFLATED", 9_000)
    with pytest.raises(ImageError) as caught:
        decode(data, **OPTIONS.get(case, {}))
    assert caught.value.code == fault, caught.value.message


def codes_of(folder: Path) -> dict[str, str]:
    """The fault of each image in a folder, none of which can be read."""
    codes: dict[str, str] = {}
    for ref in find_images(folder).images:
        with pytest.raises(ImageError) as caught:
            ref.read()
        codes[ref.id] = caught.value.code
    return codes


def test_what_a_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large.png").write_bytes(bytes(100))
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr(sources, "MAX_BYTES", 99)
    assert codes_of(tmp_path) == {"gone": "unreadable", "large": "too_large"}


def test_what_a_table_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pa.array([b"", bytes(100)])
    table = pa.table({"image_id": ["none", "large"], "image": images})
    pq.write_table(table, tmp_path / "t.parquet")
    monkeypatch.setattr(parquet, "MAX_BYTES", 99)
    assert codes_of(tmp_path) == {"none": "empty", "large": "too_large"}
