"""What is made of what a search brings along; no server is needed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from index import LabelTable
from index.milvus.index import found_labels, read_summary
from index.milvus.rows import SEPARATOR

SETS = st.lists(st.sets(st.sampled_from(["C1", "C10", "C2", "x y"])).map(sorted), max_size=8)


@given(SETS, SETS)
def test_labels_from_texts_are_those_of_a_table(
    sets: list[list[str]], all_: list[list[str]]
) -> None:
    found = found_labels([*map(SEPARATOR.join, sets)], [*map(SEPARATOR.join, all_)], {"C1": 7})
    table = LabelTable.from_sets([*sets, *all_])
    assert found.cuis == table.cuis
    assert found.indptr.tolist() == table.indptr.tolist()
    assert found.indices.tolist() == table.indices.tolist()
    assert found.sample.tolist() == [*range(len(sets), len(sets) + len(all_))]
    assert found.frequencies.tolist() == [7 if cui == "C1" else 0 for cui in table.cuis]


def test_a_summary() -> None:
    assert read_summary("12") == (12, "")
    assert read_summary("0;C1;C2") == (0, "C1;C2")
