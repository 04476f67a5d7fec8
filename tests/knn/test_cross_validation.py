"""Neighbour lists without the own group, and through projections that know no own concept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from annotator.errors import AnnotatorError
from annotator.evaluation.measures import group_numbers
from annotator.knn.cross_validation import (
    ARRAYS,
    FOLDS,
    MOST_NEIGHBORS,
    NeighborLists,
    cross_fitted,
    group_folds,
    leave_one_group_out,
    rows_for_tuning,
)
from annotator.knn.fit import Fitter
from annotator.knn.grid_search import quick_scores
from index import Neighbors

# Groups and folds


@given(
    groups=st.lists(st.integers(0, 30), min_size=1, max_size=200),
    folds=st.integers(1, 7),
    seed=st.integers(0, 3),
)
def test_folds_keep_groups_whole_and_are_balanced(groups: list[int], folds: int, seed: int) -> None:
    numbers = np.array(groups)
    found = group_folds(numbers, folds, seed)
    assert found.shape == numbers.shape and set(found.tolist()) <= set(range(folds))
    assert all(len(set(found[numbers == group].tolist())) == 1 for group in groups)
    rows = np.bincount(found, minlength=folds)
    assert rows.max() - rows.min() <= np.bincount(numbers).max()
    assert np.array_equal(found, group_folds(numbers, folds, seed))


def test_rows_are_drawn_from_many() -> None:
    assert np.array_equal(rows_for_tuning(5000), np.arange(5000))
    some = rows_for_tuning(20_000)
    assert len(np.unique(some)) == len(some) == 5000 and np.all(np.diff(some) > 0)
    assert 0 <= some[0] < 50 and 19_950 < some[-1] < 20_000
    assert np.array_equal(some, rows_for_tuning(20_000))
    assert not np.array_equal(some, rows_for_tuning(20_000, seed=1))


# NeighborLists


def naive(
    queries: NDArray[np.float32], index: NDArray[np.float32], allowed: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """float64[q, n]: similarities, -inf where a row is not allowed."""
    similarities = queries.astype(np.float64) @ index.T.astype(np.float64)
    return np.where(allowed, similarities, -np.inf)


def check_lists(lists: NeighborLists, expected: NDArray[np.float64]) -> None:
    """`expected` holds a row of similarities for each query, over all rows of the index."""
    rows, similarities = lists.found.rows, lists.found.similarities
    assert rows.dtype == np.int64 and similarities.dtype == np.float32
    assert np.all(np.diff(similarities, axis=1) <= 0)
    best = -np.sort(-expected, axis=1)[:, : rows.shape[1]]
    assert similarities == pytest.approx(best, abs=1e-6)
    voting = np.isfinite(similarities)
    at = np.take_along_axis(expected, rows, axis=1)
    assert at[voting] == pytest.approx(similarities[voting], abs=1e-6)
    assert all(len(set(row[v])) == v.sum() for row, v in zip(rows, voting, strict=True))


def test_lists_are_those_of_a_naive_search(twins: Any) -> None:
    lists = leave_one_group_out(twins.vectors, twins.numbers)
    assert lists.queries.tolist() == list(range(240))
    assert lists.found.rows.shape == (240, MOST_NEIGHBORS)
    allowed = twins.numbers[:, None] != twins.numbers
    check_lists(lists, naive(twins.vectors, twins.vectors, allowed))


def test_one_group_has_no_lists(twins: Any) -> None:
    numbers = group_numbers(["one"] * 240)
    lists = leave_one_group_out(twins.vectors, numbers)
    assert len(lists.queries) == len(lists.found.rows) == 0
    folds = group_folds(numbers)
    fitter = Fitter(twins.vectors, twins.labels, [16], folds)
    assert (
        len(cross_fitted(partial(fitter.projection, 1.0), twins.vectors, numbers, folds).queries)
        == 0
    )


@pytest.mark.parametrize("penalty", [None, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_cross_fitted_lists_are_those_of_a_naive_search(
    make_twins: Callable[..., Any], penalty: float | None, seed: int
) -> None:
    """Neither the own group nor the own fold is ever listed, whatever the groups' sizes."""
    sample = make_twins(160, seed=seed)
    rng = np.random.default_rng(seed)
    groups = [f"g{g}" if g else "" for g in rng.integers(0, (5, 40, 160)[seed], 160)]
    numbers = group_numbers(groups)
    folds = group_folds(numbers)
    fitter = Fitter(sample.vectors, sample.labels, [16], folds)
    lists = cross_fitted(partial(fitter.projection, penalty), sample.vectors, numbers, folds)
    assert lists.queries.tolist() == list(range(160))
    voting = np.isfinite(lists.found.similarities)
    own = lists.queries[:, None]
    for numbered in (numbers, folds):
        assert not np.any((numbered[lists.found.rows] == numbered[own]) & voting)
    expected = np.empty((160, 160))
    for fold in range(FOLDS):
        projection = fitter.projection(penalty, without=fold)
        projected = projection.apply(sample.vectors)
        rows = folds == fold
        expected[rows] = naive(projected[rows], projected, np.tile(folds != fold, (rows.sum(), 1)))
    check_lists(lists, expected)


def test_folds_at_once_make_the_same_lists(make_twins: Callable[..., Any]) -> None:
    sample = make_twins(160)
    folds = group_folds(sample.numbers)
    fitter = Fitter(sample.vectors, sample.labels, [16], folds)

    def with_fold(found: Neighbors, rows: NDArray[np.int64], fold: int) -> Neighbors:
        assert np.all(folds[rows] == fold)
        return replace(found, evidence=np.full(found.rows.shape, fold, np.float32))

    one, two = (
        cross_fitted(
            partial(fitter.projection, 1.0),
            sample.vectors, sample.numbers, folds, evidence=with_fold, at_once=at_once,
        )
        for at_once in (1, 2)
    )  # fmt: skip
    assert np.array_equal(one.queries, two.queries)
    assert np.array_equal(one.found.rows, two.found.rows)
    assert np.array_equal(one.found.similarities, two.found.similarities)
    assert one.found.evidence is not None and two.found.evidence is not None
    assert np.array_equal(one.found.evidence, two.found.evidence)
    assert np.array_equal(two.found.evidence[:, 0], folds[two.queries])


def test_noise_is_not_taken_for_knowledge(noise: Any) -> None:
    """That is what cross-fitting is for: a regression that has seen a row's own concept puts it
    next to rows that share it, however random the concepts are."""
    folds = group_folds(noise.numbers)
    fitter = Fitter(noise.vectors, noise.labels, [160], folds)
    honest = cross_fitted(partial(fitter.projection, 0.3), noise.vectors, noise.numbers, folds)
    projected = fitter.projection(0.3).apply(noise.vectors)
    in_sample = leave_one_group_out(projected, noise.numbers)
    # Chance is what the best answer earns that is the same for all: the m most frequent concepts.
    shares = np.cumsum(-np.sort(-noise.labels.frequencies)) / len(noise.vectors)
    chance = max(2 * share / (1 + m) for m, share in enumerate(shares, 1))
    assert quick_scores(honest, noise.labels)[1].mean() < chance
    assert quick_scores(in_sample, noise.labels)[1].mean() > chance + 0.3


def test_the_identity_is_a_projection_too(twins: Any) -> None:
    folds = group_folds(twins.numbers)
    lists = cross_fitted(lambda _: None, twins.vectors, twins.numbers, folds)
    similarity = twins.vectors.astype(np.float64) @ twins.vectors.T
    expected = np.where(folds[:, None] == folds, -np.inf, similarity).max(axis=1)
    assert lists.found.similarities[:, 0] == pytest.approx(expected, abs=1e-6)


# Their arrays in an index


@pytest.fixture
def lists(twins: Any) -> NeighborLists:
    return leave_one_group_out(twins.vectors, twins.numbers)


def test_lists_come_back(lists: NeighborLists) -> None:
    back = NeighborLists.from_arrays({**lists.to_arrays(), "another": np.zeros(3)}, 240)
    assert back is not None
    assert np.array_equal(back.queries, lists.queries)
    assert np.array_equal(back.found.rows, lists.found.rows)
    assert np.array_equal(back.found.similarities, lists.found.similarities)
    assert lists.groups is not None and np.array_equal(back.groups, lists.groups)  # type: ignore[arg-type]
    early = {name: a for name, a in lists.to_arrays().items() if name != f"{ARRAYS}groups"}
    unknown = NeighborLists.from_arrays(early, 240)
    assert unknown is not None and unknown.groups is None
    assert back.queries.dtype == back.found.rows.dtype == np.int64
    assert NeighborLists.from_arrays({"another": np.zeros(3)}, 240) is None


@pytest.mark.parametrize(
    "change",
    [
        {"queries": np.arange(239)},
        {"queries": np.arange(240) + 1},
        {"rows": None},
        {"queries": np.zeros(0, np.int64)},
        {"groups": np.arange(239)},
        {"rows": np.full((240, 100), 240)},
        {"rows": np.zeros((240, 99), np.int32)},
        {"rows": np.zeros((240, 0), np.int32), "similarities": np.zeros((240, 0), np.float32)},
        {"similarities": np.full((240, 100), np.nan, np.float32)},
        {"similarities": np.full((240, 100), -np.inf, np.float32)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(lists: NeighborLists, change: dict[str, Any]) -> None:
    arrays = lists.to_arrays() | {f"{ARRAYS}{name}": array for name, array in change.items()}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    with pytest.raises(AnnotatorError, match="neighbour lists of the index are damaged"):
        NeighborLists.from_arrays(arrays, 240)


# Renumbered


def some_lists(seed: int, n: int = 12, width: int = 4) -> NeighborLists:
    """NeighborLists of every second row, some shorter than others."""
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.permutation(n)[:width] for _ in range(n // 2)])
    found = -np.sort(-rng.random(rows.shape), axis=1).astype(np.float32)
    found[np.arange(width) >= rng.integers(1, width + 1, (n // 2, 1))] = -np.inf
    return NeighborLists(np.arange(0, n, 2), Neighbors(rows, found), np.arange(n // 2) + 7)


@given(seed=st.integers(0, 50), gone=st.sets(st.integers(0, 11)))
def test_renumbered_lists_name_the_rows_that_are_left(seed: int, gone: set[int]) -> None:
    def named(lists: NeighborLists | None, names: list[int]) -> dict[int, list[tuple[int, float]]]:
        """Those that vote, by name."""
        if lists is None:
            return {}
        assert np.isfinite(lists.found.similarities[:, 0]).all()
        assert np.all(np.diff(np.nan_to_num(lists.found.similarities, neginf=-1.0), axis=1) <= 0)
        assert lists.found.rows.min() >= 0 and lists.found.rows.max() < len(names)
        return {
            names[query]: [
                (names[row], similarity)
                for row, similarity in zip(rows, similarities, strict=True)
                if similarity != -np.inf
            ]
            for query, rows, similarities in zip(
                lists.queries.tolist(),
                lists.found.rows.tolist(),
                lists.found.similarities.tolist(),
                strict=True,
            )
        }

    lists = some_lists(seed)
    before = named(lists, list(range(12)))
    left = [row for row in range(12) if row not in gone]
    number = np.full(12, -1)
    number[left] = np.arange(len(left))
    after = lists.renumbered(lambda rows: number[rows])
    kept = {
        query: [pair for pair in pairs if pair[0] not in gone]
        for query, pairs in before.items()
        if query not in gone
    }
    assert named(after, left) == {query: pairs for query, pairs in kept.items() if pairs}
    assert (after is None) == (not any(kept.values()))
    if after is not None:
        assert after.groups is not None
        assert [left[query] // 2 + 7 for query in after.queries] == after.groups.tolist()
        again = NeighborLists.from_arrays(after.to_arrays(), len(left))
        assert again is not None and named(again, left) == named(after, left)
