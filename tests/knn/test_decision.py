"""The deciders, against brute force over all sets."""

from __future__ import annotations

from itertools import combinations
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.concepts.hierarchy import Hierarchy
from annotator.knn.decision import Closing, Decision, choose_concepts
from annotator.knn.posterior import Posterior
from annotator.knn.voting import Decider, Voting
from index import LabelTable


def posterior(sets: list[list[str]], weights: list[list[float]]) -> Posterior:
    """Each image's neighbours are rows 0, 1, 2, ... of the label table."""
    array = np.array(weights, np.float64)
    array = array / array.sum(axis=1, keepdims=True)
    rows = np.tile(np.arange(array.shape[1]), (len(array), 1))
    return Posterior(rows, array, LabelTable.from_sets(sets))


def f1(chosen: set[str], truth: set[str]) -> float:
    if not chosen and not truth:
        return 1.0
    return 2 * len(chosen & truth) / (len(chosen) + len(truth))


def expected_f1(chosen: set[str], sets: list[list[str]], weights: np.ndarray) -> float:
    return float(sum(w * f1(chosen, set(s)) for w, s in zip(weights, sets, strict=True)))


label_sets = st.lists(
    st.lists(st.sampled_from("ABCDEFG"), max_size=5, unique=True), min_size=1, max_size=6
)


@settings(max_examples=150, deadline=None)
@given(sets=label_sets, data=st.data())
def test_expected_f1_is_the_best_of_all_sets(sets: list[list[str]], data: st.DataObject) -> None:
    row = st.lists(st.integers(1, 50).map(float), min_size=len(sets), max_size=len(sets))
    weights = data.draw(st.lists(row, min_size=1, max_size=3))
    p = posterior(sets, weights)
    vocabulary = sorted({c for s in sets for c in s})
    everything = [set(c) for m in range(len(vocabulary) + 1) for c in combinations(vocabulary, m)]
    for decision, w in zip(choose_concepts(p, Voting()), p.weights, strict=True):
        best = max(expected_f1(chosen, sets, w) for chosen in everything)
        assert expected_f1(set(decision.cuis), sets, w) == pytest.approx(best, abs=1e-9)
        assert decision.expected_f1 == pytest.approx(best, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(sets=label_sets, data=st.data())
def test_images_do_not_influence_each_other(sets: list[list[str]], data: st.DataObject) -> None:
    row = st.lists(st.integers(1, 9).map(float), min_size=len(sets), max_size=len(sets))
    weights = data.draw(st.lists(row, min_size=2, max_size=5))
    for voting in (Voting(), Voting(decider="threshold"), Voting(decider="top-r")):
        together = choose_concepts(posterior(sets, weights), voting)
        alone = [choose_concepts(posterior(sets, [w]), voting)[0] for w in weights]
        for a, b in zip(together, alone, strict=True):
            assert a.cuis == b.cuis and a.expected_f1 == b.expected_f1
            assert np.array_equal(a.scores, b.scores)


THRESHOLDS = (0.1, 0.2, 0.3, 0.4)


def one(
    sets: list[list[str]], weights: list[float], decider: Decider = "expected-f1", **parameters: Any
) -> Decision:
    voting = Voting(decider=decider, macro_thresholds=THRESHOLDS, **parameters)
    return choose_concepts(posterior(sets, [weights]), voting)[0]


@pytest.mark.parametrize(("cuis", "expected"), [("AB", 2 / 3), ("ABCDEFGHIJKL", 2 / 13)])
def test_sizes_are_not_capped_at_the_largest_neighbour(cuis: str, expected: float) -> None:
    decision = one([[cui] for cui in cuis], [1.0] * len(cuis))
    assert decision.cuis == tuple(cuis)
    assert decision.expected_f1 == pytest.approx(expected)


def test_the_empty_set_wins_where_most_neighbours_are_empty() -> None:
    decision = one([[], ["A"]], [3, 1])
    assert decision.cuis == () and decision.expected_f1 == pytest.approx(0.75)


def test_threshold_takes_the_share_of_votes() -> None:
    sets = [["A", "B"], ["A"], ["C"]]
    assert one(sets, [2, 2, 1], "threshold", threshold=0.4).cuis == ("A", "B")
    assert one(sets, [2, 2, 1], "threshold", threshold=0.5).cuis == ("A",)


def test_macro_f1_asks_fewer_votes_for_rarer_concepts() -> None:
    """A share of 0.15, 0.25, 0.35 or 0.45 for concepts of 3, 4, 20 and 100 images."""
    counts = {"A": 3, "B": 4, "C": 19, "D": 20, "E": 99, "F": 100}
    rows = [[c for c, n in counts.items() if i < n] for i in range(100)]
    labels = LabelTable.from_sets([*rows, []])
    # Row 0 has all concepts, and the last one has none.
    for share, chosen in ((0.09, ""), (0.15, "A"), (0.25, "ABC"), (0.35, "ABCDE"), (0.4, "ABCDEF")):
        p = Posterior(np.array([[0, 100]]), np.array([[share, 1 - share]]), labels)
        voting = Voting(decider="macro-f1", macro_thresholds=THRESHOLDS)
        assert sorted(choose_concepts(p, voting)[0].cuis) == list(chosen)
    with pytest.raises(ValueError, match="set by tuning"):
        choose_concepts(p, Voting(decider="macro-f1"))


def test_top_r_defaults_to_the_mean_number_of_concepts() -> None:
    sets = [["A", "B"], ["A", "C"], ["B", "C"]]
    assert one(sets, [3, 2, 1], "top-r").cuis == ("A", "B")
    assert one(sets, [3, 2, 1], "top-r", top_r=1).cuis == ("A",)


def test_ties_break_by_frequency_then_first_row() -> None:
    labels = LabelTable.from_sets([["B"], ["A"], ["C"], ["C"]])
    p = Posterior(np.array([[0, 1, 2]]), np.full((1, 3), 1 / 3), labels)
    assert choose_concepts(p, Voting(decider="top-r", top_r=1))[0].cuis == ("C",)
    assert choose_concepts(p, Voting(decider="top-r", top_r=2))[0].cuis == ("C", "B")


def test_min_score_drops_weak_concepts() -> None:
    assert one([["A"], ["B"]], [2, 1], min_score=0.5).cuis == ("A",)


@pytest.mark.parametrize("decider", get_args(Decider))
def test_at_most_100_concepts(decider: Decider) -> None:
    sets = [[f"C{i:04d}" for i in range(150)]]
    assert len(one(sets, [1.0], decider).cuis) == 100


@pytest.mark.parametrize("decider", get_args(Decider))
def test_no_neighbours_means_no_concepts(decider: Decider) -> None:
    empty = Posterior(np.zeros((2, 0), np.int64), np.zeros((2, 0)), LabelTable.from_sets([]))
    found = choose_concepts(empty, Voting(decider=decider, macro_thresholds=THRESHOLDS))
    assert [(d.cuis, d.expected_f1) for d in found] == [((), 1.0)] * 2


@st.composite
def hierarchies(draw: st.DrawFn) -> Hierarchy:
    """Directed graphs without cycles on A to G, of several roots; some letters may be unknown."""
    return Hierarchy(
        {
            concept: tuple(draw(st.lists(st.sampled_from("ABCDEFG"[:i]), max_size=2, unique=True)))
            for i, concept in enumerate("ABCDEFG")
            if i
        }
    )


def choose_closed(
    p: Posterior, voting: Voting, hierarchy: Hierarchy
) -> tuple[list[Decision], LabelTable]:
    labels = p.labels.closed(hierarchy.ancestors)
    ancestors = LabelTable.from_sets([hierarchy.ancestors(c) for c in labels.cuis], labels.cuis)
    closing = Closing(ancestors, p.labels.including(labels.cuis))
    return choose_concepts(Posterior(p.rows, p.weights, labels), voting, closing), labels


@settings(max_examples=200, deadline=None)
@given(sets=label_sets, hierarchy=hierarchies(), data=st.data())
def test_expected_hierarchical_f1_is_the_best_of_all_sets(
    sets: list[list[str]], hierarchy: Hierarchy, data: st.DataObject
) -> None:
    row = st.lists(st.integers(1, 50).map(float), min_size=len(sets), max_size=len(sets))
    weights = data.draw(st.lists(row, min_size=1, max_size=3))
    p = posterior(sets, weights)
    closed = [sorted(hierarchy.closure(s)) for s in sets]
    decisions, labels = choose_closed(p, Voting(), hierarchy)
    assert [labels.row(i) for i in range(len(sets))] == [tuple(s) for s in closed]
    everything = [
        hierarchy.closure(c)
        for m in range(len(labels.cuis) + 1)
        for c in combinations(labels.cuis, m)
    ]
    for decision, w in zip(decisions, p.weights, strict=True):
        best = max(expected_f1(set(chosen), closed, w) for chosen in everything)
        mine = set(hierarchy.closure(decision.cuis))
        assert expected_f1(mine, closed, w) == pytest.approx(best, abs=1e-9)
        assert decision.expected_f1 == pytest.approx(best, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(sets=label_sets, hierarchy=hierarchies(), data=st.data())
def test_of_a_closed_set_the_most_specific_and_the_named_concepts_are_told(
    sets: list[list[str]], hierarchy: Hierarchy, data: st.DataObject
) -> None:
    weights = data.draw(
        st.lists(st.integers(1, 9).map(float), min_size=len(sets), max_size=len(sets))
    )
    p = posterior(sets, [weights])
    closed = [sorted(hierarchy.closure(s)) for s in sets]
    for voting in (
        Voting(min_score=0.3),
        Voting(decider="threshold"),
        Voting(decider="top-r"),
        Voting(decider="macro-f1", macro_thresholds=THRESHOLDS),
    ):
        (decision,), labels = choose_closed(p, voting, hierarchy)
        whole = hierarchy.closure(decision.cuis)
        named = {
            c: sum(w for w, s in zip(p.weights[0], sets, strict=True) if c in s) for c in whole
        }
        specific = {c for c in whole if not any(c in hierarchy.ancestors(d) for d in whole)}
        assert set(decision.cuis) == specific | {c for c in whole if named[c] >= 0.5 - 1e-12}
        share = {
            c: sum(w for w, s in zip(p.weights[0], closed, strict=True) if c in s)
            for c in labels.cuis
        }
        assert decision.scores == pytest.approx([share[c] for c in decision.cuis])
        assert decision.expected_f1 == pytest.approx(expected_f1(set(whole), closed, p.weights[0]))
        if voting.decider == "threshold":
            assert whole == {c for c in labels.cuis if share[c] >= voting.threshold - 1e-12}


def test_a_concept_without_relations_is_chosen_as_without_a_hierarchy() -> None:
    p = posterior([["A", "B"], ["B", "C"], ["D"]], [[3, 2, 1]])
    (with_one,), _ = choose_closed(p, Voting(), Hierarchy({}))
    (without,) = choose_concepts(p, Voting())
    assert (with_one.cuis, with_one.expected_f1) == (without.cuis, without.expected_f1)


def test_doubt_between_kinds_gives_what_they_share() -> None:
    kinds = ("CYST", "TUMOUR", "ABSCESS")
    parents = dict.fromkeys(kinds, ("MASS",)) | {"MASS": ("LESION",), "LESION": ("FINDING",)}
    p = posterior([[kind] for kind in kinds], [[1, 1, 1]])
    (decision,), _ = choose_closed(p, Voting(), Hierarchy(parents))
    assert decision.cuis == ("MASS",)
    assert decision.expected_f1 == pytest.approx(2 * 2 / (2 + 3))
    assert decision.scores == pytest.approx([1.0])


def test_at_most_100_concepts_are_told_of_a_closed_set() -> None:
    cuis = [f"C{i:04d}" for i in range(150)]
    hierarchy = Hierarchy({cui: (f"ABOVE_{cui}",) for cui in cuis} | {
        f"ABOVE_{cui}": ("ROOT",) for cui in cuis
    })  # fmt: skip
    (decision,), _ = choose_closed(posterior([cuis], [[1.0]]), Voting(), hierarchy)
    assert decision.cuis == tuple(cuis[:100])
    assert decision.expected_f1 == pytest.approx(2 * 200 / 500)
