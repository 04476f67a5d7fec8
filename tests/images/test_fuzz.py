"""Good files of every format with a few bytes changed: a picture, or an `ImageError`.

`ANNOTATOR_FUZZ_EXAMPLES` makes it longer: 20,000 take some minutes.
"""

from __future__ import annotations

import io
import os
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from annotator.errors import ImageError
from annotator.images.decode import decode, show
from annotator.images.notes import NOTES
from annotator.images.pixels import Window
from tests.images import dicom_cases, raster_cases

EXAMPLES = int(os.environ.get("ANNOTATOR_FUZZ_EXAMPLES", "60"))
KINDS = ("PNG", "TIFF", "NIfTI", "DICOM", "others")
MOST = 1_000_000  # pixels

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:::PIL\."),
    pytest.mark.filterwarnings(r"ignore:::pydicom\."),
]


@cache
def good_files(kind: str) -> list[bytes]:
    made: list[Any]
    if kind == "PNG":
        made = list(raster_cases.png_cases().values())
    elif kind == "TIFF":
        made = [*raster_cases.tiff_cases().values(), *raster_cases.page_cases().values()]
    elif kind == "NIfTI":
        made = list(raster_cases.nifti_cases().values())
    elif kind == "DICOM":
        made = list(dicom_cases.cases(24).values())
    else:
        made = list(raster_cases.other_cases().values())
    return [case.data for case in made] + (_saved() if kind == "others" else [])


def _saved() -> list[bytes]:
    files = []
    for format in ("JPEG", "JPEG2000", "WEBP", "GIF", "BMP", "AVIF"):
        file = io.BytesIO()
        Image.fromarray(raster_cases.COLOUR).save(file, format)
        files.append(file.getvalue())
    return files


@st.composite
def spoilt(draw: st.DrawFn, kind: str) -> bytes:
    """A good file with bytes changed, put in, taken out or cut off, most of them in its header."""
    data = bytearray(draw(st.sampled_from(good_files(kind))))
    for _ in range(draw(st.integers(1, 4))):
        near = draw(st.sampled_from((64, 400, len(data))))
        at = draw(st.integers(0, max(0, min(near, len(data)) - 1)))
        new = draw(
            st.sampled_from([b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\0" * 4])
            | st.binary(max_size=4)
        )
        data[at : at + draw(st.sampled_from((0, len(new), len(new), 3)))] = new
    if draw(st.integers(0, 9)) == 0:
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data)


@pytest.mark.parametrize("kind", KINDS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_spoilt_files(kind: str, data: st.DataObject) -> None:
    file = data.draw(spoilt(kind))
    claimed: list[int] = []
    frames = data.draw(st.sampled_from(("middle", "all")))
    try:
        decoded = decode(
            file, frames=frames, max_pixels=MOST, max_frames=8, allow_blank=True,
            claim=claimed.append,
        )  # fmt: skip
        for picture in decoded.frames:
            assert picture.mode in ("L", "RGB") and picture.width * picture.height <= MOST
        assert set(decoded.notes) <= NOTES.keys()
    except ImageError as error:
        assert error.message and "\n" not in error.message
    try:
        shown = show(file, window=Window(40.0, 400.0), side=64, max_pixels=MOST)
        assert max(shown.picture.size) <= 64 and 0 <= shown.frame < shown.n_frames
    except ImageError as error:
        assert error.message
