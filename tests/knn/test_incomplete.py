"""Labels that neighbours fill in: what is filled in, and that no estimate sees its own labels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from annotator.errors import AnnotatorError
from annotator.knn import incomplete
from annotator.knn.cross_validation import leave_one_group_out
from annotator.knn.decision import choose_concepts
from annotator.knn.grid_search import choose_voting
from annotator.knn.incomplete import (
    FOLDS,
    filled_in,
    folds_of,
    infer_labels,
    infer_later,
    inferred_of,
    voters,
    with_filled_in,
)
from annotator.knn.posterior import weigh
from annotator.knn.voting import Voting
from index import FlatIndex, LabelTable
from index.rows import SearchResult

VOTING = Voting(k=20, beta=12.0)
N, KINDS = 300, 4


def drawn(n: int = N) -> tuple[NDArray[np.float32], list[list[str]], list[list[str]]]:
    """Vectors of some kinds, the two labels of each kind, and what is left of them."""
    rng = np.random.default_rng(0)
    kind = rng.integers(KINDS, size=n)
    vectors = np.eye(8)[kind] + rng.normal(0, 0.2, (n, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    whole = [[f"A{k}", f"B{k}"] for k in kind.tolist()]
    left = [[cui for cui in row if rng.random() < 0.6] for row in whole]
    return vectors.astype(np.float32), whole, left


def texts_of(vectors: NDArray[np.float32], labels: LabelTable, groups: Any = None) -> list[str]:
    n = len(labels)
    groups = np.arange(n) if groups is None else groups
    return infer_labels(lambda rows: vectors[rows], labels, groups, folds(n), VOTING)


def folds(n: int) -> NDArray[np.int64]:
    return folds_of([f"i{i}" for i in range(n)], None)


def test_neighbours_fill_in_what_is_missing_and_nothing_else() -> None:
    vectors, whole, left = drawn()
    labels = LabelTable.from_sets(left)
    filled = filled_in(labels, texts_of(vectors, labels))
    assert filled.cuis == labels.cuis
    rows = [(set(filled.row(i)), set(left[i]), set(whole[i])) for i in range(N)]
    assert all(given <= own for own, given, _ in rows)
    was_right = sum(own == true for own, _, true in rows)
    assert was_right > 0.9 * N > 2 * sum(given == true for _, given, true in rows)


def test_the_own_group_fills_in_nothing() -> None:
    """Two groups: each is filled in by the other, which knows nothing of its concept."""
    vectors = np.tile(np.eye(1, 4, dtype=np.float32), (40, 1))
    groups = np.repeat([0, 1], 20)
    labels = LabelTable.from_sets([["A"] if g == 0 else ["B"] for g in groups.tolist()])
    texts = texts_of(vectors, labels, groups)
    assert {tuple(inferred_of(text)) for text in texts[:20]} == {("B",)}
    assert {tuple(inferred_of(text)) for text in texts[20:]} == {("A",)}


def test_what_is_filled_in_without_a_fold_does_not_depend_on_its_labels() -> None:
    vectors, _, left = drawn()
    others = [["A0", "B3"] if fold == 2 else row for row, fold in zip(left, folds(N), strict=True)]
    tables = [LabelTable.from_sets(sets) for sets in (left, others)]
    assert tables[0].cuis == tables[1].cuis
    one, other = (texts_of(vectors, table) for table in tables)
    kept = np.flatnonzero(folds(N) != 2).tolist()
    assert [inferred_of(one[i], 2) for i in kept] == [inferred_of(other[i], 2) for i in kept]
    assert [inferred_of(one[i]) for i in kept] != [inferred_of(other[i]) for i in kept]


def test_an_image_is_annotated_by_what_was_filled_in_without_its_fold() -> None:
    vectors, _, left = drawn()
    labels = LabelTable.from_sets(left)
    texts = texts_of(vectors, labels)
    lists = leave_one_group_out(vectors, np.arange(N))
    filled_lists, versions = with_filled_in(lists, labels, texts, folds(N))
    assert [versions.row(row) for row in lists.queries.tolist()] == [tuple(row) for row in left]
    found = choose_concepts(weigh(filled_lists.found, versions, VOTING), VOTING)
    for fold in range(FOLDS):
        own = np.flatnonzero(folds(N) == fold)
        table = filled_in(labels, texts, fold)
        wanted = choose_concepts(weigh(lists.found.take(own), table, VOTING), VOTING)
        assert [set(found[i].cuis) for i in own.tolist()] == [set(one.cuis) for one in wanted]
    whole = filled_in(labels, texts)
    more = versions.including(["Z"])
    assert versions.frequencies.tolist() == whole.frequencies.tolist()
    assert more.frequencies.tolist() == [*whole.frequencies.tolist(), 0]
    assert versions.ranks.tolist() == whole.ranks.tolist()
    assert versions.sample.max() < N


def test_tuning_does_not_undo_it() -> None:
    vectors, _, left = drawn()
    labels = LabelTable.from_sets(left)
    lists = leave_one_group_out(vectors, np.arange(N))
    filled = with_filled_in(lists, labels, texts_of(vectors, labels), folds(N))
    tuned = choose_voting(*filled, start=Voting(assume_incomplete=True))
    assert tuned.voting.assume_incomplete
    assert (tuned.voting.decider, tuned.voting.prior) == ("expected-f1", 0.0)
    assert {tried["decider"] for tried in tuned.grid} == {"expected-f1"}


def test_rows_that_come_later_are_filled_in_by_the_index() -> None:
    vectors, whole, left = drawn()
    labels, half = LabelTable.from_sets(left), N // 2
    cases = SimpleNamespace(
        ids=[f"i{i}" for i in range(half)], labels=labels.take(np.arange(half)), columns={}
    )
    index = FlatIndex(vectors[:half])
    later = LabelTable.from_sets(left[half:])
    texts = infer_later(
        lambda queries, k: SearchResult(index.search(queries, k), cases),  # type: ignore[arg-type]
        vectors[half:], later, [""] * (N - half), [f"i{i}" for i in range(half, N)], VOTING,
    )  # fmt: skip
    rows = [set(row) for row in left[half:]]
    filled = [own | set(inferred_of(text)) for own, text in zip(rows, texts, strict=True)]
    assert np.mean([a == set(b) for a, b in zip(filled, whole[half:], strict=True)]) > 0.9
    assert all(inferred_of(text, fold) == inferred_of(text) for text in texts for fold in (0, 4))


def test_many_rows_are_dealt_to_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, whole, left = drawn()
    labels = LabelTable.from_sets(left)
    asked: list[int] = []

    def project(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        asked.append(len(rows))
        return vectors[rows]

    monkeypatch.setattr(incomplete, "_MOST_SEARCHED", 128)
    texts = infer_labels(project, labels, np.arange(N), folds(N), VOTING)
    assert asked == [100, 100, 100]
    filled = filled_in(labels, texts)
    assert np.mean([set(filled.row(i)) == set(whole[i]) for i in range(N)]) > 0.9


@settings(deadline=None)
@given(st.lists(st.tuples(st.sets(st.sampled_from("ABCDE")), st.dictionaries(
    st.sampled_from("ABCDE"), st.integers(1, 63)))))  # fmt: skip
def test_the_text_says_what_is_filled_in_without_each_fold(rows: Any) -> None:
    labels = LabelTable.from_sets([own for own, _ in rows], tuple("ABCDE"))
    texts = [incomplete._written(bits, sorted(own)) for own, bits in rows]
    for fold in range(FOLDS + 1):
        filled = filled_in(labels, texts, fold)
        wanted = [own | {c for c in bits if bits[c] >> fold & 1} for own, bits in rows]
        assert [set(filled.row(i)) for i in range(len(rows))] == wanted
    only = labels.only("AB")
    assert set(filled_in(only, texts).cuis) <= {"A", "B"}


def test_groups_share_a_fold_that_others_do_not_move() -> None:
    ids, groups = [f"i{i}" for i in range(60)], [f"g{i // 3}" for i in range(60)]
    found = folds_of(ids, groups)
    assert all(len(set(found[i : i + 3])) == 1 for i in range(0, 60, 3))
    assert sorted(set(found.tolist())) == list(range(FOLDS))
    assert folds_of(ids[30:], groups[30:]).tolist() == found[30:].tolist()
    assert folds_of(["x"], [""]).tolist() == folds_of(["x"], None).tolist()


def test_an_index_without_anything_filled_in_is_refused() -> None:
    vectors, _, left = drawn(60)
    labels = LabelTable.from_sets(left)
    lists = leave_one_group_out(vectors, np.arange(60))
    stored: Any = SimpleNamespace(columns={})
    assert voters(lists, labels, stored, Voting()) == (lists, labels)
    with pytest.raises(AnnotatorError, match="Nothing was filled in") as caught:
        voters(lists, labels, stored, Voting(assume_incomplete=True))
    assert "--assume-incomplete" in caught.value.hint
