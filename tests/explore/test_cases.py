from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.explore.neighbours import Case, cases_of, left_out, nearest_others
from index import Neighbors, StoredIndex, VersionWriter, open_index
from index.cases import SearchResult

MakeIndex = Callable[..., StoredIndex]


def test_the_nearest_others(make_index: MakeIndex) -> None:
    stored = make_index([0, 1, 2, 50, 51, 90], [["C1"]] * 6, ["a", "a", "b", "b", "", ""])
    vectors = stored.vectors(np.arange(6))

    def found(ids: list[str], groups: list[str], k: int) -> list[list[str]]:
        (block,) = nearest_others(stored.find, vectors, ids, groups, k)
        return [[case.image_id for case in cases] for cases in cases_of(block)]

    nobody = [""] * 6
    assert found(nobody, nobody, 2)[0] == ["i0", "i1"]
    assert found(list(stored.ids), nobody, 2)[0] == ["i1", "i2"]
    groups = list(stored.columns["groups"])
    of_others = found(list(stored.ids), groups, 2)
    assert of_others[0] == ["i2", "i3"] and of_others[4] == ["i3", "i5"]
    # A group of its own name "" is none.
    assert of_others[5] == ["i4", "i3"]
    assert [len(cases) for cases in found(list(stored.ids), groups, 9)] == [4, 4, 4, 4, 5, 5]


def test_a_case_says_what_the_index_knows(make_index: MakeIndex) -> None:
    stored = make_index([0, 60], [["C2", "C1"], []])
    (cases,) = cases_of(stored.find(stored.vectors(np.array([0])), 2))
    assert cases[0] == Case("i0", pytest.approx(1), ("C1", "C2"), "Case 0.")
    assert cases[1] == Case("i1", pytest.approx(0.5), (), "Case 1.")


def test_a_search_looks_past_a_large_group(make_index: MakeIndex) -> None:
    n = 300
    groups = ["large"] * (n - 2) + ["", ""]
    stored = make_index(list(np.linspace(0, 90, n)), [["C1"]] * n, groups)
    asked: list[int] = []

    def find(vectors: np.ndarray, k: int) -> SearchResult:
        asked.append(k)
        return stored.find(vectors, k)

    vectors = stored.vectors(np.array([0]))
    (block,) = nearest_others(find, vectors, ["i0"], ["large"], 2)
    assert [c.image_id for c in cases_of(block)[0]] == ["i298", "i299"]
    assert asked == [22, 162, 1002]


rows = st.lists(st.integers(0, 9), min_size=6, max_size=6, unique=True)


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> StoredIndex:
    """Ten images in three groups."""
    folder = tmp_path_factory.mktemp("ten")
    with VersionWriter(folder) as writer:
        writer.add(np.eye(10, dtype=np.float32))
        groups = [f"g{i % 3}" if i % 4 else "" for i in range(10)]
        writer.publish(
            [f"i{n}" for n in range(10)], [["C1"]] * 10, names={}, columns={"groups": groups},
            about={},
        )  # fmt: skip
    return open_index(folder)


@settings(deadline=None)
@given(found=st.lists(rows, min_size=1, max_size=4), k=st.integers(1, 8), data=st.data())
def test_what_is_left_keeps_its_order(
    ten: StoredIndex, found: list[list[int]], k: int, data: st.DataObject
) -> None:
    groups = ten.columns["groups"]
    similarities = np.tile(np.linspace(0.9, 0.1, 6).astype(np.float32), (len(found), 1))
    names = data.draw(st.lists(st.sampled_from(["", *ten.ids]), min_size=len(found)))
    own = data.draw(st.lists(st.sampled_from(["", "g0", "g1"]), min_size=len(found)))
    names, own = names[: len(found)], own[: len(found)]
    result = left_out(SearchResult(Neighbors(np.array(found), similarities), ten), names, own, k)
    for i, cases in enumerate(cases_of(result)):
        expected = [
            f"i{row}"
            for row in found[i]
            if f"i{row}" != names[i] and not (own[i] and groups[row] == own[i])
        ]
        assert [case.image_id for case in cases] == expected[:k]
