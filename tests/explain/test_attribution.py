"""Parts stay what they were when they are laid over a picture, and are the Shapley values."""

from __future__ import annotations

from itertools import combinations
from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.explain.attribution import (
    AttributionMap,
    Contributions,
    attribution_maps,
    grid_shape,
    linear_forms,
    spread,
)

sizes = st.integers(1, 30)


def test_without_a_projection_the_targets_are_the_weights() -> None:
    targets = np.random.default_rng(0).normal(size=(3, 5))
    weights, constants = linear_forms(None, np.zeros(5, np.float32), targets)
    assert np.array_equal(weights, targets) and not constants.any()


@given(sizes, sizes, st.floats(-1, 0), st.floats(1, 2))
@settings(deadline=None)
def test_of_a_map_beyond_the_picture_only_the_padding_is_lost(
    n: int, m: int, low: float, high: float
) -> None:
    shares = spread(n, low, high, m)
    assert shares.shape == (m, n)
    assert shares.min() >= -1e-12 and shares.sum(axis=0).max() <= 1 + 1e-12
    whole = spread(n, low, high, 1)  # all that falls on the picture at once
    assert shares.sum(axis=0) == pytest.approx(whole[0], abs=1e-9)


@given(sizes, sizes, st.floats(0, 0.4), st.floats(0.6, 1))
@settings(deadline=None)
def test_of_a_map_within_the_picture_nothing_is_lost(
    n: int, m: int, low: float, high: float
) -> None:
    assert spread(n, low, high, m).sum(axis=0) == pytest.approx(1, abs=1e-9)


def test_a_part_is_spread_evenly_around_its_position() -> None:
    shares = spread(10, 0, 1, 20)
    assert shares[:, 5] == pytest.approx(shares[::-1, 4])
    assert set(np.argsort(shares[:, 5])[-2:]) == {10, 11}
    assert np.count_nonzero(shares[:, 5] > 1e-12) == 6  # three positions wide
    fine = spread(40, 0, 1, 40)[:, 20]
    assert np.count_nonzero(fine > 1e-12) in (10, 11)  # never less than a quarter of the side


@given(st.integers(0, 2**32), st.tuples(sizes, sizes), st.tuples(sizes, sizes))
@settings(deadline=None, max_examples=50)
def test_maps_add_up(seed: int, shape: tuple[int, int], other: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    boxes = [(-0.2, 0.0, 1.2, 1.0), (0.1, 0.0, 0.9, 1.0)]
    parts = [
        Contributions(rng.normal(size=(*shape, 3)), boxes[0]),
        Contributions(rng.normal(size=(*other, 3)), boxes[1]),
    ]
    constants, elsewhere = rng.normal(size=3), rng.normal(size=3)
    totals = sum(p.values.sum(axis=(0, 1)) for p in parts) + constants + elsewhere
    found = attribution_maps(
        parts,
        totals=totals,
        constants=constants,
        elsewhere=elsewhere,
        shape=grid_shape(parts, 90, 60),
    )
    assert [map_.total for map_ in found] == totals.tolist()
    for map_ in found:
        assert map_.rest == pytest.approx(0, abs=1e-9)
        assert map_.grid.sum() + map_.elsewhere + map_.constant == pytest.approx(map_.total)
        blank = rng.random(map_.grid.shape) < 0.5
        drawn = map_.without(blank)
        assert not drawn.grid[blank].any()
        assert np.array_equal(drawn.grid[~blank], map_.grid[~blank])
        assert drawn.rest == pytest.approx(0, abs=1e-9)


def test_a_contribution_lies_where_its_position_is() -> None:
    values = np.zeros((4, 4, 1))
    values[1, 3] = 1  # in the second row, at the right
    for box, (row, column) in {
        (0.0, 0.0, 1.0, 1.0): (0.375, 0.875),  # the whole picture
        (0.0, -0.5, 1.0, 1.5): (0.25, 0.875),  # a wide one on padding
        (0.25, 0.0, 0.75, 1.0): (0.375, 0.6875),  # its middle
    }.items():
        (map_,) = attribution_maps(
            [Contributions(values, box)],
            totals=np.ones(1),
            constants=np.zeros(1),
            elsewhere=np.zeros(1),
            shape=(40, 40),
        )
        at = np.unravel_index(map_.grid.argmax(), map_.grid.shape)
        assert at[0] / 40 == pytest.approx(row, abs=0.04)
        assert at[1] / 40 == pytest.approx(column, abs=0.04)


def test_the_grid_has_the_finest_cells_and_the_picture_s_proportions() -> None:
    fine, coarse = np.zeros((28, 28, 1)), np.zeros((7, 7, 1))
    square = (0.0, 0.0, 1.0, 1.0)
    assert grid_shape([Contributions(coarse, square), Contributions(fine, square)], 100, 100) == (
        28,
        28,
    )
    letterbox = (0.0, -0.5, 1.0, 1.5)
    assert grid_shape([Contributions(fine, letterbox)], 200, 100) == (14, 28)
    assert grid_shape([Contributions(coarse, (0.0, -50.0, 1.0, 51.0))], 1000, 10) == (1, 7)


def test_parts_are_the_shapley_values_of_the_game_among_positions() -> None:
    rng = np.random.default_rng(0)
    positions, target = rng.normal(size=(5, 6)), rng.normal(size=6)
    weights, constant = linear_forms(None, positions.sum(axis=0).astype(np.float32), target[None])

    def worth(coalition: tuple[int, ...]) -> float:
        """The product with the target of a vector that only these positions make."""
        vector = positions[list(coalition)].sum(axis=0)
        return float(weights[0] @ vector + constant[0])

    n = len(positions)
    for i, position in enumerate(positions):
        others = [j for j in range(n) if j != i]
        value = sum(
            factorial(size) * factorial(n - size - 1) / factorial(n)
            * (worth((*coalition, i)) - worth(coalition))
            for size in range(n)
            for coalition in combinations(others, size)
        )  # fmt: skip
        assert value == pytest.approx(weights[0] @ position)


def test_the_rest_is_what_the_parts_leave_unexplained() -> None:
    map_ = AttributionMap(np.array([[0.25, 0.5]]), 0.0625, 0.125, -0.25, 1.0)
    assert map_.rest == pytest.approx(0.3125)
