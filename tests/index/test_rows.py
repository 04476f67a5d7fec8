"""Some images of an index: by their ids, and by a concept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import LabelTable, StoredIndex, open_index
from index.folder.location import FolderLocation
from tests.index.indexes import publish

N = 9
IDS = [f"i{n}" for n in range(N)]
CONCEPTS = [["C1"] if n % 3 else ["C2", "C3"] for n in range(N)]


@pytest.fixture(params=["whole", "with removed rows"])
def stored(tmp_path: Path, request: pytest.FixtureRequest) -> StoredIndex:
    parts = {"ids": IDS, "concepts": CONCEPTS}
    columns = {"captions": [f"Case {n}." for n in range(N)]}
    publish(tmp_path, np.eye(N, dtype=np.float32), columns=columns, **parts)
    if request.param != "whole":
        FolderLocation(tmp_path).remove_rows(["i0", "i4"])
    return open_index(tmp_path)


def test_by_ids(stored: StoredIndex) -> None:
    cases = stored.with_ids(["i7", "absent", "i2", "i3"])
    assert list(cases.ids) == ["i7", "i2", "i3"]
    assert [cases.labels.row(i) for i in range(3)] == [("C1",), ("C1",), ("C2", "C3")]
    assert list(cases.columns["captions"]) == ["Case 7.", "Case 2.", "Case 3."]
    assert cases.vectors(np.array([2, 0])).argmax(axis=1).tolist() == [3, 7]
    assert cases.thumbnail(0) is None
    assert list(stored.with_ids([]).ids) == []


def test_by_concept(stored: StoredIndex) -> None:
    expected = [id_ for id_ in stored.ids if int(id_[1:]) % 3 == 0]
    assert list(stored.with_concept("C3", 99).ids) == expected
    assert list(stored.with_concept("C3", 2).ids) == [expected[0], expected[-1]]
    assert list(stored.with_concept("C9", 99).ids) == []
    assert len(stored.with_concept("C1", 99).ids) == stored.concepts["C1"]


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from("ABCD"), max_size=4), max_size=9))
def test_holders(sets: list[list[str]]) -> None:
    labels = LabelTable.from_sets(sets)
    for cui in "ABCDE":
        assert labels.holders(cui).tolist() == [i for i, row in enumerate(sets) if cui in row]
