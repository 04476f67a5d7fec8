"""Calibration curves, against scikit-learn, and on votes whose worth is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from annotator.knn.calibration import LEAST_IMAGES, Calibration, Curve, calibrate, isotonic
from annotator.knn.cross_validation import NeighborLists
from annotator.knn.voting import Voting
from index import LabelTable, Neighbors

SHARES = st.floats(0, 1, width=32)
PAIRS = st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=200)


@settings(deadline=None)
@given(st.lists(st.tuples(SHARES, st.integers(1, 9)), min_size=1, max_size=40))
def test_the_pools_are_those_of_scikit_learn(pairs: list[tuple[float, int]]) -> None:
    values, weights = (np.array(column, float) for column in zip(*pairs, strict=True))
    starts = isotonic(values, weights)
    means = np.add.reduceat(values * weights, starts) / np.add.reduceat(weights, starts)
    fitted = np.repeat(means, np.diff([*starts, len(values)]))
    at = np.arange(len(values))
    wanted = IsotonicRegression().fit_transform(at, values, sample_weight=weights)
    np.testing.assert_allclose(fitted, wanted, atol=1e-9)


@settings(deadline=None)
@given(PAIRS, st.booleans())
def test_a_curve_ascends_and_keeps_the_mean(pairs: list[tuple[float, float]], votes: bool) -> None:
    predicted, observed = (np.array(column, float) for column in zip(*pairs, strict=True))
    curve = Curve.fit(predicted, observed, weights=predicted + 1e-3 if votes else None)
    assert len(curve.x) <= 30
    grid = curve(np.linspace(0, 1, 101))
    assert (np.diff(grid) >= 0).all() and grid.min() >= 0 and grid.max() <= 1
    assert observed.min() - 1e-6 <= grid[0] and grid[-1] <= observed.max() + 1e-6
    assert Curve.from_list(json.loads(json.dumps(curve.to_list()))) == curve


def test_a_curve_does_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.choice([0.1, 0.5, 0.5000001, 0.9], 400)
    observed = (rng.random(400) < predicted).astype(float)
    order = rng.permutation(400)
    assert Curve.fit(predicted[order], observed[order]) == Curve.fit(predicted, observed)


def test_a_curve_finds_what_predictions_are_worth() -> None:
    rng = np.random.default_rng(1)
    predicted = rng.random(20_000)
    curve = Curve.fit(predicted, (rng.random(20_000) < predicted**2).astype(float))
    at = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(curve(at), at**2, atol=0.04)
    assert curve(2.0) == curve(1.0) == curve.y[-1]  # level beyond the last point


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ((), ()),
        ((0.5, 0.5), (0.1, 0.2)),
        ((0.1, 0.2), (0.5, 0.4)),
        ((0.1, 0.2), (0.5, 1.1)),
        ((-0.1, 0.2), (0.5, 0.6)),
        ((0.1,), (0.5, 0.6)),
        ((0.1, float("nan")), (0.5, 0.6)),
    ],
)
def test_what_is_no_curve(x: tuple[float, ...], y: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="ascend within"):
        Curve(x, y)


def lists_of(n: int, neighbors: int = 10) -> tuple[NeighborLists, LabelTable]:
    """n images with concept a or b, whose neighbours have the same with a probability of 0.7, drawn
    once for all of them: a unanimous vote is right in 0.7 of the cases.
    """
    rng = np.random.default_rng(2)
    own = rng.integers(2, size=n)
    labels = LabelTable.from_sets([["a"] if kind else ["b"] for kind in own])
    seen = np.where(rng.random(n) < 0.7, own, 1 - own)
    rows = np.stack([rng.choice(np.flatnonzero(own == kind), neighbors) for kind in seen])
    similarities = np.full(rows.shape, 0.9, np.float32)
    return NeighborLists(np.arange(n), Neighbors(rows, similarities)), labels


def test_a_vote_that_is_too_sure() -> None:
    lists, labels = lists_of(1000)
    found = calibrate(lists, labels, Voting(k=10))
    assert found is not None and found.images == 1000
    assert found.score(1.0) == pytest.approx(0.7, abs=0.03)
    assert found.expected_f1(1.0) == pytest.approx(0.7, abs=0.03)
    assert Calibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_concepts_that_were_not_chosen_count_as_well() -> None:
    lists, labels = lists_of(1000)
    found = calibrate(lists, labels, Voting(k=10, prior=10.0, typical=0.9))
    assert found is not None
    assert found.score([0.25, 0.75]) == pytest.approx([0.3, 0.7], abs=0.04)


def test_too_few_images() -> None:
    lists, labels = lists_of(LEAST_IMAGES)
    assert calibrate(lists, labels, Voting()) is not None
    few = replace(lists, queries=lists.queries[1:], found=lists.found.take(np.arange(1, 100)))
    assert calibrate(few, labels, Voting()) is None


def test_images_without_concepts() -> None:
    lists, _ = lists_of(LEAST_IMAGES)
    assert calibrate(lists, LabelTable.from_sets([[]] * LEAST_IMAGES), Voting()) is None
