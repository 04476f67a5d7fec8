"""Weights of the neighbours, and the single votes that they cast."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.knn.decision import choose_concepts
from annotator.knn.posterior import Posterior, count_votes, weigh
from annotator.knn.voting import Kernel, Voting
from index import LabelTable, Neighbors

LABELS = LabelTable.from_sets([["A", "B"], [], ["B"], ["C", "A", "D"], ["D"]])


def neighbors(similarities: list[list[float]]) -> Neighbors:
    """Each image's neighbours are rows 0, 1, 2, ..."""
    array = np.array(similarities, np.float32)
    return Neighbors(np.tile(np.arange(array.shape[1]), (len(array), 1)), array)


similarity_rows = st.lists(
    st.lists(st.floats(-1, 1, width=32), min_size=5, max_size=5), min_size=1, max_size=4
)


def weighed(rows: list[list[float]], labels: LabelTable = LABELS, **parameters: Any) -> Posterior:
    return weigh(neighbors(rows), labels, Voting(**parameters))


@given(similarity_rows, st.integers(1, 9), st.floats(0, 1000))
def test_weights_sum_to_one_and_follow_similarity(
    rows: list[list[float]], k: int, beta: float
) -> None:
    descending = [sorted(row, reverse=True) for row in rows]
    posterior = weighed(descending, k=k, beta=beta)
    assert posterior.rows.shape == posterior.weights.shape == (len(rows), min(k, 5))
    assert posterior.weights.sum(axis=1) == pytest.approx(1)
    assert np.all(posterior.weights >= 0)
    assert np.all(np.diff(posterior.weights, axis=1) <= 0)


# Kernels


def naive_weight(kernel: Kernel, similarity: float, rank: int, k: int, beta: float) -> float:
    """Straight from the definition; it overflows where `weigh` must not."""
    if similarity == -np.inf:
        return 0.0
    distance = max(np.sqrt(max(2 - 2 * similarity, 0)), 1e-3)
    weights = {
        "exponential": np.exp(beta * similarity),
        "inverse": distance**-beta,
        "rank": (1 - rank / k) ** beta,
        "uniform": 1.0,
    }
    return float(weights[kernel])


@pytest.mark.parametrize("kernel", get_args(Kernel))
@settings(deadline=None)
@given(rows=similarity_rows, k=st.integers(1, 9), beta=st.floats(0, 20), missing=st.integers(0, 4))
def test_each_kernel_is_what_it_says(
    kernel: Kernel, rows: list[list[float]], k: int, beta: float, missing: int
) -> None:
    ordered = [sorted(row, reverse=True)[: 5 - missing] + [-np.inf] * missing for row in rows]
    posterior = weighed(ordered, k=k, beta=beta, kernel=kernel)
    for row, weights in zip(np.array(ordered, np.float32).tolist(), posterior.weights, strict=True):
        naive = np.array([naive_weight(kernel, s, r, k, beta) for r, s in enumerate(row[:k])])
        assert weights == pytest.approx(naive / naive.sum(), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("kernel", get_args(Kernel))
def test_no_sharpness_overflows(kernel: Kernel) -> None:
    for prior in (0.0, 0.5):
        for row in ([1.0, 0.5, -1.0], [-0.5, -0.9, -1.0], [1.0000001, 1.0, 1.0]):
            posterior = weighed([row], k=3, beta=1e6, kernel=kernel, prior=prior, typical=0.3)
            assert np.all(np.isfinite(posterior.weights) & (posterior.weights >= 0))
            assert posterior.weights.sum() == pytest.approx(1)


# The prior

MANY = LabelTable.from_sets([[f"C{i % 7}"] for i in range(1000)])


@pytest.mark.parametrize("kernel", get_args(Kernel))
@settings(deadline=None)
@given(
    rows=similarity_rows,
    k=st.integers(1, 9),
    beta=st.floats(0, 20),
    prior=st.floats(1e-3, 10),
    typical=st.floats(-1, 1),
)
def test_the_prior_has_its_share(
    kernel: Kernel, rows: list[list[float]], k: int, beta: float, prior: float, typical: float
) -> None:
    """prior / (prior + W), with W in units of a neighbour as similar as `typical`."""
    ordered = [sorted(row, reverse=True) for row in rows]
    posterior = weighed(ordered, k=k, beta=beta, kernel=kernel, prior=prior, typical=typical)
    alone = weighed(ordered, k=k, beta=beta, kernel=kernel)
    used = min(k, 5)
    assert posterior.rows.shape == posterior.weights.shape == (len(rows), used + len(LABELS))
    assert posterior.weights.sum(axis=1) == pytest.approx(1)
    unit = naive_weight(kernel, typical, 0, k, beta)
    for i, row in enumerate(np.array(ordered, np.float32).tolist()):
        naive = [naive_weight(kernel, s, r, k, beta) for r, s in enumerate(row[:k])]
        share = prior / (prior + sum(naive) / unit)
        assert posterior.weights[i, used:] == pytest.approx(share / len(LABELS), rel=1e-6)
        assert posterior.weights[i, :used] == pytest.approx((1 - share) * alone.weights[i])


def test_the_prior_is_an_even_sample_of_the_index() -> None:
    posterior = weighed([[0.5, 0.4]], MANY, k=2, beta=1.0, prior=1.0)
    sample = posterior.rows[0, 2:]
    assert len(np.unique(sample)) == len(sample) == 64
    assert (sample[0], sample[-1]) == (0, 999)
    gaps = np.diff(sample)
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("kernel", ["exponential", "inverse"])
def test_an_image_far_from_everything_gets_the_answer_of_the_prior(kernel: Kernel) -> None:
    """Rows 0 and 1 hold what is rare in the index; almost everything else holds C0."""
    labels = LabelTable.from_sets([["RARE"], ["RARE"], *([["C0"]] * 200)])
    rows = [[0.9, 0.88], [-0.7, -0.71]]
    voting = Voting(k=2, beta=20.0 if kernel == "exponential" else 8.0, kernel=kernel, typical=0.9)
    for prior, far in ((0.0, "RARE"), (0.1, "C0")):
        posterior = weigh(neighbors(rows), labels, replace(voting, prior=prior))
        chosen = [decision.cuis for decision in choose_concepts(posterior, voting)]
        assert chosen == [("RARE",), (far,)]


# Votes

label_sets = st.lists(st.sampled_from("ABCDEF"), max_size=4, unique=True)


@st.composite
def posteriors(draw: st.DrawFn) -> Posterior:
    sets = draw(st.lists(label_sets, min_size=1, max_size=6))
    q, k = draw(st.integers(1, 4)), draw(st.integers(0, 5))
    rows = st.lists(st.integers(0, len(sets) - 1), min_size=k, max_size=k)
    array = np.array([draw(rows) for _ in range(q)], np.int64).reshape(q, k)
    weights = np.random.default_rng(draw(st.integers(0, 99))).random((q, k))
    weights /= weights.sum(axis=1, keepdims=True) if k else 1
    return Posterior(array, weights, LabelTable.from_sets(sets))


@settings(max_examples=200, deadline=None)
@given(posteriors())
def test_votes_are_those_of_a_plain_loop(posterior: Posterior) -> None:
    array, weights, (q, k) = posterior.rows, posterior.weights, posterior.rows.shape
    sets = [posterior.labels.row(row) for row in range(len(posterior.labels))]
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

    votes = count_votes(posterior)
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


@settings(max_examples=100, deadline=None)
@given(posteriors(), st.data())
def test_the_expected_f1_of_a_given_set(posterior: Posterior, data: st.DataObject) -> None:
    """Of a set that may hold concepts that no neighbour has."""
    given_sets = [set(data.draw(label_sets)) for _ in range(len(posterior))]
    votes = count_votes(posterior)
    chosen = np.array(
        [
            posterior.labels.cuis[cui] in given_sets[image]
            for image, cui in zip(votes.candidate_image, votes.candidate_cui, strict=True)
        ],
        bool,
    )
    found = votes.expected_f1(chosen, np.array([len(given_set) for given_set in given_sets]))
    for i, given_set in enumerate(given_sets):
        expected = 0.0 if posterior.rows.shape[1] else float(not given_set)
        for row, weight in zip(posterior.rows[i], posterior.weights[i], strict=True):
            truth = set(posterior.labels.row(row))
            both = len(truth) + len(given_set)
            expected += weight * (2 * len(truth & given_set) / both if both else 1.0)
        assert found[i] == pytest.approx(expected)
