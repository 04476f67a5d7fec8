"""Thresholds for macro F1, against brute force and on concepts that only few votes find."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, recall_score

from annotator.knn.cross_validation import NeighborLists, leave_one_group_out
from annotator.knn.decision import choose_concepts
from annotator.knn.grid_search import choose_voting
from annotator.knn.macro_f1 import best_expected_f1, by_band, fit_thresholds
from annotator.knn.posterior import Posterior
from annotator.knn.voting import Voting
from index import LabelTable, Neighbors

pairs = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 20).map(lambda i: i / 20)), min_size=0, max_size=12
)


@settings(max_examples=100, deadline=None)
@given(pairs)
def test_the_best_expected_f1_is_that_of_the_best_set_of_images(
    pairs: list[tuple[int, float]],
) -> None:
    concepts, shares = np.array([j for j, _ in pairs], np.int64), np.array([p for _, p in pairs])
    found = best_expected_f1(concepts, shares, 4)
    for j in range(4):
        own = [p for concept, p in pairs if concept == j]
        sets = (some for m in range(1, len(own) + 1) for some in combinations(own, m))
        of_sets = (2 * sum(some) / (sum(own) + len(some)) for some in sets)
        best = max(of_sets, default=0.0)
        assert found[j] == pytest.approx(best)
        if own:  # and the set is that of the images with half of it
            reached = [p for p in own if p >= best / 2 - 1e-12]
            assert 2 * sum(reached) / (sum(own) + len(reached)) == pytest.approx(best)


def lists_of(n: int, rows: list[list[int]]) -> NeighborLists:
    """Lists of the first rows, all neighbours alike."""
    found = Neighbors(np.array(rows), np.ones((len(rows), len(rows[0])), np.float32))
    return NeighborLists(np.arange(len(rows)), found)


def test_a_band_has_half_of_what_its_concepts_reach() -> None:
    """Two queries: A is in one vote of two and in none, B in both, C and Z are in no list."""
    sets = [["C"], ["C"], ["A", "B"], ["B"], *[["C"]] * 3, ["Z"]]
    lists = lists_of(len(sets), [[2, 3], [3, 3]])
    voting = Voting(k=2, kernel="uniform", beta=0)
    thresholds = fit_thresholds(lists, LabelTable.from_sets(sets), voting)
    of_a, of_b = 2 * 0.5 / (0.5 + 1), 1.0
    assert thresholds == pytest.approx([(of_a + of_b) / 4] * 4, abs=1e-6)  # other bands take it
    more = LabelTable.from_sets([*sets, *[["B"]] * 2])  # B is in the next band now
    thresholds = fit_thresholds(lists, more, voting)
    assert thresholds == pytest.approx([of_a / 2, *[of_b / 2] * 3], abs=1e-6)
    nothing = LabelTable.from_sets([()] * len(sets))
    assert fit_thresholds(lists, nothing, voting) == (0.5,) * 4


def test_macro_f1_and_recall_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, run = rng.random((2, 60, 8)) < np.array([0.02, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    truth[:, 0] = False
    cuis = tuple("ABCDEFGH")
    sets, given_sets = (
        [[c for c, one in zip(cuis, row, strict=True) if one] for row in table.tolist()]
        for table in (truth, run)
    )
    labels = LabelTable.from_sets(sets, cuis)
    p = Posterior(np.arange(60)[:, None], np.ones((60, 1)), LabelTable.from_sets(given_sets, cuis))
    macro_f1, recall = by_band(sets, choose_concepts(p, Voting()), labels)
    assert macro_f1 == pytest.approx(f1_score(truth[:, 1:], run[:, 1:], average="macro"))
    bands = np.digitize(truth.sum(axis=0), [4, 20, 100])
    assert recall[3] is None
    for band in range(3):
        own = bands == band
        wanted = recall_score(truth[:, own], run[:, own], average="micro", zero_division=0)
        assert recall[band] == pytest.approx(wanted, abs=1e-6)
    assert by_band([], [], labels) == (1.0, [None] * 4)


@pytest.fixture(scope="module")
def rare(rare_marks: Any) -> tuple[NeighborLists, LabelTable]:
    """Lists of images with and without rare marks, and their labels."""
    drawn = rare_marks(600, 6, 10)
    lists = leave_one_group_out(drawn.vectors, np.arange(len(drawn.vectors)))
    return lists, LabelTable.from_sets(drawn.sets)


def test_rare_concepts_are_found_at_a_price(rare: Any) -> None:
    lists, labels = rare
    usual, macro = (
        choose_voting(lists, labels, start=Voting(k=20, decider=decider), fixed=["k"])
        for decider in ("expected-f1", "macro-f1")
    )
    assert macro.voting.decider == "macro-f1" and usual.voting.decider != "macro-f1"
    thresholds = macro.voting.macro_thresholds
    assert thresholds is not None and list(thresholds) == sorted(thresholds)
    f1, macro_f1 = (macro.objectives[name] for name in ("f1", "macro-f1"))
    assert macro_f1["macro_f1"] > f1["macro_f1"] and macro_f1["recall"][1] > f1["recall"][1]
    assert macro_f1["f1"] < f1["f1"]
    assert macro.f1 == pytest.approx(macro_f1["f1"], abs=1e-6)
    assert usual.f1 == pytest.approx(usual.objectives["f1"]["f1"], abs=1e-6)


def test_labels_of_the_annotated_images_are_not_looked_at(rare: Any) -> None:
    """Half of the images annotate, the others are annotated; with the concepts of the latter moved
    around, the frequencies are the same, and so are the thresholds."""
    lists, labels = rare
    half = len(labels) // 2
    some = lists.take(np.arange(half, len(labels)))
    some = NeighborLists(some.queries, some.found.without(some.found.rows >= half, 40))
    moved = [*range(half), *reversed(range(half, len(labels)))]
    sets = [labels.row(row) for row in moved]
    voting = Voting(k=20)
    assert fit_thresholds(some, labels, voting) == fit_thresholds(
        some, LabelTable.from_sets(sets), voting
    )
