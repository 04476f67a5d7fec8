"""Every kind of raster image and volume gives the picture that its stored values hold."""

from __future__ import annotations

import gzip
import struct
import sys
import tracemalloc
import zlib
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

from annotator.errors import ImageError
from annotator.images.decode import decode
from tests.images import raster_cases as cases
from tests.images.raster_cases import Case, Refused

pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")  # pytest puts its own in their place

EXACT = {
    f"{kind}: {name}": case
    for kind, made in {
        "TIFF": cases.tiff_cases(),
        "pages": cases.page_cases(),
        "PNG": cases.png_cases(),
        "NIfTI": cases.nifti_cases(),
    }.items()
    for name, case in made.items()
}
OTHERS = cases.other_cases()
REFUSALS = cases.refusals()


def check(case: Case, levels: float) -> None:
    """The picture is what is expected, but for so many grey levels on average."""
    decoded = decode(case.data)
    picture = np.asarray(decoded.frames[0]).astype(float)
    assert decoded.notes == case.notes
    expected = case.expected.astype(float)
    if picture.ndim > expected.ndim:  # WebP knows no grey
        expected = np.repeat(expected[..., None], 3, axis=2)
    assert picture.shape == expected.shape
    assert np.abs(picture - expected).mean() <= levels
    assert np.corrcoef(picture.ravel(), expected.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("name", EXACT)
def test_picture_of_the_stored_values(name: str) -> None:
    if "zstd" in name and PIL.__version__ < "12":
        pytest.skip("the libtiff of Pillow 11 has no Zstandard")
    check(EXACT[name], levels=0.5)


@pytest.mark.parametrize("name", OTHERS)
def test_picture_of_what_pillow_wrote(name: str) -> None:
    check(OTHERS[name], levels=2)


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_names_the_cause(name: str) -> None:
    refused: Refused = REFUSALS[name]
    with pytest.raises(ImageError) as caught:
        decode(refused.data)
    assert refused.message in caught.value.message
    assert refused.hint in caught.value.hint
    assert caught.value.hint


# Frames


def test_slices_of_a_volume_from_the_feet_to_the_head() -> None:
    pictures = [np.roll(cases.GREY, 7 * n, axis=1) for n in range(5)]
    volume = cases.volume_of(pictures).astype(np.int16)
    decoded = decode(cases.nifti(volume, affine=cases.RAS), frames="all")
    for frame, picture in zip(decoded.frames, pictures, strict=True):
        np.testing.assert_allclose(np.asarray(frame), cases.stretched(picture), atol=1)
    (middle,) = decode(cases.nifti(volume, affine=cases.RAS)).frames
    assert middle == decoded.frames[2]


def test_all_pages_but_those_that_are_marked() -> None:
    pages = [cases.Page(np.roll(cases.GREY, 7 * n, axis=1)) for n in range(4)]
    pages[1] = pages[1]._replace(tags=cases.REDUCED)
    decoded = decode(cases.tiff(*pages), frames="all")
    for frame, n in zip(decoded.frames, (0, 2, 3), strict=True):
        np.testing.assert_array_equal(np.asarray(frame), pages[n].values)


def test_frames_of_an_animated_avif() -> None:
    images = [Image.fromarray(np.roll(cases.GREY, 30 * n, axis=1)) for n in range(3)]
    data = cases.saved(images[0], "AVIF", save_all=True, append_images=images[1:], quality=95)
    decoded = decode(data, frames="all")
    for frame, image in zip(decoded.frames, images, strict=True):
        difference = np.asarray(frame.convert("L"), int) - np.asarray(image)
        assert np.abs(difference).mean() < 3


def test_jpeg_2000_of_deep_colours_is_stretched() -> None:
    openjpeg = pytest.importorskip("openjpeg")
    for bits, scale in (12, 1), (16, 16):
        stored = openjpeg.encode(
            cases.DEEP_COLOUR * scale, photometric_interpretation=1, bits_stored=bits
        )
        check(Case(stored, cases.stretched(cases.DEEP_COLOUR)), levels=2)


# Limits, hostile files and missing packages


def refusal(data: bytes, **options: Any) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data, **options)
    return caught.value


def test_sizes_are_checked_before_pixels_are_decoded() -> None:
    rows = {
        "AVIF": OTHERS["AVIF, grey"],
        "JPEG 2000": OTHERS["JP2, grey"],
        "NIfTI": cases.nifti_cases()["gzip"],
        "TIFF": cases.tiff_cases()["tiles"],
    }
    for case in rows.values():
        error = refusal(case.data, max_pixels=cases.GREY.size - 1)
        assert error.code == "too_large"
        assert "96 pixels is over the limit" in error.message


def test_volumes_that_would_fill_the_memory() -> None:
    small = np.zeros((2, 2, 2), np.int16)
    for version, place in (1, 40), (2, 16):
        data = bytearray(cases.nifti(small, version=version))
        dim = struct.Struct("<8h" if version == 1 else "<8q")
        dim.pack_into(data, place, 3, 8000, 8000, 32000, 1, 1, 1, 1)
        for stored in (bytes(data), gzip.compress(data)):
            error = refusal(stored)
            assert error.code == "too_large"
            assert "NIfTI volume of more than" in error.message


def test_strips_that_overlap_take_no_more_than_the_picture() -> None:
    # Each of 96 strips claims the whole file.
    body = zlib.compress(cases.GREY[:1].tobytes())
    page = cases.Page(cases.GREY, compression=cases.DEFLATE, rows_per_strip=1, stored=(body,) * 96)
    data = cases.tiff(page._replace(tags={279: (4, [10_000_000] * 96)})) + bytes(10_000_000)
    tracemalloc.start()
    decode(data, allow_blank=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_nifti_without_nibabel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)
    error = refusal(cases.nifti(cases.GREY.T))
    assert error.code == "unsupported"
    assert 'pip install "cui-annotator[nifti]"' in error.hint
