"""The search of the best set, against a plain one that looks at every size and candidate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from annotator.knn.expected_f1 import best_sets
from annotator.knn.posterior import Ballots, Votes, count_votes, weigh
from annotator.knn.voting import Voting
from index import LabelTable, Neighbors


def plain_best_set(votes: Votes, image: int, most: int | None) -> tuple[int, dict[int, float]]:
    """Size of the best set, and Δ[j, size] of each candidate of one image."""
    own = np.flatnonzero(votes.candidate_image == image).tolist()
    cast = [
        [
            (weight, size)
            for candidate, weight, size in zip(
                votes.vote_candidate.tolist(),
                votes.vote_weight.tolist(),
                votes.vote_size.tolist(),
                strict=True,
            )
            if candidate == j
        ]
        for j in own
    ]

    def delta(m: int) -> list[float]:
        return [sum(w * 2 / (s + m) for w, s in some) for some in cast]

    best, found = 0.0, 0
    for m in range(1, min(len(own), most or len(own)) + 1):
        largest = sorted((round(value, 12) for value in delta(m)), reverse=True)[:m]
        earned = round(sum(largest), 12)
        if earned > best:
            best, found = earned, m
    if best < round(float(votes.empty[image]), 12):
        found = 0
    return found, dict(zip(own, delta(found), strict=True))


def check(votes: Votes, most: int | None = None) -> None:
    size, values = best_sets(votes, most)
    for image in range(len(votes.empty)):
        wanted, delta = plain_best_set(votes, image, most)
        assert size[image] == wanted
        if not wanted:
            continue
        ranked = sorted((round(value, 12) for value in delta.values()), reverse=True)
        for j, value in delta.items():
            if round(value, 12) >= ranked[wanted - 1]:
                assert values[j] == pytest.approx(value, abs=1e-12)
            else:
                assert values[j] < ranked[wanted - 1]


def drawn_votes(
    rng: np.random.Generator, *, images: int, k: int, vocabulary: int, mean: float, prior: int = 0
) -> Votes:
    """Votes of neighbours whose concepts are drawn by Zipf's law, the nearer ones weighing more."""
    chances = 1 / np.arange(1, vocabulary + 1)
    sets = [
        rng.choice(vocabulary, min(rng.poisson(mean), vocabulary), False, chances / chances.sum())
        for _ in range(4 * k)
    ]
    labels = LabelTable.from_sets([[f"C{j:05d}" for j in row.tolist()] for row in sets])
    rows = rng.integers(0, len(labels), (images, k + prior))
    weights = rng.random((images, k + prior)) ** rng.integers(0, 6)
    weights[:, k:] *= 0.05
    weights[rng.random(weights.shape) < 0.05] = 0.0
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
    return Ballots.of(rows, labels).cast(weights)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.sampled_from([1, 3, 12, 40]),
    vocabulary=st.sampled_from([3, 30, 400]),
    mean=st.sampled_from([0.5, 2.0, 9.0]),
    prior=st.sampled_from([0, 30]),
    most=st.sampled_from([None, 1, 4, 100]),
)
def test_the_best_set_of_all_sizes_is_found(
    seed: int, k: int, vocabulary: int, mean: float, prior: int, most: int | None
) -> None:
    rng = np.random.default_rng(seed)
    votes = drawn_votes(rng, images=4, k=k, vocabulary=vocabulary, mean=mean, prior=prior)
    check(votes, most)


@settings(max_examples=60, deadline=None)
@given(
    sets=st.lists(st.sets(st.integers(0, 30), max_size=12), min_size=1, max_size=8),
    data=st.data(),
)
def test_ties_go_to_the_smaller_set(sets: list[set[int]], data: st.DataObject) -> None:
    """Weights of a few values, among which many sums are equal."""
    labels = LabelTable.from_sets([[f"C{j:02d}" for j in row] for row in sets])
    row = st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=len(sets), max_size=len(sets))
    weights = np.array(data.draw(st.lists(row, min_size=1, max_size=3)))
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
    rows = np.tile(np.arange(len(sets)), (len(weights), 1))
    check(Ballots.of(rows, labels).cast(weights))


def test_large_and_small_sets_beside_each_other() -> None:
    """Images whose best sets have one concept and a hundred, in one call."""
    sets = [[f"A{i:03d}" for i in range(150)], ["B"], ["B", "C"], [f"D{i}" for i in range(9)]]
    labels = LabelTable.from_sets(sets)
    weights = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0.0]])
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1)
    votes = Ballots.of(np.tile(np.arange(4), (5, 1)), labels).cast(weights)
    for most in (None, 100, 2):
        check(votes, most)
    assert best_sets(votes, 100)[0].tolist()[:2] == [100, 1]


# Ballots


@settings(max_examples=60, deadline=None)
@given(
    sets=st.lists(st.sets(st.sampled_from("ABCDEFG"), max_size=5), min_size=1, max_size=6),
    data=st.data(),
)
def test_ballots_are_the_votes_one_by_one(sets: list[set[str]], data: st.DataObject) -> None:
    labels = LabelTable.from_sets(sets)
    k = data.draw(st.integers(0, 5))
    row = st.lists(st.integers(0, len(sets) - 1), min_size=k, max_size=k)
    rows = np.array(data.draw(st.lists(row, min_size=1, max_size=4)), np.int64)
    weights = np.arange(1.0, rows.size + 1).reshape(rows.shape)
    votes = Ballots.of(rows, labels).cast(weights)
    pairs = sorted(
        {
            (i, int(j))
            for i, own in enumerate(rows)
            for row_ in own
            for j in labels.indices[labels.indptr[row_] : labels.indptr[row_ + 1]]
        }
    )
    found = zip(votes.candidate_image.tolist(), votes.candidate_cui.tolist(), strict=True)
    assert list(found) == pairs
    cast: list[Any] = [
        (pairs.index((i, int(j))), labels.sizes[row_], weights[i, n])
        for i, own in enumerate(rows)
        for n, row_ in enumerate(own)
        for j in labels.indices[labels.indptr[row_] : labels.indptr[row_ + 1]]
    ]
    mine = zip(votes.vote_candidate, votes.vote_size, votes.vote_weight, strict=True)
    assert list(mine) == cast
    blank = [
        sum(w for row_, w in zip(own, weights[i], strict=True) if not sets[row_])
        for i, own in enumerate(rows)
    ]
    assert votes.empty == pytest.approx([b + (not k) for b in blank])


def test_the_same_ballots_serve_every_kernel(twins: Any) -> None:
    def similar(n: int) -> NDArray[np.float32]:
        return -np.sort(-np.random.default_rng(n).random((6, 9)), axis=1).astype(np.float32)

    rows = np.arange(54).reshape(6, 9)
    ballots = Ballots.of(rows, twins.labels)
    for n, voting in enumerate([Voting(k=9), Voting(k=9, kernel="rank", beta=1.0)]):
        posterior = weigh(Neighbors(rows, similar(n)), twins.labels, voting)
        one, other = ballots.cast(posterior.weights), count_votes(posterior)
        assert np.array_equal(one.scores, other.scores)
        assert np.array_equal(one.empty, other.empty)
