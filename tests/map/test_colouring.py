from __future__ import annotations

import pytest

from annotator.errors import AnnotatorError
from annotator.map.colouring import MARKS, MOST, by_concept, by_value, find_concepts
from index.labels import LabelTable

NAMES = {"C1": "Chest", "C2": "Pacemaker, Artificial", "C3": "Twice", "C4": "twice"}
CUIS = ("C1", "C2", "C3", "C4", "C5")
COUNTS = dict.fromkeys(CUIS, 1)


def test_there_is_a_mark_for_each_category_and_all_differ() -> None:
    assert len(MARKS) == MOST
    assert len({mark.colour for mark in MARKS}) == len({mark.dark for mark in MARKS}) == MOST
    assert len({mark.form for mark in MARKS}) == MOST


def test_concepts_that_are_named() -> None:
    labels = LabelTable.from_sets([["C1", "C2"], ["C1"], ["C1"], ["C9"], []])
    colouring = by_concept(labels, lambda cui: NAMES.get(cui, ""), ["C2", "C1", "C7"])
    rows = [(c.label, c.cui, c.points, c.held) for c in colouring.categories]
    assert rows == [
        ("Chest", "C1", 2, 3),
        ("Pacemaker, Artificial", "C2", 1, 1),
        ("", "C7", 0, 0),
    ]
    assert colouring.of.tolist() == [1, 0, 0, -1, -1]
    assert colouring.rest == "none of these"


def test_one_concept_against_the_rest() -> None:
    labels = LabelTable.from_sets([["C1", "C2"], ["C2"], []])
    colouring = by_concept(labels, lambda _: "", ["C1"])
    assert colouring.of.tolist() == [0, -1, -1]
    assert colouring.rest == "without it" and "have the concept" in colouring.rule


def test_discriminative_concepts_are_chosen() -> None:
    labels = LabelTable.from_sets([["C1", "C9"], ["C1", "C9"], ["C2", "C9"]])
    assert {c.cui for c in by_concept(labels, lambda _: "").categories} == {"C1", "C2"}
    assert by_concept(LabelTable.from_sets([[], []]), lambda _: "").of.tolist() == [-1, -1]


def test_values() -> None:
    values = ["b", "a", "b", "", *(f"v{i}" for i in range(8))]
    colouring = by_value(values, "source")
    assert [(c.label, c.points) for c in colouring.categories[:3]] == [
        ("b", 2),
        ("a", 1),
        ("v0", 1),
    ]
    assert len(colouring.categories) == MOST
    assert colouring.of.tolist() == [0, 1, 0, -1, 2, 3, 4, 5, 6, 7, -1, -1]
    assert colouring.rest == "2 other values or none"
    assert by_value(["a", ""], "x").rest == "no value"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["C1"], ["C1"]),
        (["c1, chest,C5"], ["C1", "C5"]),
        (["pacemaker, artificial"], ["C2"]),
        (["Pacemaker, Artificial", "C5,C3"], ["C2", "C5", "C3"]),
    ],
)
def test_concepts_by_cui_or_name(given: list[str], found: list[str]) -> None:
    assert find_concepts(given, COUNTS, NAMES) == found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["Chests"], r"called 'Chests'.\n  Similar: C1 Chest"),
        (["zzz"], r"called 'zzz'.\n  `annotator info`"),
        (["TWICE"], "may mean 2 concepts: C3 .*; C4 "),
        ([" , "], "names 0 concepts"),
    ],
)
def test_concepts_that_are_not_there(given: list[str], message: str) -> None:
    with pytest.raises(AnnotatorError, match=message):
        find_concepts(given, COUNTS, NAMES)


def test_more_concepts_than_colours() -> None:
    cuis = [f"C{i}" for i in range(MOST + 1)]
    with pytest.raises(AnnotatorError, match="names 9 concepts"):
        find_concepts([",".join(cuis)], dict.fromkeys(cuis, 1), {})
