"""Rows that come and go: after any history, an index is as one built of the rows that it has."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from versions import numbered, version_folder

from index import FlatIndex, IndexProblem, LabelTable, StoredIndex, open_index
from index.folder.location import FolderLocation
from index.folder.publish import only_writer
from index.manifest import check_files, read_manifest
from index.protocols import Changed
from index.search.build import KINDS
from index.segments import CONTENT, THUMBNAIL_ENDS, THUMBNAILS, Segment
from tests.index.indexes import files, publish

DIM = 24
ABOUT = {"embedder": {"name": "e"}, "voting": {"k": 3}}
ARRAYS = {"map": np.arange(6, dtype=np.float32).reshape(2, 3)}
BASE = {f"base-{i}": 0 for i in range(12)}


@pytest.fixture(scope="module", autouse=True)
def _without_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


# A row is known by its id and its edition: everything else follows from the two.
Model = Mapping[str, int]


def number(id_: str, edition: int) -> int:
    return zlib.crc32(f"{id_}/{edition}".encode())


def vector(id_: str, edition: int) -> np.ndarray:
    found = np.random.default_rng(number(id_, edition)).standard_normal(DIM)
    return (found / np.linalg.norm(found)).astype(np.float32)


def concepts(id_: str, edition: int) -> list[str]:
    bits = number(id_, edition)
    return [f"C{i}" for i in range(8) if bits >> i & 1]


def caption(id_: str, edition: int) -> str:
    return f"caption of {id_},\nedition {edition}"


def content(id_: str, edition: int) -> bytes:
    return hashlib.sha256(f"{id_}/{edition}".encode()).digest()


def picture(id_: str, edition: int) -> bytes:
    """Some rows have none."""
    return b"" if number(id_, edition) % 5 == 0 else f"picture of {id_}/{edition}".encode()


def rows_of(model: Model, **changes: Any) -> Segment:
    pictures = [picture(*row) for row in model.items()]
    arrays = {
        CONTENT: np.array([list(content(*row)) for row in model.items()], np.uint8),
        THUMBNAILS: np.frombuffer(b"".join(pictures), np.uint8),
        THUMBNAIL_ENDS: np.cumsum([len(p) for p in pictures]).astype(np.int64),
    }
    rows = Segment(
        vectors=np.stack([vector(*row) for row in model.items()]),
        ids=list(model),
        labels=LabelTable.from_sets([concepts(*row) for row in model.items()]),
        names={f"C{i}": f"name {i}" for i in range(6)},
        columns={"captions": [caption(*row) for row in model.items()]},
        arrays=arrays,
    )
    return replace(rows, **changes)


def build(directory: Path, model: Model = BASE, **options: Any) -> Path:
    rows = rows_of(model)
    parts = {
        "ids": rows.ids,
        "concepts": rows.labels,
        "names": rows.names,
        "columns": rows.columns,
        "about": ABOUT,
        "arrays": {**ARRAYS, **rows.arrays},
    }
    publish(directory, rows.vectors, **parts | options)
    return directory


def add(directory: Path, model: Model, *, over: bool = False, **changes: Any) -> Changed:
    version = read_manifest(directory).version
    return FolderLocation(directory).add_rows(rows_of(model, **changes), of=version, over=over)


def check(directory: Path, model: Model) -> StoredIndex:
    """The index holds the rows of `model`, each with all that belongs to it, and no others."""
    stored = open_index(directory, whole=True)
    assert check_files(directory / stored.version, stored.manifest) == []
    assert sorted(stored.ids) == sorted(model)
    assert len(stored.index) == len(stored.labels) == stored.manifest.n == len(model)
    rows = [(id_, model[id_]) for id_ in stored.ids]
    assert [stored.labels.row(i) for i in range(len(rows))] == [tuple(concepts(*r)) for r in rows]
    held = {cui for row in rows for cui in concepts(*row)}
    assert stored.labels.cuis == tuple(sorted(held))
    assert stored.names == {f"C{i}": f"name {i}" for i in range(6) if f"C{i}" in held}
    assert stored.columns == {"captions": tuple(caption(*row) for row in rows)}
    assert [stored.thumbnail(i) for i in range(len(rows))] == [picture(*r) or None for r in rows]
    assert [stored.content(i) for i in range(len(rows))] == [content(*r) for r in rows]
    vectors = np.stack([vector(*row) for row in rows])
    assert np.array_equal(stored.vectors(np.arange(len(rows))), vectors)
    assert np.array_equal(stored.arrays["map"], ARRAYS["map"])
    assert stored.manifest.about == ABOUT
    queries = np.stack([vector("query", i) for i in range(5)] + [vector(*rows[-1])])
    for k in (1, 7, len(rows) + 3):
        found = stored.index.search(queries, k)
        expected = FlatIndex(vectors).search(queries, k)
        assert np.array_equal(found.rows, expected.rows)
        assert np.array_equal(found.similarities, expected.similarities)
    return stored


@pytest.fixture
def built(tmp_path: Path) -> Path:
    return build(tmp_path / "index")


# What each change does


def plain(changed: Changed) -> Changed:
    """A change whose version is known by its number."""
    return replace(changed, version=numbered(changed.version))


def test_added_rows_are_there(built: Path) -> None:
    new = {"new-1": 0, "new-2": 0}
    assert plain(add(built, new)) == Changed("v000002", 14, added=2)
    stored = check(built, {**BASE, **new})
    assert stored.ids == (*BASE, *new)  # in the order in which they came
    assert [segment.rows for segment in stored.manifest.segments] == [2]
    assert stored.manifest.rows == 12 and stored.manifest.removed == 0


def test_removed_rows_are_not(built: Path) -> None:
    changed = FolderLocation(built).remove_rows(["base-3", "base-0"])
    assert plain(changed) == Changed("v000002", 10, removed=2)
    left = {id_: 0 for id_ in BASE if id_ not in ("base-3", "base-0")}
    stored = check(built, left)
    assert stored.ids == tuple(left)
    assert stored.renumber(np.array([[0, 1], [3, 4]])).tolist() == [[-1, 0], [-1, 2]]
    add(built, {"base-3": 1})
    check(built, {**left, "base-3": 1})


def test_a_replaced_row_is_there_once(built: Path) -> None:
    changed = add(built, {"base-3": 1, "new": 0}, over=True)
    assert plain(changed) == Changed("v000002", 13, added=2, removed=1)
    check(built, {**BASE, "base-3": 1, "new": 0})
    add(built, dict.fromkeys(BASE, 2), over=True)  # every row of the base may go
    check(built, {**dict.fromkeys(BASE, 2), "new": 0})
    FolderLocation(built).compact()
    check(built, {**dict.fromkeys(BASE, 2), "new": 0})
    build(built)  # an index that is built again forgets its changes
    assert check(built, BASE).manifest.segments == ()


def test_a_compacted_index_is_one_piece_with_the_bytes_of_a_fresh_one(
    built: Path, tmp_path: Path
) -> None:
    add(built, {"new-1": 0, "new-2": 0})
    FolderLocation(built).remove_rows(["base-3", "new-1"])
    assert plain(FolderLocation(built).compact()) == Changed("v000004", 12, removed=2)
    model = {id_: 0 for id_ in (*BASE, "new-2") if id_ != "base-3"}
    stored = check(built, model)
    fresh = open_index(build(tmp_path / "fresh", model))
    assert replace(stored.manifest, version=fresh.version) == fresh.manifest


def test_a_change_of_nothing_publishes_nothing(built: Path) -> None:
    before = files(built)
    assert plain(FolderLocation(built).remove_rows([])) == Changed("v000001", 12)
    unchanged = FolderLocation(built).remove_rows(["nobody"], missing_ok=True)
    assert plain(unchanged) == Changed("v000001", 12)
    assert plain(FolderLocation(built).compact()) == Changed("v000001", 12)
    assert files(built) == before


def test_columns_that_only_one_side_has(built: Path) -> None:
    add(built, {"new": 0}, columns={"groups": ["patient 1"]})
    stored = open_index(built)
    assert set(stored.columns) == {"captions"} and stored.columns["captions"][-1] == ""


def test_the_newest_name_of_a_concept_counts(built: Path) -> None:
    add(built, {"new": 0}, labels=LabelTable.from_sets([["C1", "X"]]), names={"C1": "so", "X": "x"})
    for _ in range(2):
        names = open_index(built).names
        assert (names["C1"], names["X"], names["C2"]) == ("so", "x", "name 2")
        FolderLocation(built).compact()


@pytest.mark.parametrize("with_pictures", [False, True])
def test_rows_without_pictures_and_content_keys_may_be_mixed_with_others(
    tmp_path: Path, with_pictures: bool
) -> None:
    build(tmp_path, arrays=rows_of(BASE).arrays if with_pictures else {})
    add(tmp_path, {"new": 0}, **({"arrays": {}} if with_pictures else {}))
    compacted = False
    while True:
        stored = open_index(tmp_path)
        for row, id_ in enumerate(stored.ids):
            has = (id_ == "new") != with_pictures
            assert stored.thumbnail(row) == ((picture(id_, 0) or None) if has else None)
            if not compacted:
                assert stored.content(row) == (content(id_, 0) if has else None)
        if compacted:
            break
        compacted = bool(FolderLocation(tmp_path).compact())
    # A key for some of the rows would say of the others that their images are no longer there.
    assert CONTENT not in stored.segments[0].arrays


def test_a_version_keeps_its_rows_while_the_index_changes(built: Path) -> None:
    add(built, {"new": 0})
    stored = open_index(built)
    before = stored.index.search(vector("new", 0)[None], 13)
    FolderLocation(built).remove_rows(["new", "base-1"])
    FolderLocation(built).compact()
    add(built, {"new": 7})
    after = stored.index.search(vector("new", 0)[None], 13)
    assert np.array_equal(before.rows, after.rows) and stored.ids[int(after.rows[0, 0])] == "new"
    assert stored.thumbnail(12) == (picture("new", 0) or None)


def test_what_the_index_says_of_itself_can_be_changed_between(built: Path) -> None:
    add(built, {"new": 0})
    FolderLocation(built).remove_rows(["base-0"])
    version = open_index(built).version
    version = FolderLocation(built).change_about({"voting": {"k": 9}}, of=version)
    assert numbered(version) == "v000004"
    assert numbered(FolderLocation(built).change_about(ABOUT, of=version)) == "v000005"
    check(built, {id_: 0 for id_ in (*BASE, "new") if id_ != "base-0"})


# Any history

IDS = st.sampled_from([*list(BASE)[:4], "a", "b", "c", "d", "e"])
STEPS = st.one_of(
    st.tuples(st.just("add"), st.lists(IDS, min_size=1, max_size=5, unique=True)),
    st.tuples(st.just("replace"), st.lists(IDS, min_size=1, max_size=5, unique=True)),
    st.tuples(st.just("remove"), st.lists(IDS, max_size=4, unique=True)),
    st.tuples(st.just("compact"), st.sampled_from([None, *KINDS, "auto"])),
)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEPS, max_size=10), kind=st.sampled_from(KINDS))
def test_any_history_gives_what_a_dict_would(steps: list[Any], kind: str) -> None:
    model = dict(BASE)
    with tempfile.TemporaryDirectory() as folder:
        directory = build(Path(folder) / "index", model, index_type=kind)
        for edition, (what, value) in enumerate(steps, 1):
            before = dict(model)
            if what == "compact":
                FolderLocation(directory).compact(index_type=value)
            elif what == "remove":
                model = {id_: e for id_, e in model.items() if id_ not in value}
                if model:
                    changed = FolderLocation(directory).remove_rows(value, missing_ok=True)
                    assert changed.removed == len(before) - len(model)
            elif what == "add" and set(value) & set(model):
                with pytest.raises(IndexProblem, match="in the index already"):
                    add(directory, dict.fromkeys(value, edition))
            else:
                model |= dict.fromkeys(value, edition)
                changed = add(directory, dict.fromkeys(value, edition), over=what == "replace")
                assert changed.added == len(value)
                assert changed.removed == len(set(value) & set(before))
            check(directory, model)
        assert len(list(directory.glob("v*"))) <= 2 and not list(directory.glob(".*"))


def test_the_same_history_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        directory = build(tmp_path / name)
        for i in range(4):
            add(directory, {f"new-{i}": 0, "base-2": i + 1}, over=True)
        FolderLocation(directory).remove_rows(["new-1", "base-5", "base-2"])
    assert files(tmp_path / "one") == files(tmp_path / "other")


# Refused, with the index as it was

NOTHING = {
    "vectors": np.zeros((0, DIM), np.float32),
    "ids": [],
    "labels": LabelTable.from_sets([]),
    "columns": {},
    "arrays": {},
}


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ({"base-3": 1, "base-1": 1, "new": 0}, {}, "2 of the 3 images .* such as base-1"),
        ({"a": 0, "b": 0}, {"ids": ["a", "a"]}, "ids repeat"),
        ({"a": 0}, {"ids": ["a\nb"]}, "holds a tab, a line break"),
        ({"a": 0}, {"ids": ["a", "b"]}, "1 vectors but 2 ids"),
        ({"a": 0}, {"vectors": np.eye(1, DIM - 1, dtype=np.float32)}, "23 dimensions.*has 24"),
        ({"a": 0}, {"vectors": np.eye(1, DIM, dtype=np.float32) * 2}, "row 0 has norm 2"),
        ({"a": 0}, {"vectors": np.eye(1, DIM)}, "must be float32"),
        ({"a": 0}, {"arrays": {CONTENT: np.zeros((2, 32), np.uint8)}}, "content keys do not fit"),
        ({"a": 0}, NOTHING, "at least one row"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    built: Path, model: Model, changes: dict[str, Any], message: str
) -> None:
    before = files(built)
    with pytest.raises(IndexProblem, match=message):
        add(built, model, **changes)
    assert files(built) == before and not list(built.glob(".*"))


def test_ids_that_are_not_there_are_refused(built: Path) -> None:
    before = files(built)
    with pytest.raises(
        IndexProblem, match=r"2 of the 3 images are not .* such as nobody"
    ) as caught:
        FolderLocation(built).remove_rows(["nobody", "base-1", "who"])
    assert "--missing-ok" in caught.value.hint
    assert files(built) == before
    assert FolderLocation(built).remove_rows(["nobody", "base-1"], missing_ok=True).removed == 1
    with pytest.raises(IndexProblem, match="such as base-1"):
        FolderLocation(built).remove_rows(["base-1"])  # it went before


def test_the_last_row_stays(built: Path) -> None:
    with pytest.raises(IndexProblem, match="No image would be left"):
        FolderLocation(built).remove_rows([*BASE])
    FolderLocation(built).remove_rows([*BASE][1:])
    with pytest.raises(IndexProblem, match="No image would be left") as caught:
        FolderLocation(built).remove_rows(["base-0", "nobody"], missing_ok=True)
    assert "Delete the folder" in caught.value.hint
    check(built, {"base-0": 0})


def test_a_version_that_is_not_current_any_more_is_refused(built: Path) -> None:
    rows, old = rows_of({"new": 0}), open_index(built).version
    FolderLocation(built).remove_rows(["base-0"])
    before = files(built)
    for change in (
        lambda: FolderLocation(built).add_rows(rows, of=old),
        lambda: FolderLocation(built).compact(of=old, arrays={}),
        lambda: FolderLocation(built).change_about({}, of=old),
    ):
        with pytest.raises(IndexProblem, match="has got a new version meanwhile") as caught:
            change()
        assert caught.value.hint == "Try again."
    assert files(built) == before


def changes_of(directory: Path, version: str) -> tuple[Callable[[], object], ...]:
    """Each change that an index can undergo."""
    location = FolderLocation(directory)
    return (
        lambda: location.add_rows(rows_of({"new": 0}), of=version),
        lambda: location.remove_rows(["base-0"]),
        lambda: location.compact(),
        lambda: location.change_about({}, of=version),
    )


def test_one_writer_at_a_time(built: Path) -> None:
    with only_writer(built):
        for change in changes_of(built, version_folder(built).name):
            with pytest.raises(IndexProblem, match="Another process is writing"):
                change()
        check(built, BASE)
    FolderLocation(built).remove_rows(["base-0"])


def test_places_without_an_index(tmp_path: Path) -> None:
    for place, message in ((tmp_path / "nowhere", "does not exist"), (tmp_path, "is no index")):
        for change in changes_of(place, "v000001"):
            with pytest.raises(IndexProblem, match=message):
                change()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_index_is_not_changed(built: Path) -> None:
    add(built, {"other": 0})
    (version_folder(built, 2) / "added-000001.ids.txt").write_bytes(b"wrong\n")
    for change in changes_of(built, version_folder(built, 2).name):
        with pytest.raises(IndexProblem, match=r"added-000001\.ids\.txt has changed"):
            change()
    assert numbered(read_manifest(built).version) == "v000002" and not list(
        built.glob(".writing-*")
    )


# What a change costs


def inodes(directory: Path, number: int) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in version_folder(directory, number).iterdir()}


def test_the_files_of_the_base_are_shared_and_never_copied(built: Path) -> None:
    base = {name: i for name, i in inodes(built, 1).items() if name != "manifest.json"}
    facts = read_manifest(built).files
    add(built, {"new": 0})
    FolderLocation(built).remove_rows(["base-0", "new"])
    add(built, {"other": 0, "base-1": 1}, over=True)
    for version in (3, 4):
        assert base.items() <= inodes(built, version).items()
    segment = {n: i for n, i in inodes(built, 4).items() if n.startswith("added-")}
    add(built, {"last": 0})  # and those of a segment that is not merged
    assert segment and segment.items() <= inodes(built, 5).items()
    assert [s.rows for s in read_manifest(built).segments] == [2, 1]
    assert facts.items() <= read_manifest(built).files.items()


def test_an_add_reads_the_base_once_at_most(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is checked on opening, as for every reader, and not described again for the manifest."""
    described: list[str] = []
    from index.folder import publish

    real = publish.describe_file
    monkeypatch.setattr(
        publish, "describe_file", lambda path: (described.append(path.name), real(path))[1]
    )
    add(built, {"new": 0})
    assert described and all(name.startswith("added-") for name in described)


@pytest.mark.slow
def test_a_hundred_adds_leave_few_segments(built: Path) -> None:
    for i in range(100):
        add(built, {f"new-{i}": 0})
        assert len(read_manifest(built).segments) <= 8
    check(built, {**BASE, **{f"new-{i}": 0 for i in range(100)}})
    sizes = [segment.rows for segment in read_manifest(built).segments]
    assert sorted(sizes, reverse=True) == sizes == [64, 32, 4]


def test_merging_drops_what_was_removed_of_added_rows(built: Path) -> None:
    add(built, {"a": 0})
    FolderLocation(built).remove_rows(["a", "base-0"])
    add(built, {"b": 0})
    stored = check(built, {id_: 0 for id_ in (*BASE, "b") if id_ != "base-0"})
    assert [s.rows for s in stored.manifest.segments] == [1]
    assert stored.manifest.removed == 1


# What was removed


@pytest.mark.parametrize("kind", KINDS)
def test_removed_rows_are_never_found_even_if_they_are_the_nearest(
    tmp_path: Path, kind: str
) -> None:
    """200 rows around the query go; the far ones that stay are found instead."""
    rng = np.random.default_rng(0)
    query = vector("query", 0)
    near = query + 0.02 * rng.standard_normal((200, DIM))
    far = -query + 0.3 * rng.standard_normal((200, DIM))
    vectors = np.concatenate([near, far]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    publish(tmp_path, vectors, index_type=kind, target_recall=1.0)
    FolderLocation(tmp_path).remove_rows([f"image-{i}" for i in range(200)])
    stored = open_index(tmp_path)
    queries = np.stack([query, -query])
    for k in (1, 50, 200, 1000):
        found = stored.index.search(queries, k)
        expected = FlatIndex(vectors[200:].copy()).search(queries, k)
        assert found.rows.shape == expected.rows.shape
        assert all(len(set(row)) == len(row) for row in found.rows.tolist())
        if kind in ("flat", "scan") or k >= 200:
            assert np.array_equal(found.rows, expected.rows)
        exact = np.take_along_axis(queries @ vectors[200:].T, found.rows, axis=1)
        assert np.abs(found.similarities - exact).max() < 1e-6


def traces(id_: str, edition: int) -> dict[str, bytes]:
    """Bytes by which a row could be recognised on disk."""
    return {
        "id": id_.encode(),
        "caption": f"caption of {id_},".encode(),
        "picture": picture(id_, edition),
        "content key": content(id_, edition),
        "vector": vector(id_, edition).tobytes(),
        "half of the vector": vector(id_, edition)[: DIM // 2].tobytes(),
    }


def found_on_disk(directory: Path, rows: Iterable[tuple[str, int]]) -> list[str]:
    everything = b"\0".join(files(directory).values())
    return [
        f"{what} of {row}"
        for row in rows
        for what, data in traces(*row).items()
        if data and data in everything
    ]


GONE: Sequence[tuple[str, int]] = [("gone-base", 0), ("gone-new", 0), ("gone-merged", 0)]


def with_removed(directory: Path, kind: str = "flat") -> dict[str, int]:
    """An index with rows removed from its base, from a segment, and in a merge; what is left."""
    assert all(picture(*row) for row in GONE)
    model = {**BASE, **dict([GONE[0]])}
    build(directory, model, index_type=kind)
    add(directory, dict([GONE[2]]))
    FolderLocation(directory).remove_rows(["gone-merged"])
    add(directory, {"a": 0, "b": 0, "c": 0})
    add(directory, dict([GONE[1]]))
    FolderLocation(directory).remove_rows(["gone-base", "gone-new"])
    return {**BASE, "a": 0, "b": 0, "c": 0}


@pytest.mark.parametrize("kind", ["scan", "compressed"])
def test_nothing_of_a_removed_row_is_on_disk_after_compacting(tmp_path: Path, kind: str) -> None:
    left = with_removed(tmp_path, kind)
    assert len(found_on_disk(tmp_path, GONE[:2])) == 2 * len(traces(*GONE[0]))  # the search works
    FolderLocation(tmp_path).compact()
    assert found_on_disk(tmp_path, GONE) == []
    assert len(found_on_disk(tmp_path, left.items())) > 5 * len(left)
    check(tmp_path, left)


def test_what_a_killed_compaction_leaves_is_removed_by_the_next(tmp_path: Path) -> None:
    left = with_removed(tmp_path / "index")
    old = open_index(tmp_path / "index").version
    shutil.copytree(tmp_path / "index", tmp_path / "before")
    FolderLocation(tmp_path / "index").compact()
    # As if it had been killed between publishing and removing, and a writer before it at work.
    shutil.copytree(tmp_path / "before" / old, tmp_path / "index" / old)
    shutil.copytree(tmp_path / "before" / old, tmp_path / "index" / ".writing-abc")
    shutil.copytree(tmp_path / "before" / old, tmp_path / "index" / "v000099")  # never named
    assert found_on_disk(tmp_path / "index", GONE)
    FolderLocation(tmp_path / "index").compact()
    assert found_on_disk(tmp_path / "index", GONE) == []
    assert len(list((tmp_path / "index").glob("v*"))) == 1
    check(tmp_path / "index", left)
