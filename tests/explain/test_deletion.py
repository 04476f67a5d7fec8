"""Covering the places of a heatmap against covering random ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from annotator.explain.deletion import DRAWS, Deletion, covers, highest_tenth

GRIDS = arrays(np.float64, (7, 9), elements=st.floats(-1, 1))
BLANKS = arrays(np.bool_, (7, 9)).filter(lambda blank: not blank.all())


@given(GRIDS, BLANKS)
def test_the_tenth_is_of_what_is_coloured_and_no_cell_outside_it_is_higher(
    grid: np.ndarray, blank: np.ndarray
) -> None:
    mask = highest_tenth(grid, blank)
    assert mask.sum() == max(1, round((~blank).sum() / 10))
    assert not mask[blank].any()
    assert (grid[mask].min() >= grid[~mask & ~blank]).all()


def test_of_equal_cells_the_first() -> None:
    assert np.flatnonzero(highest_tenth(np.zeros((2, 10)), np.zeros((2, 10), bool))).tolist() == [
        0,
        1,
    ]


@given(GRIDS, BLANKS)
def test_random_covers_are_as_large_and_stay_on_what_is_coloured(
    grid: np.ndarray, blank: np.ndarray
) -> None:
    first, *random = covers(grid, blank, np.random.default_rng(0))
    assert np.array_equal(first, highest_tenth(grid, blank)) and len(random) == DRAWS
    assert {int(mask.sum()) for mask in random} == {int(first.sum())}
    assert not any(mask[blank].any() for mask in random)


def test_random_covers_have_the_form_of_the_heatmap_elsewhere() -> None:
    grid = np.zeros((20, 30))
    grid[2:6, 3:18] = 1.0  # a bar of 60 cells, a tenth
    _, *random = covers(grid, np.zeros(grid.shape, bool), np.random.default_rng(0))
    places = {tuple(np.argwhere(mask)[0]) for mask in random}
    assert len(places) > DRAWS // 2
    for mask in random:
        # Once around the picture, it is a bar of 4 rows and 15 columns still.
        assert sorted((mask.any(axis=1).sum(), mask.any(axis=0).sum())) == [4, 15]


def test_a_heatmap_tells_something_if_it_beats_three_quarters_of_the_random_places() -> None:
    random = np.linspace(0, 0.18, DRAWS)  # 0.13 and 0.14 at three quarters: 0.135
    assert Deletion(0.136, random).tells and not Deletion(0.134, random).tells
    assert Deletion(0.1, random).mean == pytest.approx(0.09)
    assert Deletion(0.1, random).upper_quartile == pytest.approx(0.135)
    # Where covering anything only brings the image nearer, no place supports the concept.
    assert not Deletion(-0.01, random - 1).tells and Deletion(0.01, random - 1).tells
