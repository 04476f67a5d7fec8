"""The table of concepts: what goes in comes out, and nothing damaged gets in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import IndexProblem, LabelTable

cui_sets = st.lists(st.lists(st.sampled_from(["C1", "C10", "C2", "C30", "C4"]), max_size=6))


@given(cui_sets)
def test_what_goes_in_comes_out(sets: list[list[str]]) -> None:
    table = LabelTable.from_sets(sets)
    assert len(table) == len(sets)
    assert [table.row(i) for i in range(len(sets))] == [tuple(sorted(set(s))) for s in sets]
    assert table.cuis == tuple(sorted({cui for s in sets for cui in s}))
    assert table.sizes.tolist() == [len(set(s)) for s in sets]
    assert table.frequencies.tolist() == [sum(cui in s for s in sets) for cui in table.cuis]


@given(cui_sets, st.permutations(["C1", "C10", "C2", "C30", "C4"]))
def test_ranks_are_by_frequency_then_rows_whatever_the_ids(
    sets: list[list[str]], others: list[str]
) -> None:
    labels = LabelTable.from_sets(sets)
    ranked = [cui for _, cui in sorted(zip(labels.ranks.tolist(), labels.cuis, strict=True))]
    rows = {cui: labels.holders(cui).tolist() for cui in labels.cuis}
    assert ranked == sorted(rows, key=lambda cui: (-len(rows[cui]), rows[cui], cui))
    renamed = dict(zip(["C1", "C10", "C2", "C30", "C4"], others, strict=True))
    table = LabelTable.from_sets([[renamed[cui] for cui in row] for row in sets])
    in_rank = sorted(zip(table.ranks.tolist(), table.cuis, strict=True))
    assert [rows[cui] for cui in ranked] == [table.holders(cui).tolist() for _, cui in in_rank]


@given(cui_sets, st.sets(st.sampled_from(["C1", "C10", "C2", "C99"])))
def test_only_some_concepts(sets: list[list[str]], wanted: set[str]) -> None:
    only = LabelTable.from_sets(sets).only(wanted)
    assert [set(only.row(i)) for i in range(len(sets))] == [set(s) & wanted for s in sets]
    assert only.cuis == tuple(sorted(wanted & {cui for s in sets for cui in s}))


@given(cui_sets, st.sets(st.sampled_from(["C0", "C2", "C99"])))
def test_a_wider_vocabulary_changes_no_row(sets: list[list[str]], added: set[str]) -> None:
    narrow = LabelTable.from_sets(sets)
    wide = narrow.including(added)
    assert [wide.row(i) for i in range(len(sets))] == [narrow.row(i) for i in range(len(sets))]
    assert wide.cuis == tuple(sorted({*narrow.cuis, *added}))


def table(
    indptr: Sequence[int] = (0, 2, 2, 3),
    indices: Sequence[int] = (0, 2, 1),
    cuis: tuple[str, ...] = ("C1", "C2", "C3"),
) -> LabelTable:
    return LabelTable(np.array(indptr, np.int64), np.array(indices, np.int32), cuis)


def test_the_table_that_the_damaged_ones_derive_from_is_sound() -> None:
    assert [table().row(i) for i in range(3)] == [("C1", "C3"), (), ("C2",)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indptr": []}, "do not span"),
        ({"indptr": [0, 2, 2, 2]}, "do not span"),
        ({"indptr": [0, 2, 2, 4]}, "do not span"),
        ({"indptr": [0, 3, 2, 3]}, "decrease"),
        ({"indptr": [0, -1, 2, 3]}, "decrease"),
        ({"indices": [0, 3, 1]}, "outside its vocabulary"),
        ({"indices": [-1, 2, 1]}, "outside its vocabulary"),
        ({"cuis": ("C1", "C2", "C2")}, "vocabulary is not ascending"),
        ({"cuis": ("C2", "C1", "C3")}, "vocabulary is not ascending"),
        ({"indices": [2, 0, 1]}, "concepts are not ascending"),
    ],
)
def test_damage_is_refused(change: dict[str, Sequence[int]], message: str) -> None:
    with pytest.raises(IndexProblem, match=message):
        table(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("indptr", "indices"),
    [
        (np.array([0.0, 1.0]), np.array([0], np.int32)),
        (np.array([0, 1], np.int32), np.array([0], np.int32)),
        (np.array([0, 1]), np.array([0])),
        (np.array([[0, 1]]), np.array([0], np.int32)),
        (np.array([0, 1]), np.array([[0]], np.int32)),
    ],
)
def test_other_arrays_are_refused(indptr: np.ndarray, indices: np.ndarray) -> None:
    with pytest.raises(IndexProblem, match=r"int64\[n"):
        LabelTable(indptr, indices, ("C1",))


@given(st.lists(cui_sets, min_size=1, max_size=4))
def test_joined_tables_have_the_rows_of_all(parts: list[list[list[str]]]) -> None:
    found = LabelTable.joined([LabelTable.from_sets(part) for part in parts])
    expected = LabelTable.from_sets([row for part in parts for row in part])
    assert found.cuis == expected.cuis
    assert found.indptr.tolist() == expected.indptr.tolist()
    assert found.indices.tolist() == expected.indices.tolist()
    assert (found.indptr.dtype, found.indices.dtype) == (np.int64, np.int32)


@given(cui_sets, st.data())
def test_taken_rows_hold_their_concepts_and_the_vocabulary_no_others(
    sets: list[list[str]], data: st.DataObject
) -> None:
    some = st.lists(st.integers(0, len(sets) - 1)) if sets else st.just([])
    rows = data.draw(some)  # in any order, repeated
    found = LabelTable.from_sets(sets).take(np.array(rows, np.int64))
    expected = LabelTable.from_sets([sets[row] for row in rows])
    assert found.cuis == expected.cuis
    assert found.indptr.tolist() == expected.indptr.tolist()
    assert found.indices.tolist() == expected.indices.tolist()


@given(cui_sets, st.dictionaries(st.sampled_from(["C1", "C10", "C2"]), st.just({"C30", "C5"})))
def test_closed_over_ancestors(sets: list[list[str]], above: dict[str, set[str]]) -> None:
    table = LabelTable.from_sets(sets)
    closed = table.closed(lambda cui: above.get(cui, set()))
    expected = [set(s).union(*(above.get(cui, ()) for cui in s)) for s in sets]
    assert [closed.row(i) for i in range(len(sets))] == [tuple(sorted(s)) for s in expected]
    assert closed.cuis == tuple(sorted(set().union(*expected)))


def test_a_large_table_is_closed_in_parts() -> None:
    table = LabelTable.from_sets([[f"C{i % 7}"] if i % 5 else [] for i in range(150_000)])
    closed = table.closed(lambda cui: {"C8"})
    assert closed.sizes.tolist() == [2 if i % 5 else 0 for i in range(150_000)]
    assert closed.row(149_999) == ("C3", "C8")


@settings(max_examples=60, deadline=None)
@given(
    sets=st.lists(st.sets(st.sampled_from("ABCDE")), min_size=1, max_size=8),
    changes=st.dictionaries(st.integers(0, 7), st.sets(st.sampled_from("ABXYZ")), max_size=4),
)
def test_replaced_rows_are_as_if_written_so(
    sets: list[set[str]], changes: dict[int, set[str]]
) -> None:
    changes = {row: cuis for row, cuis in changes.items() if row < len(sets)}
    expected = LabelTable.from_sets([changes.get(row, cuis) for row, cuis in enumerate(sets)])
    found = LabelTable.from_sets(sets).replaced(changes)
    assert found.cuis == expected.cuis
    assert found.indptr.tolist() == expected.indptr.tolist()
    assert found.indices.tolist() == expected.indices.tolist()
