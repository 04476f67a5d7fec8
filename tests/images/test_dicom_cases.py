"""Each DICOM file of `dicom_cases` gives the picture that is expected of it, or is refused."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest

from annotator.errors import ImageError
from annotator.images.decode import decode
from tests.images.dicom_cases import Case, cases

# pytest puts its own filters in the place of the package's.
pytestmark = pytest.mark.filterwarnings(r"ignore:::pydicom\.")

# Values of large pictures go through tables, those of small ones do not.
SMALL, LARGE = 96, 288


@cache
def cases_of(side: int) -> dict[str, Case]:
    return cases(side)


@pytest.mark.parametrize("side", [SMALL, LARGE])
@pytest.mark.parametrize("name", cases_of(SMALL))
def test_case(name: str, side: int) -> None:
    case = cases_of(side)[name]
    if isinstance(case.expected, str):
        with pytest.raises(ImageError) as caught:
            decode(case.data)
        assert re.fullmatch(case.expected, caught.value.message)
        assert caught.value.hint
        assert "Secret" not in str(caught.value)
        return
    decoded = decode(case.data)
    (picture,) = decoded.frames
    shown = np.asarray(picture).astype(float)
    assert shown.shape == case.expected.shape
    assert np.corrcoef(shown.ravel(), case.expected.ravel())[0, 1] > 0.99
    assert abs(shown.mean() - case.expected.mean()) < 2
    # Nearly all pixels are right; the rest is at edges where writers and readers round.
    assert np.mean(np.abs(shown - case.expected) > 3) < 0.01
    assert decoded.notes == case.notes
