"""The choice is the best of what was tried, and what was tried earns what a plain search says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from annotator.evaluation.official_f1 import image_f1
from annotator.knn import grid_search as grid
from annotator.knn.cross_validation import NeighborLists, leave_one_group_out
from annotator.knn.decision import choose_concepts
from annotator.knn.grid_search import (
    BETAS,
    KS,
    OTHER_KERNELS,
    PRIORS,
    THRESHOLDS,
    Tuned,
    choose_voting,
    quick_f1,
)
from annotator.knn.posterior import weigh
from annotator.knn.voting import Voting
from index import LabelTable, Neighbors

T = TypeVar("T")
KERNELS = len(KS) * (len(BETAS) + len(OTHER_KERNELS))
DECIDERS = len(THRESHOLDS) + 2


@pytest.fixture(scope="module")
def lists(twins: Any) -> NeighborLists:
    return leave_one_group_out(twins.vectors, twins.numbers)


@pytest.fixture(scope="module")
def tuned(lists: NeighborLists, twins: Any) -> Tuned:
    return choose_voting(lists, twins.labels)


@pytest.fixture(scope="module")
def ranked(twins: Any) -> Neighbors:
    """The rows of other groups, sorted by similarity, for each image."""
    similarity = twins.vectors.astype(np.float64) @ twins.vectors.T.astype(np.float64)
    rows = [
        sorted(
            (j for j, group in enumerate(twins.groups) if group != own),
            key=lambda j: (-np.float32(similarity[i, j]), j),
        )
        for i, own in enumerate(twins.groups)
    ]
    return Neighbors(
        np.array(rows), np.take_along_axis(similarity, np.array(rows), 1).astype(np.float32)
    )


def naive_f1(sample: Any, ranked: Neighbors, voting: Voting) -> float:
    """Image by image: let the first ones vote, score."""
    scores = []
    for i, truth in enumerate(sample.concepts):
        posterior = weigh(ranked.take([i]), sample.labels, voting)
        (decision,) = choose_concepts(posterior, voting)
        scores.append(image_f1(truth, decision.cuis))
    return float(np.mean(scores))


def voting_of(tried: dict[str, Any], typical: float) -> Voting:
    return Voting(**{name: value for name, value in tried.items() if name != "f1"}, typical=typical)


def test_what_was_tried_earns_what_a_naive_search_says(
    twins: Any, ranked: Neighbors, tuned: Tuned
) -> None:
    kernels, rest = tuned.grid[:KERNELS], tuned.grid[KERNELS:]
    by_kernel = {tried["kernel"]: tried for tried in kernels[3:20]}
    priors = [tried for tried in rest[: len(PRIORS)] if tried["prior"] in (0.03, 1.0)]
    thresholds = [tried for tried in rest if tried.get("threshold") in (0.2, 0.5)]
    for tried in (*by_kernel.values(), kernels[-1], *priors, *thresholds, rest[-1]):
        voting = voting_of(dict(tried), tuned.voting.typical)
        assert tried["f1"] == pytest.approx(naive_f1(twins, ranked, voting), abs=2e-3), tried
    assert tuned.f1 == pytest.approx(naive_f1(twins, ranked, tuned.voting), abs=2e-3)


def test_everything_is_tried_once(tuned: Tuned) -> None:
    assert len(tuned.grid) == KERNELS + len(PRIORS) + DECIDERS
    kernels = [(g["k"], g["kernel"], g["beta"]) for g in tuned.grid[:KERNELS]]
    assert len(set(kernels)) == KERNELS
    assert {k for k, _, _ in kernels} == set(KS)
    assert {kernel for _, kernel, _ in kernels} == {"exponential", "inverse", "rank", "uniform"}
    rest = tuned.grid[KERNELS:]
    assert [g["prior"] for g in rest[: len(PRIORS)]] == list(PRIORS)
    deciders = [(g["decider"], g.get("threshold")) for g in rest[len(PRIORS) :]]
    assert deciders == [
        ("expected-f1", None), *(("threshold", t) for t in THRESHOLDS), ("top-r", None)
    ]  # fmt: skip


def test_each_step_keeps_the_best_of_the_one_before(tuned: Tuned) -> None:
    start = 0
    for length, names in (
        (KERNELS, ("k", "kernel", "beta")),
        (len(PRIORS), ("prior",)),
        (DECIDERS, ("decider",)),
    ):
        step = tuned.grid[start : start + length]
        best = max(step, key=lambda tried: tried["f1"])  # the first of equal ones
        for tried in tuned.grid[start + length :]:
            assert all(tried[name] == best[name] for name in names)
        assert all(getattr(tuned.voting, name) == best[name] for name in names)
        start += length
    assert tuned.f1 == pytest.approx(best["f1"], abs=1e-6)
    assert tuned.f1 == pytest.approx(max(tried["f1"] for tried in tuned.grid), abs=1e-6)
    assert tuned.interval[0] < tuned.f1 < tuned.interval[1]


def test_the_interval_is_over_groups(lists: NeighborLists, twins: Any, tuned: Tuned) -> None:
    alone = choose_voting(replace(lists, groups=None), twins.labels)
    assert (alone.f1, alone.images) == (tuned.f1, tuned.images)
    assert (tuned.groups, alone.groups) == (120, 240)
    # Both images of a group are the same one, annotated alike.
    width, of_images = (high - low for low, high in (tuned.interval, alone.interval))
    assert width == pytest.approx(np.sqrt(2) * of_images, rel=0.1)


def test_of_equal_ones_the_simplest_is_chosen(lists: NeighborLists) -> None:
    labels = LabelTable.from_sets([["C1", "C2"]] * 240)
    tuned = choose_voting(lists, labels)
    typical = tuned.voting.typical
    simplest = Voting(k=KS[0], beta=BETAS[0], typical=typical, macro_thresholds=(0.5,) * 4)
    assert tuned.voting == simplest
    assert (tuned.f1, tuned.interval) == (1.0, (1.0, 1.0))


def test_nothing_to_find_and_nothing_found_agree(lists: NeighborLists) -> None:
    assert choose_voting(lists, LabelTable.from_sets([[]] * 240)).f1 == 1.0
    half = LabelTable.from_sets([["C1"] if i % 120 < 12 else [] for i in range(240)])
    assert 0.85 < choose_voting(lists, half).f1 < 1


def test_similarities_of_nearest_neighbours(tuned: Tuned, lists: NeighborLists) -> None:
    nearest = np.array(tuned.nearest)
    assert len(nearest) == 101 and np.all(np.diff(nearest) >= 0)
    first = lists.found.similarities[:, 0]
    assert nearest[[0, -1]] == pytest.approx([first.min(), first.max()], abs=1e-6)
    assert tuned.voting.typical == pytest.approx(np.median(first), abs=1e-6)
    assert tuned.images == 240


def test_of_many_images_some_are_tried_and_all_are_scored(
    twins: Any,
    ranked: Neighbors,
    lists: NeighborLists,
    tuned: Tuned,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("annotator.knn.grid_search.GRID_IMAGES", 50)
    quick = choose_voting(lists, twins.labels)
    assert quick.images == 240 and quick.nearest == tuned.nearest
    assert quick.f1 == pytest.approx(naive_f1(twins, ranked, quick.voting), abs=2e-3)
    assert quick.grid != tuned.grid


# What is given stays

GIVEN = {
    "k": 7,
    "kernel": "rank",
    "beta": 3.0,
    "prior": 0.2,
    "decider": "threshold",
    "threshold": 0.37,
}


@settings(max_examples=25, deadline=None)
@given(st.sets(st.sampled_from(sorted(GIVEN))))
@example(set(GIVEN))  # nothing is tried
@example({"k", "decider"})  # the threshold that it starts from is better than all that are tried
def test_what_is_fixed_stays(twins: Any, lists: NeighborLists, fixed: set[str]) -> None:
    some = NeighborLists(
        lists.queries[::6], Neighbors(lists.found.rows[::6], lists.found.similarities[::6])
    )
    start = Voting(**GIVEN, min_score=0.05)  # type: ignore[arg-type]
    tuned = choose_voting(some, twins.labels, start=start, fixed=sorted(fixed))
    for name in fixed:
        assert getattr(tuned.voting, name) == GIVEN[name]
        assert all(tried[name] == GIVEN[name] for tried in tuned.grid if name in tried)
    assert tuned.voting.min_score == 0.05
    highest = max((tried["f1"] for tried in tuned.grid), default=tuned.f1)
    assert tuned.f1 == pytest.approx(highest, abs=1e-6)


def test_a_fixed_kernel_has_its_own_sharpness_tuned(twins: Any, lists: NeighborLists) -> None:
    start = Voting(kernel="inverse")
    tuned = choose_voting(lists, twins.labels, start=start, fixed=["kernel", "decider"])
    betas = {g["beta"] for g in tuned.grid}
    assert betas == {o["beta"] for o in OTHER_KERNELS if o["kernel"] == "inverse"}
    assert {g["decider"] for g in tuned.grid} == {"expected-f1"}


# Comparing lists


def test_quick_f1_is_the_best_of_a_few(twins: Any, ranked: Neighbors, lists: NeighborLists) -> None:
    pairs = grid._PAIRS_FOR_PROJECTIONS
    naive = max(naive_f1(twins, ranked, Voting(k=k, beta=beta)) for k, beta in pairs)
    assert quick_f1(lists, twins.labels) == pytest.approx(naive, abs=2e-3)
