"""Guarantees: the risk bound on exchangeable groups, against brute force, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from annotator.errors import AnnotatorError
from annotator.knn.cross_validation import NeighborLists
from annotator.knn.decision import choose_concepts
from annotator.knn.guarantees import (
    Guarantee,
    Kind,
    Ranked,
    RiskCurve,
    choose_by_image,
    costs,
    keep_guarantee,
)
from annotator.knn.posterior import weigh
from annotator.knn.voting import Voting
from index import LabelTable, Neighbors

CONCEPTS = "abcde"
KINDS: list[Kind] = ["missed", "invented"]
SETS = st.sets(st.sampled_from(CONCEPTS), max_size=4)
UNIFORM = Voting(k=3, kernel="uniform")


@st.composite
def drawn_lists(draw: st.DrawFn) -> tuple[NeighborLists, LabelTable]:
    """A few images in groups, each with three neighbours of other groups, unless there are less."""
    groups = np.array(draw(st.lists(st.integers(0, 4), min_size=2, max_size=9)))
    n = len(groups)
    labels = LabelTable.from_sets(draw(st.lists(SETS, min_size=n, max_size=n)))
    rows = np.array(draw(st.lists(st.permutations(range(n)), min_size=n, max_size=n)))
    similarities = np.full(rows.shape, 0.5, np.float32)
    found = Neighbors(rows, similarities).without(groups[rows] == groups[:, None], min(3, n))
    return NeighborLists(np.arange(n), found, groups), labels


def losses(kind: Kind, truth: set[str], chosen: set[str]) -> float:
    if kind == "missed":
        return len(truth - chosen) / max(len(truth), 1)
    return len(chosen - truth) / max(len(chosen), 1)


def group_mean(values: list[float], groups: NDArray[np.int64]) -> float:
    """Mean over groups of the mean of their images."""
    each = np.array(values)
    return float(np.mean([each[groups == group].mean() for group in np.unique(groups)]))


@settings(deadline=None)
@given(drawn_lists(), st.sampled_from(KINDS))
def test_the_curve_is_that_of_the_sets(drawn: tuple[NeighborLists, LabelTable], kind: Kind) -> None:
    lists, labels = drawn
    assert lists.groups is not None
    posterior = weigh(lists.found, labels, UNIFORM)
    curve = RiskCurve.of(kind, Ranked.of(posterior, lists, UNIFORM))
    assert curve.groups == len(set(lists.groups.tolist()))
    worst = np.zeros(len(labels))
    larger: list[set[str]] = [set()] * len(labels)
    for threshold, risk in zip(curve.thresholds[::-1], curve.risks[::-1], strict=True):
        voting = replace(UNIFORM, decider="threshold", threshold=float(threshold))
        sets = [set(decision.cuis) for decision in choose_concepts(posterior, voting)]
        assert all(small <= large for small, large in zip(larger, sets, strict=True))  # nested
        larger = sets
        each = [losses(kind, set(labels.row(i)), chosen) for i, chosen in enumerate(sets)]
        if kind == "invented":  # the most of all smaller sets
            worst = np.maximum(worst, each)
            each = worst.tolist()
        assert risk == pytest.approx(group_mean(each, lists.groups), abs=1e-9)


@st.composite
def drawn_groups(draw: st.DrawFn) -> list[Ranked]:
    """Groups of one to three images with up to four candidates."""
    groups = []
    for group in range(draw(st.integers(2, 12))):
        images = draw(st.integers(1, 3))
        levels = st.lists(st.integers(0, 6), min_size=4, max_size=4)
        scores = np.array([sorted(draw(levels), reverse=True) for _ in range(images)]) / 6
        right = np.array([draw(st.lists(st.booleans(), min_size=4, max_size=4))] * images)
        right &= scores > 0
        more = np.array(draw(st.lists(st.integers(0, 2), min_size=images, max_size=images)))
        groups.append(Ranked(scores, right, right.sum(axis=1) + more, np.full(images, group)))
    return groups


def joined(groups: list[Ranked]) -> Ranked:
    names = ("scores", "right", "true", "groups")
    return Ranked(*(np.concatenate([getattr(group, name) for group in groups]) for name in names))


def mean_loss(kind: Kind, group: Ranked, threshold: float) -> float:
    chosen = group.scores >= threshold
    if kind == "missed":
        lost = group.true - (chosen & group.right).sum(axis=1)
        return float((lost / np.maximum(group.true, 1)).mean())
    return float(((chosen & ~group.right).sum(axis=1) / np.maximum(chosen.sum(axis=1), 1)).mean())


@settings(deadline=None, max_examples=100)
@given(drawn_groups(), st.sampled_from(KINDS), st.floats(0.05, 0.95))
def test_the_bound_holds_for_every_group_left_out(
    groups: list[Ranked], kind: Kind, rate: float
) -> None:
    """Exchangeable groups are equally likely to be the new one: so the mean over which of them is
    new, each time calibrated on the others, is the expected loss, and no more than the rate.
    """
    total = 0.0
    for new in range(len(groups)):
        others = joined(groups[:new] + groups[new + 1 :])
        threshold = RiskCurve.of(kind, others).threshold(rate)
        if threshold is not None:  # else nothing is promised
            total += mean_loss(kind, groups[new], threshold)
    assert total / len(groups) <= rate + 1e-9


def lists_of(n: int, seed: int = 0, own: float = 0.7) -> tuple[NeighborLists, LabelTable]:
    """n images in pairs of one patient, with one of two concepts and sometimes a third; neighbours
    agree with a probability of `own`.
    """
    rng = np.random.default_rng(seed)
    groups = np.arange(n) // 2
    kind = rng.integers(2, size=n)
    third = (rng.random(n) < 0.4).astype(int)
    labels = LabelTable.from_sets([["ab"[kind[i]], *"c"[: third[i]]] for i in range(n)])
    rows = np.empty((n, 10), np.int64)
    for i in range(n):
        wanted = np.where(rng.random(10) < own, kind[i], 1 - kind[i])
        other = np.flatnonzero(groups != groups[i])
        rows[i] = [rng.choice(other[kind[other] == k]) for k in wanted]
    found = Neighbors(rows, np.full(rows.shape, 0.9, np.float32))
    return NeighborLists(np.arange(n), found, groups), labels


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_new_patients_get_what_was_asked_for(kind: Kind, rate: float) -> None:
    voting, came_out = Voting(k=10, kernel="uniform"), []
    lists, labels = lists_of(1200)
    assert lists.groups is not None
    rng = np.random.default_rng(1)
    for _ in range(20):
        known = np.isin(lists.groups, rng.permutation(600)[:120])
        some, rest = lists.take(np.flatnonzero(known)), lists.take(np.flatnonzero(~known))
        kept = keep_guarantee(Guarantee(kind, rate), some, labels, voting)
        assert (kept.images, kept.groups) == (240, 120)
        decisions = choose_concepts(weigh(rest.found, labels, voting), kept.voting)
        each = [
            losses(kind, set(labels.row(row)), set(decision.cuis))
            for row, decision in zip(rest.queries.tolist(), decisions, strict=True)
        ]
        assert rest.groups is not None
        came_out.append(group_mean(each, rest.groups))
    assert np.mean(came_out) <= rate + 0.01
    assert np.mean(came_out) >= rate / 3  # and not by giving up


def test_what_it_costs() -> None:
    lists, labels = lists_of(400)
    voting = Voting(k=10, kernel="uniform")
    found = {cost.guarantee: cost for cost in costs(lists, labels, voting)}
    assert list(found) == [
        "", "missed=0.05", "missed=0.1", "missed=0.2", "invented=0.05", "invented=0.1",
        "invented=0.2",
    ]  # fmt: skip
    decisions = choose_concepts(weigh(lists.found, labels, voting), voting)
    assert found[""].concepts == pytest.approx(np.mean([len(d.cuis) for d in decisions]), abs=1e-6)
    for name, cost in found.items():
        if name and cost.concepts is not None:
            kind, rate = name.split("=")
            assert getattr(cost, kind) <= float(rate)
        elif name:
            assert cost.least > float(name.split("=")[1])
    sizes = [found[f"missed={rate}"].concepts or 0 for rate in (0.05, 0.1, 0.2)]
    assert sizes == sorted(sizes, reverse=True)


def one_of_each(n: int, sets: list[list[str]]) -> tuple[NeighborLists, LabelTable]:
    """n images, each a group, whose only neighbour is the next one; the last has the sets."""
    labels = LabelTable.from_sets([["a"]] * (n - len(sets)) + sets)
    rows = (np.arange(n)[:, None] + 1) % n
    found = Neighbors(rows, np.ones(rows.shape, np.float32))
    return NeighborLists(np.arange(n), found, np.arange(n)), labels


def test_concepts_that_no_neighbour_has_are_out_of_reach() -> None:
    lists, labels = one_of_each(100, [[str(i)] for i in range(20)])
    with pytest.raises(AnnotatorError, match=r"missed=0.1 cannot be guaranteed: 0.218 is the least"
                       r". 21.0% of an image's concepts have no vote") as refused:  # fmt: skip
        keep_guarantee(Guarantee("missed", 0.1), lists, labels, UNIFORM)
    assert "Ask for missed=0.218 or more" in refused.value.hint
    assert keep_guarantee(Guarantee("missed", 0.218), lists, labels, UNIFORM).groups == 100


def test_wrong_concepts_that_all_neighbours_have() -> None:
    lists, labels = one_of_each(100, [[str(i)] for i in range(20)])
    with pytest.raises(AnnotatorError, match=r"invented=0.2 cannot be guaranteed: 0.218 is the le"):
        keep_guarantee(Guarantee("invented", 0.2), lists, labels, UNIFORM)


def test_too_few_patients() -> None:
    lists, labels = one_of_each(18, [])
    with pytest.raises(AnnotatorError, match=r"for nih: 0\.053 is the least, with images of 18"):
        keep_guarantee(Guarantee("missed", 0.05), lists, labels, UNIFORM, "nih")
    more, labels = one_of_each(19, [])
    assert keep_guarantee(Guarantee("missed", 0.05), more, labels, UNIFORM).voting.threshold == 1


def test_images_without_any_concept() -> None:
    lists, _ = one_of_each(30, [])
    empty = LabelTable.from_sets([()] * 30)
    assert keep_guarantee(Guarantee("missed", 0.1), lists, empty, UNIFORM).voting.threshold == 1
    assert keep_guarantee(Guarantee("invented", 0.1), lists, empty, UNIFORM).voting.threshold == 1


def test_the_prior_does_not_know_the_image_itself() -> None:
    lists, labels = one_of_each(50, [["rare"]])
    with_prior = Voting(k=1, kernel="uniform", prior=1.0)
    with pytest.raises(AnnotatorError, match=r"2.0% of an image's concepts have no vote"):
        keep_guarantee(Guarantee("missed", 0.021), lists, labels, with_prior)


def test_each_image_by_its_own_vote() -> None:
    lists, labels = lists_of(40)
    voting = Voting(k=10, kernel="uniform")
    posterior = weigh(lists.found, labels, voting)
    votings = [
        replace(voting, decider="threshold", threshold=(0.2, 0.6)[i % 2])
        for i in range(len(posterior))
    ]
    mixed = choose_by_image(posterior, votings)
    for i in range(2):
        alone = choose_concepts(posterior, votings[i])
        assert [d.cuis for d in mixed[i::2]] == [d.cuis for d in alone[i::2]]


def test_guarantees_as_text() -> None:
    assert Guarantee.parse("missed=0.10") == Guarantee("missed", 0.1)
    assert str(Guarantee("invented", 0.05)) == "invented=0.05"


@pytest.mark.parametrize("text", ["missed", "missed=", "lost=0.1", "missed=0", "missed=1", "=nan"])
def test_what_is_no_guarantee(text: str) -> None:
    with pytest.raises(ValueError, match="is no guarantee"):
        Guarantee.parse(text)
