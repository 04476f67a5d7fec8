"""Neighbours of other groups, against a plain loop, and neighbours as cases."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.knn.neighbors import Case, cases_of, nearest_of_other_groups, nearest_others
from index import FlatIndex, Neighbors, StoredIndex
from index.rows import SearchResult

MakeIndex = Callable[..., StoredIndex]


@settings(deadline=None)
@given(
    numbers=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    k=st.integers(1, 8),
    seed=st.integers(0, 9),
)
def test_the_nearest_of_other_groups(numbers: list[int], k: int, seed: int) -> None:
    groups = np.array(numbers)
    vectors = np.random.default_rng(seed).normal(size=(len(groups), 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = nearest_of_other_groups(FlatIndex(vectors), groups, vectors, groups, k)
    assert found.rows.shape == found.similarities.shape == (len(groups), min(k, len(groups)))
    similarity = vectors.astype(np.float64) @ vectors.T
    for i, own in enumerate(numbers):
        others = [j for j in np.argsort(-similarity[i]) if numbers[j] != own][:k]
        finite = np.isfinite(found.similarities[i])
        assert np.all(finite[: len(others)]) and finite.sum() == len(others)
        assert all(numbers[row] != own for row in found.rows[i][finite])
        assert found.similarities[i][finite] == pytest.approx(similarity[i, others], abs=1e-6)


def test_a_group_may_be_too_large_to_look_past() -> None:
    vectors = np.tile(np.array([[1, 0]], np.float32), (9, 1))
    groups = np.array([0] * 7 + [1, 2])
    found = nearest_of_other_groups(
        FlatIndex(vectors), groups, vectors[[0, 8]], groups[[0, 8]], 2, 3
    )
    assert np.isneginf(found.similarities[0]).all() and np.isfinite(found.similarities[1]).all()


def test_the_nearest_others_of_an_index(make_index: MakeIndex) -> None:
    stored = make_index([0, 1, 2, 50, 51, 90], [["C1"]] * 6, ["a", "a", "b", "b", "", ""])
    vectors = stored.vectors(np.arange(6))

    def found(ids: list[str], groups: list[str], k: int) -> list[list[str]]:
        (block,) = nearest_others(stored.find, vectors, ids, groups, k)
        return [[case.image_id for case in cases] for cases in cases_of(block)]

    nobody = [""] * 6
    assert found(nobody, nobody, 2)[0] == ["i0", "i1"]
    assert found(list(stored.ids), nobody, 2)[0] == ["i1", "i2"]
    groups = list(stored.columns["groups"])
    of_others = found(list(stored.ids), groups, 2)
    assert of_others[0] == ["i2", "i3"] and of_others[4] == ["i3", "i5"]
    # A group of its own name "" is none.
    assert of_others[5] == ["i4", "i3"]
    assert [len(cases) for cases in found(list(stored.ids), groups, 9)] == [4, 4, 4, 4, 5, 5]


def test_a_search_looks_past_a_large_group(make_index: MakeIndex) -> None:
    n = 300
    groups = ["large"] * (n - 2) + ["", ""]
    stored = make_index(list(np.linspace(0, 90, n)), [["C1"]] * n, groups)
    asked: list[int] = []

    def find(vectors: np.ndarray, k: int) -> SearchResult:
        asked.append(k)
        return stored.find(vectors, k)

    vectors = stored.vectors(np.array([0]))
    (block,) = nearest_others(find, vectors, ["i0"], ["large"], 2)
    assert [c.image_id for c in cases_of(block)[0]] == ["i298", "i299"]
    assert asked == [22, 162, 1002]


def test_a_case_says_what_the_index_knows(make_index: MakeIndex) -> None:
    stored = make_index([0, 60], [["C2", "C1"], []])
    (cases,) = cases_of(stored.find(stored.vectors(np.array([0])), 2))
    assert cases[0] == Case("i0", pytest.approx(1), ("C1", "C2"), "Case 0.")
    assert cases[1] == Case("i1", pytest.approx(0.5), (), "Case 1.")


def test_what_is_no_neighbour_is_no_case(make_index: MakeIndex) -> None:
    stored = make_index([0, 60], [["C1"], []])
    neighbors = Neighbors(np.array([[1, 0]]), np.array([[0.5, -np.inf]], np.float32))
    (cases,) = cases_of(SearchResult(neighbors, stored))
    assert [case.image_id for case in cases] == ["i1"]
