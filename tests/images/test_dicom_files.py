"""The test files of pydicom and of pydicom-data, against pydicom's own rendering of them."""

from __future__ import annotations

import importlib.util
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.data
import pytest
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import get_nr_frames, pixel_array
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from annotator.errors import ImageError
from annotator.images.decode import decode
from annotator.images.kinds import looks_like_dicom

pytestmark = pytest.mark.filterwarnings(r"ignore:::pydicom\.")

# Files with pixel data that are refused, and the message.
REFUSED = {
    # Made for a test of the parser, with a width of 3,722,445,056 in its codestream.
    "JPEG2000-embedded-sequence-delimiter.dcm": "DICOM frame of another size than its header says",
    "MR_truncated.dcm": "truncated DICOM: .*",
    # Parts of files, with an attribute or two.
    "meta_missing_tsyntax.dcm": "DICOM without Rows",
    "nested_priv_SQ.dcm": "DICOM without Rows",
}
# Files that pydicom cannot render, and others with the same picture.
SAME = {
    "badVR.dcm": "rtdose_1frame.dcm",  # NumberOfFrames is no number
    "JPEG-lossy.dcm": "JPGExtended.dcm",  # a scan that says that it has one coefficient
}


def files() -> list[Path]:
    folders = [Path(pydicom.data.__file__).parent / "test_files"]
    data = importlib.util.find_spec("data_store")  # the module of pydicom-data
    if data is not None and data.submodule_search_locations:
        folders.append(Path(data.submodule_search_locations[0]) / "data")
    found = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [path for path in found if looks_like_dicom(path.read_bytes()[:132])]


FILES = files()


def read(path: Path) -> pydicom.Dataset:
    ds = pydicom.dcmread(io.BytesIO(path.read_bytes()), force=True)
    if "TransferSyntaxUID" not in ds.file_meta:
        implicit, little = ds.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return ds


def rendered(ds: pydicom.Dataset, index: int) -> tuple[np.ndarray, np.ndarray]:
    """A frame as pydicom renders it, and without its window or VOI LUT."""
    stored = pixel_array(ds, index=index)
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(stored, ds)
        top = 255 if colours.max() < 256 else 65535
        return (colours[..., :3] * (255 / top),) * 2
    if stored.ndim == 3:
        return (stored * (255 / (2**ds.BitsStored - 1)),) * 2
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for item in ds.get(groups, [])[index if groups.startswith("Per") else 0 :][:1]:
            for inner in ("FrameVOILUTSequence", "PixelValueTransformationSequence"):
                ds.update(item.get(inner, [pydicom.Dataset()])[0])
    values = apply_modality_lut(stored, ds)
    low, high = np.percentile(values, (0.5, 99.5))
    if not low < high:
        low, high = values.min(), max(values.max(), values.min() + 1)
    plain = np.clip((values - low) * (255 / (high - low)), 0, 255)
    if stored.dtype == np.uint8 and ds.BitsStored == 8 and values is stored:
        plain = stored.astype(float)
    shown = plain
    if ds.get("VOILUTSequence"):
        depth = ds.VOILUTSequence[0].LUTDescriptor[2]
        shown = apply_voi_lut(values.astype(int), ds) * (255 / (2**depth - 1))
    elif ds.get("WindowWidth"):
        ends = np.array([values.min() - 1e9, values.max() + 1e9])
        black, white = apply_voi_lut(ends, ds)
        shown = (apply_voi_lut(values, ds) - black) * (255 / (white - black))
    if ds.PhotometricInterpretation == "MONOCHROME1":
        shown, plain = 255 - shown, 255 - plain
    return shown, plain


def check_equal(picture: np.ndarray, expected: np.ndarray) -> None:
    assert picture.shape == expected.shape
    if expected.std() > 0:
        assert np.corrcoef(picture.ravel(), expected.ravel())[0, 1] > 0.99
    assert abs(picture.mean() - expected.mean()) < 2


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_file(path: Path) -> None:
    data = path.read_bytes()
    ds = read(path)
    has_pixels = any(keyword in ds for keyword in ("PixelData", "FloatPixelData"))
    if path.name in REFUSED or not has_pixels:
        with pytest.raises(ImageError) as caught:
            decode(data)
        expected = REFUSED.get(path.name, r"DICOM without an image( \(.*\))?")
        assert re.fullmatch(expected, caught.value.message)
        assert (caught.value.code == "no_pixels") == (not has_pixels)
        return
    decoded = decode(data, allow_blank=True)
    picture = np.asarray(decoded.frames[0]).astype(float)
    if path.name in SAME:
        (other,) = decode(path.with_name(SAME[path.name]).read_bytes()).frames
        np.testing.assert_array_equal(picture, np.asarray(other))
        return
    shown, plain = rendered(ds, get_nr_frames(ds, warn=False) // 2)
    if "window_ignored" in decoded.notes:
        assert is_lost(shown)
        shown = plain
    check_equal(picture, shown)


def is_lost(picture: np.ndarray) -> Any:
    """Whether little or nothing can be seen."""
    return np.ptp(picture) < 25 or np.ptp(np.percentile(picture, (1, 99))) <= 2
