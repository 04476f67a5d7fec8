"""Familiarity: by hand, by law, and where the nearest similarity alone is misleading."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from annotator.knn.cross_validation import NeighborLists, leave_one_group_out
from annotator.knn.familiarity import NEIGHBORS, OutlierFactor, share_below
from index import FlatIndex, Neighbors


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def made(n: int, seed: int = 0) -> tuple[NDArray[np.float32], NeighborLists]:
    vectors = unit(np.random.default_rng(seed).normal(size=(n, 6)))
    return vectors, leave_one_group_out(vectors, np.arange(n))


def test_the_factor_by_hand() -> None:
    vectors, lists = made(60)
    queries = unit(np.random.default_rng(1).normal(size=(5, 6)))
    found = OutlierFactor(lists, vectors.__getitem__)(FlatIndex(vectors).search(queries, 40))
    among = vectors.astype(np.float64) @ vectors.T
    np.fill_diagonal(among, -2)
    theirs = np.sqrt(2 - 2 * np.sort(among, axis=1)[:, -NEIGHBORS:]).mean(axis=1)
    for query, factor in zip(queries.astype(np.float64), found, strict=True):
        similarities = vectors @ query
        nearest = np.argsort(-similarities)[:NEIGHBORS]
        distance = np.sqrt(2 - 2 * similarities[nearest]).mean()
        assert factor == pytest.approx(distance / theirs[nearest].mean(), rel=1e-5)


def test_neighbours_that_are_none_do_not_count() -> None:
    vectors, lists = made(60)
    factor = OutlierFactor(lists, vectors.__getitem__)
    found = FlatIndex(vectors).search(vectors[:3], 30)
    some = np.zeros(found.rows.shape, bool)
    some[:, 7:] = True
    fewer = Neighbors(found.rows[:, :7], found.similarities[:, :7])
    assert factor(found.without(some, 30)) == pytest.approx(factor(fewer))
    none = factor(found.without(np.ones_like(some), 30))
    assert (none == np.inf).all()
    assert share_below(none, np.array(factor.quantiles())).tolist() == [1, 1, 1]


def test_cases_without_a_list_take_after_the_nearest_that_have_one() -> None:
    vectors, lists = made(400)
    queries = unit(np.random.default_rng(2).normal(size=(50, 6)))
    found = FlatIndex(vectors).search(queries, 20)
    whole = OutlierFactor(lists, vectors.__getitem__)(found)
    sampled = OutlierFactor(lists.take(np.arange(0, 400, 3)), vectors.__getitem__)
    assert np.corrcoef(whole, sampled(found))[0, 1] > 0.9
    alone = sampled(found.take([7]))  # whatever else is asked
    assert alone.tolist() == sampled(found)[7:8].tolist()


def test_a_stranger_beside_dense_cases() -> None:
    """He is nearer to them than most images are to theirs, and yet the least familiar."""
    rng = np.random.default_rng(0)
    centres = np.eye(12)[:2]
    dense = centres[0] + rng.normal(0, 0.02, (100, 12))
    sparse = centres[1] + rng.normal(0, 0.3, (100, 12))
    vectors = unit(np.concatenate([dense, sparse]))
    lists = leave_one_group_out(vectors, np.arange(len(vectors)))
    factor = OutlierFactor(lists, vectors.__getitem__)
    offset = np.zeros(12)
    offset[5] = 0.3
    new = unit(np.stack([centres[0] + offset, centres[0], centres[1]]))
    found = FlatIndex(vectors).search(new, 20)
    stranger, *regular = 1 - share_below(factor(found), np.array(factor.quantiles()))
    assert stranger == 0 and min(regular) > 0.2
    nearest = lists.found.similarities[:, 0]
    assert (nearest < found.similarities[0, 0]).mean() > 0.4


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30), st.lists(st.floats(-1, 1), max_size=9))
def test_a_share_is_between_none_and_all(sample: list[float], values: list[float]) -> None:
    shares = share_below(np.sort(values), np.sort(sample))
    assert ((shares >= 0) & (shares <= 1)).all() and (np.diff(shares) >= 0).all()
