"""Runners-up of a vote, and concepts that exclude each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.knn.decision import Decision
from annotator.knn.rivals import Exclusions, considered, parts_of_cases, rivals
from index import LabelTable


def exclusions(*rows: tuple[int, str], groups: list[str] | None = None) -> Exclusions:
    """Of rows (how often, concepts as letters)."""
    labels = LabelTable.from_sets([text for n, text in rows for _ in range(n)])
    return Exclusions(labels, None if groups is None else parts_of_cases(groups))


def decision(shares: dict[str, float], chosen: str) -> Decision:
    vocabulary = tuple(sorted(shares))
    return Decision(
        cuis=tuple(chosen),
        scores=np.array([shares[c] for c in chosen]),
        expected_f1=1.0,
        candidates=np.arange(len(vocabulary)),
        shares=np.array([shares[c] for c in vocabulary]),
        vocabulary=vocabulary,
    )


def test_frequent_concepts_that_are_never_together_exclude_each_other() -> None:
    found = exclusions((60, "ax"), (60, "bx"), (3, "c"))
    assert found.exclude("a", "b") and found.exclude("b", "a")
    assert not found.exclude("a", "x"), "they are together"
    assert not found.exclude("a", "c"), "c is too rare: 1.5 joint cases would be expected"
    assert not found.exclude("a", "a") and not found.exclude("a", "unknown")


@pytest.mark.parametrize(("joint", "excluded"), [(0, True), (2, True), (20, False)])
def test_a_few_wrong_labels_do_not_hide_it(joint: int, excluded: bool) -> None:
    assert exclusions((200, "a"), (200, "b"), (joint, "ab")).exclude("a", "b") is excluded


def test_a_few_joint_cases_that_are_missing_may_be_chance() -> None:
    assert exclusions((24, "a"), (24, "b")).exclude("a", "b"), "12 are expected, exp(-12)"
    few = exclusions((8, "a"), (8, "b"))  # 4 are
    assert not few.exclude("a", "b")
    assert exclusions((11, "a"), (11, "b")).exclude("a", "b"), "5.5 are, exp(-5.5) = 0.004 < 0.01"
    wide = exclusions((24, "abcdef"), (24, "ghijkl"), (48, "m"))
    assert not wide.exclude("a", "g"), "6 are, exp(-6) = 0.0025, but of 78 pairs"


def test_images_of_a_patient_are_one_case() -> None:
    rows = ((60, "a"), (60, "b"))
    alone = [str(i) for i in range(120)]
    few = [str(i // 30) for i in range(120)]  # two patients with a, two with b
    assert exclusions(*rows, groups=alone).exclude("a", "b")
    assert not exclusions(*rows, groups=few).exclude("a", "b")


@given(st.lists(st.sets(st.sampled_from("abcd")), max_size=80))
def test_it_is_symmetric_and_never_of_concepts_often_together(sets: list[set[str]]) -> None:
    found = Exclusions(LabelTable.from_sets(sets))
    for one in "abcd":
        for other in "abcd":
            excluded = found.exclude(one, other)
            assert excluded == found.exclude(other, one)
            with_one, with_other = (sum(c in s for s in sets) for c in (one, other))
            joint = sum({one, other} <= s for s in sets)
            if excluded:
                expected = with_one * with_other / len(sets)
                assert expected >= 5 and joint <= 0.02 * expected


def test_what_was_considered() -> None:
    made = decision({"a": 0.9, "b": 0.3, "c": 0.3, "d": 0.09, "e": 0.5, "f": 0.4}, chosen="a")
    assert list(considered(made, implied=["f"]).items()) == [("e", 0.5), ("b", 0.3), ("c", 0.3)]
    many = decision({chr(97 + i): 0.2 for i in range(20)}, chosen="b")
    assert list(considered(many)) == list("acdefghijk")


def test_a_rival_has_a_quarter_of_the_vote_and_excludes_the_concept() -> None:
    known = exclusions((60, "ax"), (60, "bx"), (60, "cx"))
    shares = {"a": 0.5, "b": 0.26, "c": 0.24, "x": 1.0}
    for chosen, expected in (("xa", {"a": "b"}), ("xab", {"a": "b", "b": "a"}), ("x", {})):
        made = decision(shares, chosen)
        assert rivals(made, considered(made), known) == expected
    weak = decision({"a": 0.7, "b": 0.24, "x": 1.0}, chosen="xa")
    assert rivals(weak, considered(weak), known) == {}
