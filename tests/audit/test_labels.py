from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.audit.inputs import AuditInput, AuditLabels
from annotator.audit.labels import (
    check_labels,
    expected_f1,
    find_label_issues,
    neighbors_within,
)
from annotator.encoders.fitted import Fitted
from annotator.images.ref import ImageRef
from annotator.knn.cross_validation import NeighborLists
from annotator.knn.posterior import Posterior
from annotator.knn.voting import Voting
from annotator.vectors.encoder import VectorEncoder
from index import LabelTable, Neighbors

SETS = st.lists(st.sampled_from("abcd"), max_size=4, unique=True)


@given(st.lists(SETS, min_size=3, max_size=6), st.lists(SETS, min_size=2, max_size=2))
def test_expected_f1_is_that_of_brute_force(known: list[list[str]], sets: list[list[str]]) -> None:
    rows = np.array([[0, 1, 2], [2, 0, 1]])
    weights = np.array([[0.5, 0.3, 0.2], [0.7, 0.2, 0.1]])
    posterior = Posterior(rows, weights, LabelTable.from_sets(known))

    def f1(a: list[str], b: list[str]) -> float:
        return 2 * len(set(a) & set(b)) / (len(a) + len(b)) if a or b else 1.0

    wanted = [
        sum(w * f1(own, known[row]) for w, row in zip(weights[i], rows[i], strict=True))
        for i, own in enumerate(sets)
    ]
    np.testing.assert_allclose(expected_f1(posterior, sets), wanted, atol=1e-12)


@pytest.fixture(scope="module")
def clusters() -> tuple[np.ndarray, list[tuple[str, ...]]]:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 32))
    of = np.arange(180) % 6
    vectors = centres[of] + 0.4 * rng.normal(size=(180, 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), [(f"C{k}", "C9") for k in of]


def test_swapped_concepts_are_the_most_doubtful(
    clusters: tuple[np.ndarray, list[tuple[str, ...]]],
) -> None:
    vectors, concepts = clusters
    wrong = list(concepts)
    for a, b in ((0, 1), (2, 3), (10, 17)):
        wrong[a], wrong[b] = wrong[b], wrong[a]
    groups = [f"g{i // 2}" for i in range(180)]
    lists = neighbors_within(vectors, wrong, groups, blocks=(32,))
    assert lists is not None and lists.queries.tolist() == list(range(180))
    issues = find_label_issues(lists, LabelTable.from_sets(wrong), wrong, Voting())
    assert {i.row for i in issues[:6]} == {0, 1, 2, 3, 10, 17}
    first = next(i for i in issues if i.row == 0)
    assert [c for c, _ in first.missing] == ["C0"] and [c for c, _ in first.unexpected] == ["C1"]
    assert first.missing[0][1] > 0.7 > 0.3 > first.unexpected[0][1]
    assert all(a.score >= b.score for a, b in pairwise(issues))


def test_sound_concepts_are_not_doubted(
    clusters: tuple[np.ndarray, list[tuple[str, ...]]],
) -> None:
    vectors, concepts = clusters
    lists = neighbors_within(vectors, concepts, [""] * 180, blocks=(32,))
    assert lists is not None
    assert find_label_issues(lists, LabelTable.from_sets(concepts), concepts, Voting()) == []


def test_too_few_images_are_not_judged(
    clusters: tuple[np.ndarray, list[tuple[str, ...]]],
) -> None:
    vectors, concepts = clusters
    assert neighbors_within(vectors[:49], concepts[:49], [""] * 49, blocks=(32,)) is None
    assert neighbors_within(vectors, concepts, ["one"] * 180, blocks=(32,)) is None


def test_the_least_score_is_inclusive() -> None:
    # Two neighbours of equal weight, {a} and {a, b}; the image has {b}.
    known = LabelTable.from_sets([("a",), ("a", "b")])
    neighbors = Neighbors(np.array([[0, 1]]), np.array([[0.5, 0.5]], np.float32))
    lists = NeighborLists(np.array([0]), neighbors)
    voting = Voting(k=2, kernel="uniform", prior=0)
    (issue,) = find_label_issues(lists, known, [("b",)], voting)
    # {a} and {a, b} earn 5/6 each, of which {a, b} does not miss b; {b} earns (0 + 2/3) / 2.
    assert issue.score == pytest.approx(5 / 6 - 1 / 3) and issue.missing == (("a", 1.0),)
    assert issue.unexpected in ((), (("b", 0.5),))
    at, above = issue.score, float(np.nextafter(issue.score, 1))
    assert find_label_issues(lists, known, [("b",)], voting, min_score=at) == [issue]
    assert find_label_issues(lists, known, [("b",)], voting, min_score=above) == []


def test_concepts_that_no_neighbour_knows_have_no_votes() -> None:
    known = LabelTable.from_sets([("a",)])
    lists = NeighborLists(np.array([0]), Neighbors(np.array([[0]]), np.array([[0.5]], np.float32)))
    (issue,) = find_label_issues(lists, known, [("z", "z")], Voting(k=1, prior=0))
    assert (issue.score, issue.missing, issue.unexpected) == (1.0, (("a", 1.0),), (("z", 0.0),))


def checked(
    vectors: np.ndarray, labels: AuditLabels, groups: list[str], embedder: Any = None
) -> tuple[list[str], list[str]]:
    embedder = embedder or VectorEncoder.own("own", vectors.shape[1])
    refs = [ImageRef(f"i{n:03d}", "", bytes) for n in range(len(vectors))]
    data = AuditInput(refs, vectors, np.zeros((len(refs), 64, 64), np.uint8), [], {})
    found, notes = check_labels(data, labels, groups, embedder, None)
    return [f.image_id for f in found], notes


def test_planted_wrong_labels_are_ranked_first_among_the_images_with_concepts(
    clusters: tuple[np.ndarray, list[tuple[str, ...]]],
) -> None:
    vectors, concepts = clusters
    sets = {f"i{n:03d}": c for n, c in enumerate(concepts) if n % 3}  # a third has none
    sets["i100"], sets["i101"] = sets["i101"], sets["i100"]
    found, notes = checked(vectors, AuditLabels(sets, {"C4": "four"}), [""] * 180)
    assert set(found[:2]) == {"i100", "i101"} and notes == []


def test_what_an_encoder_learnt_of_the_labels_does_not_defend_them(
    clusters: tuple[np.ndarray, list[tuple[str, ...]]],
) -> None:
    vectors, concepts = clusters[0], list(clusters[1])
    concepts[100], concepts[101] = concepts[101], concepts[100]
    sets = {f"i{n:03d}": c for n, c in enumerate(concepts)}
    names = sorted({c for row in concepts for c in row})
    learnt = np.array([[float(name in row) for name in names] for row in concepts]) + 0.01
    both = np.hstack([vectors, learnt / np.linalg.norm(learnt, axis=1, keepdims=True)])
    both = (both / np.sqrt(2)).astype(np.float32)
    none = np.zeros((1, len(names), 0), np.float32)
    fitted = Fitted(
        ((32, both.shape[1]),), (), none, none[:, 0], np.zeros((0, 16), np.uint8), np.zeros(0, "i2")
    )
    encoder = SimpleNamespace(blocks=(32, len(names)), fitted=fitted)
    found, _ = checked(both, AuditLabels(sets, {}), [""] * 180, encoder)
    assert set(found[:2]) == {"i100", "i101"}
    unguarded = SimpleNamespace(blocks=(32, len(names)), fitted=None)
    missed, _ = checked(both, AuditLabels(sets, {}), [""] * 180, unguarded)
    assert not {"i100", "i101"} & set(missed)


def test_what_cannot_be_checked_is_noted(
    clusters: tuple[np.ndarray, list[tuple[str, ...]]],
) -> None:
    vectors, concepts = clusters
    sets = {f"i{n:03d}": c for n, c in enumerate(concepts)}
    assert checked(vectors, AuditLabels(), [""] * 180) == ([], [])
    for labels, groups in (
        (AuditLabels({}), [""] * 180),
        (AuditLabels(dict(list(sets.items())[:49])), [""] * 180),
        (AuditLabels(sets), ["one"] * 180),
    ):
        found, (note,) = checked(vectors, labels, groups)
        assert found == [] and note.startswith("Concepts were not checked: that takes 50 images")
