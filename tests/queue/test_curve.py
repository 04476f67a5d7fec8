"""The curve of what is left, against brute force, and on patients that are drawn like others."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotator.evaluation.official_f1 import image_score
from annotator.knn.calibration import Curve
from annotator.knn.cross_validation import leave_one_group_out
from annotator.knn.decision import choose_concepts
from annotator.knn.guarantees import posterior_of_others
from annotator.knn.voting import Voting
from annotator.queue.curve import Lost
from index import StoredIndex, open_index
from index.folder.writer import VersionWriter

VOTING = Voting(k=10)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredIndex:
    rng = np.random.default_rng(0)
    of = rng.integers(0, 4, 90)
    vectors = rng.normal(size=(4, 8))[of] + rng.normal(size=(90, 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    groups = np.arange(90) // 2
    lists = leave_one_group_out(vectors, groups)
    directory = tmp_path_factory.mktemp("curve") / "index"
    with VersionWriter(directory) as writer:
        writer.add(vectors)
        writer.publish(
            [f"image-{i}" for i in range(90)],
            [[f"C{k}", "C9"] for k in of],
            names={},
            columns={},
            about={},
            arrays=lists.to_arrays(),
        )
    return open_index(directory)


@pytest.mark.parametrize("calibration", [None, Curve((0.2, 0.8), (0.4, 0.6))])
def test_what_is_lost_is_that_of_brute_force(
    stored: StoredIndex, calibration: Curve | None
) -> None:
    lost = Lost.of(stored, VOTING, calibration)
    assert lost is not None and lost.groups == 45
    from annotator.knn.cross_validation import stored_lists

    lists = stored_lists(stored)
    assert lists is not None
    decisions = choose_concepts(posterior_of_others(lists, stored.labels, VOTING), VOTING)
    expected = np.array([decision.expected_f1 for decision in decisions])
    expected = expected if calibration is None else calibration(expected)
    losses = [
        1 - image_score(set(stored.labels.row(i)), decision.cuis)
        for i, decision in enumerate(decisions)
    ]
    for threshold in (0.0, 0.3, float(np.median(expected)), 1.1):
        # Two images of each patient.
        left = [loss for loss, e in zip(losses, expected, strict=True) if e >= threshold]
        risk = sum(left) / 90
        assert lost.at(threshold) == pytest.approx((45 * risk + 1) / 46)


def test_the_more_is_reviewed_the_better_is_the_whole(stored: StoredIndex) -> None:
    lost = Lost.of(stored, VOTING, None)
    assert lost is not None
    curve = lost.curve(np.random.default_rng(0).choice(lost.expected, 200))
    assert curve[0].reviewed == 0 and curve[0].rest == pytest.approx(curve[0].whole)
    for a, b in pairwise(curve):
        assert a.reviewed < b.reviewed and a.below < b.below
        assert a.whole <= b.whole and a.expected <= b.expected
    assert all(0 <= left.rest <= left.whole <= 1 for left in curve)


def test_equal_ones_are_left_together() -> None:
    lost = Lost(np.array([0.5]), np.array([0.2]), 9)
    (left,) = lost.curve(np.full(10, 0.5))
    assert (left.reviewed, left.below, left.expected) == (0, 0.5, 0.5)
    assert left.rest == left.whole == pytest.approx(1 - (9 * 0.2 + 1) / 10)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1000))
def test_the_bound_holds_on_average(seed: int) -> None:
    """Over all ways to hold one patient out of some, exactly: the law of the bound."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 12))
    expected, losses = rng.integers(0, 5, n) / 4, rng.random(n)
    for threshold in np.unique(expected):
        bounds, came_out = [], []
        for held in range(n):
            others = np.arange(n) != held
            order = np.argsort(expected[others], kind="stable")
            tail = (losses[others][order] / (n - 1))[::-1].cumsum()[::-1]
            bounds.append(Lost(expected[others][order], tail, n - 1).at(threshold))
            came_out.append(losses[held] * (expected[held] >= threshold))
        assert np.mean(came_out) <= np.mean(bounds) + 1e-12


def test_an_index_without_lists_says_nothing(tmp_path: Path, stored: StoredIndex) -> None:
    with VersionWriter(tmp_path / "plain") as writer:
        writer.add(np.eye(3, dtype=np.float32))
        writer.publish(["a", "b", "c"], [["C1"]] * 3, names={}, columns={}, about={})
    assert Lost.of(open_index(tmp_path / "plain"), VOTING, None) is None
    assert Lost.of(stored, Voting(k=101), None) is None
