"""Weights of the neighbours, and the single votes that they cast."""

from __future__ import annotations

from collections import defaultdict
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.knn.decide import decide
from annotator.knn.posterior import Kernel, Posterior, cast, vote
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


@pytest.mark.parametrize("prior", [-0.1, float("nan"), float("inf")])
def test_a_prior_out_of_range_is_refused(prior: float) -> None:
    with pytest.raises(ValueError, match="prior at least 0"):
        vote(neighbors([[0.5]]), LABELS, k=1, beta=1.0, prior=prior)


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown kernel 'gauss'; one of exponential, inverse"):
        vote(neighbors([[0.5]]), LABELS, k=1, beta=1.0, kernel="gauss")  # type: ignore[arg-type]


# Kernels


def naive_weight(kernel: Kernel, similarity: float, rank: int, k: int, beta: float) -> float:
    """Straight from the definition; it overflows where `vote` must not."""
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
    posterior = vote(neighbors(ordered), LABELS, k=k, beta=beta, kernel=kernel)
    for row, weights in zip(np.array(ordered, np.float32).tolist(), posterior.weights, strict=True):
        naive = np.array([naive_weight(kernel, s, r, k, beta) for r, s in enumerate(row[:k])])
        assert weights == pytest.approx(naive / naive.sum(), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("kernel", get_args(Kernel))
def test_no_sharpness_overflows(kernel: Kernel) -> None:
    for prior in (0.0, 0.5):
        for row in ([1.0, 0.5, -1.0], [-0.5, -0.9, -1.0], [1.0000001, 1.0, 1.0]):
            posterior = vote(
                neighbors([row]), LABELS, k=3, beta=1e6, kernel=kernel, prior=prior, typical=0.3
            )
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
    posterior = vote(
        neighbors(ordered), LABELS, k=k, beta=beta, kernel=kernel, prior=prior, typical=typical
    )
    alone = vote(neighbors(ordered), LABELS, k=k, beta=beta, kernel=kernel)
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
    posterior = vote(neighbors([[0.5, 0.4]]), MANY, k=2, beta=1.0, prior=1.0)
    sample = posterior.rows[0, 2:]
    assert len(np.unique(sample)) == len(sample) == 64
    assert (sample[0], sample[-1]) == (0, 999)
    gaps = np.diff(sample)
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("kernel", get_args(Kernel))
def test_a_prior_of_zero_changes_nothing(kernel: Kernel) -> None:
    found = neighbors([[0.9, 0.7, 0.1]])
    plain = vote(found, LABELS, k=3, beta=4.0, kernel=kernel)
    zero = vote(found, LABELS, k=3, beta=4.0, kernel=kernel, prior=0.0, typical=0.2)
    assert np.array_equal(plain.rows, zero.rows) and np.array_equal(plain.weights, zero.weights)


@pytest.mark.parametrize("kernel", ["exponential", "inverse"])
def test_an_image_far_from_everything_gets_the_answer_of_the_prior(kernel: Kernel) -> None:
    """Rows 0 and 1 hold what is rare in the index; almost everything else holds C0."""
    labels = LabelTable.from_sets([["RARE"], ["RARE"], *([["C0"]] * 200)])
    found = neighbors([[0.9, 0.88], [-0.7, -0.71]])
    beta = 20.0 if kernel == "exponential" else 8.0
    near, far = decide(vote(found, labels, k=2, beta=beta, kernel=kernel, prior=0.1, typical=0.9))
    assert (near.cuis, far.cuis) == (("RARE",), ("C0",))
    without = decide(vote(found, labels, k=2, beta=beta, kernel=kernel))
    assert [decision.cuis for decision in without] == [("RARE",), ("RARE",)]


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
