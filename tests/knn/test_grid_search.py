"""The choice is the simplest that is not proven worse, and what is tried earns its F1."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from annotator.evaluation.measures import predicted_interval, standard_error
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
    f1_of_lists,
    quick_scores,
    simplest,
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
    by_kernel = {tried["kernel"]: tried for tried in kernels}
    priors = [tried for tried in rest[: len(PRIORS)] if tried["prior"] in (0.03, 1.0)]
    thresholds = [tried for tried in rest if tried.get("threshold") in (0.2, 0.5)]
    for tried in (*by_kernel.values(), kernels[-1], *priors, *thresholds, rest[-1]):
        voting = voting_of(dict(tried), tuned.voting.typical)
        assert tried["f1"] == pytest.approx(naive_f1(twins, ranked, voting), abs=2e-3), tried
    assert tuned.f1 == pytest.approx(naive_f1(twins, ranked, tuned.voting), abs=2e-3)


def test_everything_is_tried_once_from_simple_to_complex(tuned: Tuned) -> None:
    assert len(tuned.grid) == KERNELS + len(PRIORS) + DECIDERS
    kernels = [(g["k"], g["kernel"], g["beta"]) for g in tuned.grid[:KERNELS]]
    assert len(set(kernels)) == KERNELS
    assert {k for k, _, _ in kernels} == set(KS)
    assert kernels[:3] == [
        (50, "exponential", 12.0), (50, "exponential", 16.0), (50, "exponential", 8.0)
    ]  # fmt: skip
    assert {kernel for _, kernel, _ in kernels[: len(KS) * len(BETAS)]} == {"exponential"}
    others = [(k, kernel) for k, kernel, _ in kernels[len(KS) * len(BETAS) :]]
    assert {kernel for _, kernel in others} == {"inverse", "rank", "uniform"}
    assert others[0][0] == 50 and others[-1][0] == 5
    rest = tuned.grid[KERNELS:]
    assert [g["prior"] for g in rest[: len(PRIORS)]] == list(PRIORS)
    deciders = [(g["decider"], g.get("threshold")) for g in rest[len(PRIORS) :]]
    assert deciders[0] == ("expected-f1", None) and deciders[-1] == ("top-r", None)
    thresholds = [threshold for _, threshold in deciders[1:-1]]
    assert thresholds[:3] == [0.35, 0.3, 0.4] and sorted(thresholds) == list(THRESHOLDS)


def test_each_step_keeps_the_simplest_that_is_not_proven_worse(
    lists: NeighborLists, twins: Any, tuned: Tuned
) -> None:
    start = 0
    for length, names, errors in (
        (KERNELS, ("k", "kernel", "beta"), 0),
        (len(PRIORS), ("prior",), 2),
        (DECIDERS, ("decider",), 2),
    ):
        step = tuned.grid[start : start + length]
        scores = [
            f1_of_lists(lists, twins.labels, voting_of(dict(tried), tuned.voting.typical))
            for tried in step
        ]
        best = max(scores, key=lambda own: float(own.mean()))
        wins = [
            tried
            for tried, own in zip(step, scores, strict=True)
            if (best - own).mean() <= errors * standard_error(best - own, twins.numbers)
        ]
        for tried in tuned.grid[start + length :]:
            assert all(tried[name] == wins[0][name] for name in names)
        assert all(getattr(tuned.voting, name) == wins[0][name] for name in names)
        start += length
    assert tuned.interval[0] < tuned.f1 < tuned.interval[1]
    assert tuned.f1 == pytest.approx(wins[0]["f1"], abs=1e-6)


def test_the_prediction_for_new_images_is_wider_than_the_interval(tuned: Tuned) -> None:
    expected = predicted_interval(tuned.f1, tuned.interval, tuned.images, tuned.predicted_images)
    assert tuned.predicted == expected
    assert tuned.predicted[0] < tuned.interval[0] and tuned.interval[1] < tuned.predicted[1]


# The simplest that is not proven worse

candidates = st.lists(
    st.lists(st.floats(0, 1), min_size=12, max_size=12), min_size=1, max_size=6
).map(lambda rows: [np.array(row) for row in rows])


@settings(max_examples=60, deadline=None)
@given(candidates, st.lists(st.integers(0, 4), min_size=12, max_size=12), st.integers(1, 3))
def test_the_simplest_is_the_first_within_the_errors(
    scores: list[Any], groups: list[int], errors: int
) -> None:
    numbers = np.array(groups)
    chosen = simplest(scores, numbers, errors)
    best = scores[int(np.argmax([own.mean() for own in scores]))]
    within = [
        float(np.mean(best - own)) <= errors * standard_error(best - own, numbers) for own in scores
    ]
    assert within[chosen] and not any(within[:chosen])
    assert simplest([scores[chosen], *scores], numbers, errors) == 0  # no harm in being first
    assert simplest(scores, numbers, errors + 1) <= chosen <= simplest(scores, numbers, 0)
    assert scores[simplest(scores, numbers, 0)].mean() == best.mean()
    assert simplest(scores, np.zeros(12, np.int64), errors) == 0  # one group proves nothing


def test_noise_is_not_bought_and_a_gain_is() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(400)
    noisy = [base, *(base + rng.normal(0, 0.01, 400) for _ in range(5))]
    assert simplest(noisy, None, 0) != 0 and simplest(noisy, None, 2) == 0
    assert simplest([base, base + 0.01 + rng.normal(0, 0.01, 400)], None, 2) == 1
    # The same gain on images of three patients is none.
    few = np.repeat([0.04, -0.02, 0.03], [134, 133, 133])
    assert simplest([base, base + few], None, 2) == 1
    assert simplest([base, base + few], np.repeat([0, 1, 2], [134, 133, 133]), 2) == 0


def test_the_interval_is_over_groups(lists: NeighborLists, twins: Any) -> None:
    vote = {"start": Voting(k=20), "fixed": ("k", "kernel", "beta", "prior", "decider")}
    tuned = choose_voting(lists, twins.labels, **vote)
    alone = choose_voting(replace(lists, groups=None), twins.labels, **vote)
    assert (alone.f1, alone.images) == (tuned.f1, tuned.images)
    assert (tuned.groups, alone.groups) == (120, 240)
    # Both images of a group are the same one, annotated alike.
    width, of_images = (high - low for low, high in (tuned.interval, alone.interval))
    assert width == pytest.approx(np.sqrt(2) * of_images, rel=0.1)


def test_of_equal_ones_the_simplest_is_chosen(lists: NeighborLists) -> None:
    labels = LabelTable.from_sets([["C1", "C2"]] * 240)
    tuned = choose_voting(lists, labels)
    typical = tuned.voting.typical
    assert tuned.voting == Voting(typical=typical, macro_thresholds=(0.5,) * 4)
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
@example({"k", "decider"})
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
    earned = [tried["f1"] for tried in tuned.grid] or [tuned.f1]
    assert min(abs(tuned.f1 - f1) for f1 in earned) < 1e-6


def test_a_fixed_kernel_has_its_own_sharpness_tuned(twins: Any, lists: NeighborLists) -> None:
    start = Voting(kernel="inverse")
    tuned = choose_voting(lists, twins.labels, start=start, fixed=["kernel", "decider"])
    betas = {g["beta"] for g in tuned.grid}
    assert betas == {o["beta"] for o in OTHER_KERNELS if o["kernel"] == "inverse"}
    assert {g["decider"] for g in tuned.grid} == {"expected-f1"}


# Comparing lists


def test_lists_are_compared_by_the_best_of_a_few(
    twins: Any, ranked: Neighbors, lists: NeighborLists
) -> None:
    naive = max(naive_f1(twins, ranked, voting) for voting in grid._TO_COMPARE_LISTS)
    assert {voting.kernel for voting in grid._TO_COMPARE_LISTS} > {"exponential"}
    assert quick_scores(lists, twins.labels)[1].mean() == pytest.approx(naive, abs=2e-3)


def test_heads_that_mislead_cost_nothing(lists: NeighborLists, twins: Any, tuned: Tuned) -> None:
    sets = [set(twins.labels.row(row)) for row in range(len(twins.labels))]
    pairs = zip(lists.queries.tolist(), lists.found.rows.tolist(), strict=True)
    right = [[not sets[query].isdisjoint(sets[row]) for row in rows] for query, rows in pairs]
    wrong = -100 * np.array(right, np.float32)
    misled = replace(lists, found=replace(lists.found, evidence=wrong))
    found = choose_voting(misled, twins.labels)
    assert found.f1 == tuned.f1
    assert replace(found.voting, head_weight=0.0) == tuned.voting
    assert (
        f1_of_lists(misled, twins.labels, replace(found.voting, head_weight=0.2)).mean() < found.f1
    )
    assert (
        quick_scores(misled, twins.labels)[1].mean() >= quick_scores(lists, twins.labels)[1].mean()
    )
