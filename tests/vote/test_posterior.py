"""Weights of the neighbours, and the single votes that they cast."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.vote.posterior import Posterior, cast, vote
from index import LabelTable, Neighbors

LABELS = LabelTable.from_sets([["A", "B"], [], ["B"], ["C", "A", "D"], ["D"]])


def neighbors(similarities: list[list[float]]) -> Neighbors:
    """Each image's neighbours are rows 0, 1, 2, ..."""
    array = np.array(similarities, np.float32)
    return Neighbors(np.tile(np.arange(array.shape[1]), (len(array), 1)), array)


similarity_rows = st.lists(
    st.lists(st.floats(-1, 1, width=32), min_size=5, max_size=5), min_size=1, max_size=4
)


@given(similarity_rows, st.integers(1, 9), st.floats(0, 1000))
def test_weights_sum_to_one_and_follow_similarity(
    rows: list[list[float]], k: int, beta: float
) -> None:
    descending = [sorted(row, reverse=True) for row in rows]
    posterior = vote(neighbors(descending), LABELS, k=k, beta=beta)
    assert posterior.rows.shape == posterior.weights.shape == (len(rows), min(k, 5))
    assert posterior.weights.sum(axis=1) == pytest.approx(1)
    assert np.all(posterior.weights >= 0)
    assert np.all(np.diff(posterior.weights, axis=1) <= 0)


@given(similarity_rows)
def test_beta_zero_weighs_all_alike(rows: list[list[float]]) -> None:
    weights = vote(neighbors(rows), LABELS, k=5, beta=0).weights
    assert np.array_equal(weights, np.full((len(rows), 5), 0.2))


def test_a_large_beta_is_the_nearest_neighbour_alone() -> None:
    weights = vote(neighbors([[0.9, 0.8, 0.1]]), LABELS, k=3, beta=1e6).weights
    assert np.array_equal(weights, [[1, 0, 0]])


def test_the_kernel_is_the_exponential_of_the_similarity() -> None:
    weights = vote(neighbors([[0.9, 0.7]]), LABELS, k=2, beta=10).weights
    assert weights[0, 0] / weights[0, 1] == pytest.approx(np.exp(10 * 0.2), rel=1e-6)


@pytest.mark.parametrize(
    ("k", "beta"), [(0, 1.0), (-1, 1.0), (1, -0.1), (1, float("nan")), (1, float("inf"))]
)
def test_parameters_out_of_range_are_refused(k: int, beta: float) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        vote(neighbors([[0.5]]), LABELS, k=k, beta=beta)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_votes_are_those_of_a_plain_loop(data: st.DataObject) -> None:
    label_set = st.lists(st.sampled_from("ABCDEF"), max_size=4, unique=True)
    sets = data.draw(st.lists(label_set, min_size=1, max_size=6))
    q, k = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 5))
    rows = st.lists(st.integers(0, len(sets) - 1), min_size=k, max_size=k)
    array = np.array([data.draw(rows) for _ in range(q)], np.int64).reshape(q, k)
    weights = np.random.default_rng(data.draw(st.integers(0, 99))).random((q, k))
    weights /= weights.sum(axis=1, keepdims=True) if k else 1
    posterior = Posterior(array, weights, LabelTable.from_sets(sets))

    cuis = posterior.labels.cuis
    shares: dict[tuple[int, str], float] = defaultdict(float)
    by_size: dict[tuple[int, str, int], float] = defaultdict(float)
    empty = [0.0 if k else 1.0] * q
    for i in range(q):
        for row, weight in zip(array[i], weights[i], strict=True):
            for cui in sets[row]:
                shares[i, cui] += weight
                by_size[i, cui, len(sets[row])] += weight
            empty[i] += 0.0 if sets[row] else weight

    votes = cast(posterior)
    candidates = [
        (int(i), cuis[j]) for i, j in zip(votes.candidate_image, votes.candidate_cui, strict=True)
    ]
    assert candidates == sorted(shares)
    assert votes.scores == pytest.approx([shares[c] for c in candidates])
    assert votes.scores.dtype == np.float64
    assert votes.empty == pytest.approx(empty)
    found: dict[tuple[int, str, int], float] = defaultdict(float)
    for candidate, size, weight in zip(
        votes.vote_candidate, votes.vote_size, votes.vote_weight, strict=True
    ):
        found[(*candidates[candidate], int(size))] += weight
    assert found == pytest.approx(by_size)
