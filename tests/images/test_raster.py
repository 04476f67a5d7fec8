"""Every kind of raster image and volume gives the picture that its stored values hold."""

from __future__ import annotations

import numpy as np
import pytest

from annotator.errors import ImageError
from annotator.images.decode import decode
from tests.images import raster_cases
from tests.images.raster_cases import Case, Refused

pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")  # pytest puts its own in their place

EXACT = {
    f"{kind}: {name}": case
    for kind, cases in {
        "TIFF": raster_cases.tiff_cases(),
        "pages": raster_cases.page_cases(),
        "PNG": raster_cases.png_cases(),
        "NIfTI": raster_cases.nifti_cases(),
    }.items()
    for name, case in cases.items()
}
OTHERS = raster_cases.other_cases()
REFUSALS = raster_cases.refusals()


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
