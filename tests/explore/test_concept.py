from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.explore.concept import of_concept, shares_of
from annotator.knn.posterior import Posterior, count_votes
from annotator.knn.voting import Voting
from index import LabelTable, StoredIndex

MakeIndex = Callable[..., StoredIndex]
VOTING = Voting(k=3, beta=0)

sets = st.lists(st.lists(st.sampled_from("ABCD"), max_size=4), min_size=1, max_size=9)


@settings(deadline=None)
@given(sets, st.integers(1, 3), st.integers(1, 5), st.data())
def test_shares_are_those_of_the_vote(
    concepts: list[list[str]], q: int, k: int, data: st.DataObject
) -> None:
    labels = LabelTable.from_sets(concepts)
    row = st.integers(0, len(concepts) - 1)
    rows = data.draw(st.lists(st.lists(row, min_size=k, max_size=k), min_size=q, max_size=q))
    weights = np.array(
        data.draw(st.lists(st.lists(st.floats(0.01, 1), min_size=k, max_size=k), min_size=q,
                           max_size=q))
    )  # fmt: skip
    posterior = Posterior(np.array(rows), weights / weights.sum(axis=1, keepdims=True), labels)
    votes = count_votes(posterior)
    for cui in "ABCDE":
        expected = np.zeros(q)
        for image, concept, score in zip(
            votes.candidate_image, votes.candidate_cui, votes.scores, strict=True
        ):
            if labels.cuis[concept] == cui:
                expected[image] = score
        assert shares_of(posterior, cui) == pytest.approx(expected)


def test_exemplars_and_likely_errors(make_index: MakeIndex) -> None:
    # Five of C1 close together with one that was forgotten; five of C2 with one C1 that is wrong.
    angles = [0, 1, 2, 3, 4, 2.5, 80, 81, 82, 83, 84, 82.5]
    concepts = [["C1"]] * 5 + [["C3"]] + [["C2"]] * 5 + [["C1", "C2"]]
    found = of_concept(make_index(angles, concepts), VOTING, "C1")
    assert (found.cui, found.images, found.judged) == ("C1", 6, 6)
    assert {case.image_id for case in found.exemplars[:5]} == {f"i{n}" for n in range(5)}
    assert [case.score for case in found.exemplars] == sorted(
        (case.score for case in found.exemplars), reverse=True
    )
    assert [(c.image_id, c.score, c.cuis) for c in found.missing] == [
        ("i5", pytest.approx(1), ("C3",))
    ]
    assert [(c.image_id, c.score, c.caption) for c in found.wrong] == [("i11", 0, "Case 11.")]
    assert found.support == pytest.approx(np.mean([c.score for c in found.exemplars]))


def test_equal_shares_are_ordered_by_nearness(make_index: MakeIndex) -> None:
    found = of_concept(make_index([0, 10, 11, 12, 30], [["C1"]] * 5), VOTING, "C1", k=3)
    assert [case.score for case in found.exemplars] == pytest.approx([1, 1, 1])
    assert [case.image_id for case in found.exemplars] == ["i1", "i2", "i3"]
    assert (found.images, found.missing, found.wrong) == (5, (), ())


def test_an_image_is_not_judged_by_its_own_group(make_index: MakeIndex) -> None:
    angles = [0, 0.1, 0.2, 5, 6, 7, 40, 41]
    concepts = [["C1"], ["C1"], ["C1"], ["C2"], ["C2"], ["C2"], ["C1"], ["C1"]]
    groups = ["p"] * 3 + [""] * 5
    alone = of_concept(make_index(angles, concepts, groups), VOTING, "C1")
    shares = {case.image_id: case.score for case in alone.exemplars}
    assert [shares[f"i{n}"] for n in range(3)] == [0, 0, 0]
    together = of_concept(make_index(angles, concepts), VOTING, "C1")
    shares = {case.image_id: case.score for case in together.exemplars}
    assert all(shares[f"i{n}"] > 0.5 for n in range(3))


def test_a_rare_concept_is_not_called_wrong(make_index: MakeIndex) -> None:
    found = of_concept(make_index([0, 1, 2, 3, 4], [["C1"], *[["C2"]] * 4]), VOTING, "C1")
    assert [case.image_id for case in found.exemplars] == ["i0"]
    assert (found.support, found.missing, found.wrong) == (0, (), ())


@pytest.mark.parametrize("groups", [None, ["p"] * 3])
def test_images_that_nobody_speaks_about(make_index: MakeIndex, groups: list[str] | None) -> None:
    angles = [0, 1, 2] if groups else [0]
    found = of_concept(make_index(angles, [["C1"]] * len(angles), groups), VOTING, "C1")
    assert len(found.exemplars) == len(angles)
    assert all(case.score == 0 for case in found.exemplars)
    assert (found.support, found.missing, found.wrong) == (0, (), ())


def test_a_concept_that_the_index_has_not(make_index: MakeIndex) -> None:
    found = of_concept(make_index([0, 1], [["C1"], ["C2"]]), VOTING, "C9")
    assert (found.images, found.judged, found.exemplars) == (0, 0, ())


def test_of_many_images_some_are_judged(make_index: MakeIndex) -> None:
    n = 600
    concepts = [["C1"] if i % 2 else ["C2"] for i in range(n)]
    stored = make_index(list(np.linspace(0, 300, n)), concepts)
    found = of_concept(stored, Voting(k=5, beta=0), "C1", most=40, k=100)
    assert (found.images, found.judged, len(found.exemplars)) == (300, 40, 40)
    rows = sorted(int(case.image_id[1:]) for case in found.exemplars)
    assert rows[0] == 1 and rows[-1] == 599 and max(np.diff(rows)) < 20
