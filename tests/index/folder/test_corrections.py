"""Corrections of labels: what is published, kept and forgotten, and the journal before that."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from versions import numbered, version_folder

from index import IndexProblem, StoredIndex, open_index
from index.corrections import Correction, NewRow
from index.folder.journal import JOURNAL, Journal
from index.folder.location import FolderLocation
from index.folder.store import corrected
from index.manifest import HISTORY, read_manifest
from index.segments import CONTENT, THUMBNAIL_ENDS, THUMBNAILS
from tests.index.indexes import files, publish, unit

DIM = 24
N = 6
AT = "2026-11-30T12:00:00Z"
Model = dict[str, tuple[str, ...]]


@pytest.fixture(scope="module", autouse=True)
def _without_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(os, "fdatasync", lambda _: None)
        yield


def built(directory: Path) -> FolderLocation:
    publish(
        directory,
        unit(N, DIM),
        concepts=[["C1", f"C{i}"] for i in range(N)],
        names={"C1": "one"},
        columns={"captions": [f"caption {i}" for i in range(N)]},
        arrays={CONTENT: np.zeros((N, 32), np.uint8)},
    )
    return FolderLocation(directory)


@pytest.fixture
def place(tmp_path: Path) -> FolderLocation:
    return built(tmp_path / "index")


def row(seed: int) -> NewRow:
    return NewRow(unit(1, DIM, 100 + seed)[0], bytes([seed % 256]) * 32, b"", {"captions": "new"})


def relabel(number: int, id_: str, *cuis: str, reason: str = "") -> Correction:
    return Correction(number, id_, ("C1",), cuis, "me", AT, reason)


def model_of(stored: StoredIndex) -> Model:
    return {id_: stored.labels.row(i) for i, id_ in enumerate(stored.ids)}


def test_labels_change_and_nothing_else(place: FolderLocation) -> None:
    before = place.open()
    changed = place.correct([relabel(1, "image-2", "C1", "X"), relabel(2, "image-4")])
    assert (numbered(changed.version), changed.rows, changed.added, changed.removed) == (
        "v000002",
        6,
        0,
        0,
    )
    after = place.open()
    assert model_of(after) == {**model_of(before), "image-2": ("C1", "X"), "image-4": ()}
    assert (after.ids, after.columns) == (before.ids, before.columns)
    assert dict(after.concepts) == {"C0": 1, "C1": 5, "C3": 1, "C5": 1, "X": 1}
    assert after.names == {"C1": "one"}
    vectors = version_folder(place.folder, 2) / "vectors.npy"
    assert vectors.samefile(version_folder(place.folder) / "vectors.npy")
    assert place.history() == [relabel(1, "image-2", "C1", "X"), relabel(2, "image-4")]
    assert place.problems() == []


def test_the_same_corrections_twice_count_once(place: FolderLocation) -> None:
    some = [relabel(1, "image-2", "X"), relabel(2, "image-3", "Y")]
    place.correct(some)
    before = files(place.folder)
    assert numbered(place.correct(some).version) == "v000002"
    assert files(place.folder) == before
    assert numbered(place.correct([*some, relabel(3, "image-2", "Z")]).version) == "v000003"
    assert [one.number for one in place.history()] == [1, 2, 3]


def test_a_name_that_a_correction_brings(place: FolderLocation) -> None:
    place.correct([replace(relabel(1, "image-2", "SHADOW"), names={"SHADOW": "Shadow"})])
    assert place.open().names == {"C1": "one", "SHADOW": "Shadow"}
    assert place.history()[0].names == {"SHADOW": "Shadow"}


def test_a_new_image_comes_with_its_picture(tmp_path: Path) -> None:
    pictures = {THUMBNAILS: np.full(N, 7, np.uint8), THUMBNAIL_ENDS: np.arange(1, N + 1)}
    publish(tmp_path, unit(N, DIM), concepts=[["C1"]] * N, arrays=pictures)
    place = FolderLocation(tmp_path)
    new = [
        Correction(1, "a", None, ("C2",), "me", AT, row=replace(row(1), thumbnail=b"jpeg")),
        Correction(2, "b", None, (), "me", AT, row=row(2)),
    ]
    shown = corrected(place.open(), new)
    place.correct(new)
    for stored in (shown, place.open()):
        assert stored.thumbnail_of("a") == b"jpeg" and stored.thumbnail_of("b") is None
        assert stored.thumbnail_of("image-3") == b"\7"
        assert stored.content(N) == bytes([1]) * 32
    assert place.problems() == []


@pytest.mark.parametrize("cui", ["a\tb", "a\nb"])
def test_a_concept_that_cannot_be_written_changes_nothing(place: FolderLocation, cui: str) -> None:
    before = files(place.folder)
    with pytest.raises(IndexProblem, match="holds a tab"):
        place.correct([relabel(1, "image-2", cui)])
    assert files(place.folder) == before


def test_the_last_image_stays(place: FolderLocation) -> None:
    gone = [Correction(i + 1, f"image-{i}", ("C1",), None, "me", AT) for i in range(N)]
    with pytest.raises(IndexProblem, match="No image would be left"):
        place.correct(gone)
    place.correct(gone[:-1])
    assert place.open().ids == ("image-5",)


def test_a_version_that_is_not_current_any_more_is_refused(place: FolderLocation) -> None:
    before = place.manifest().version
    place.correct([relabel(1, "image-2", "X")], of=before)
    with pytest.raises(IndexProblem, match="new version meanwhile"):
        place.correct([relabel(2, "image-2", "Y")], of=before)


# What becomes of the history


def test_the_history_outlives_other_changes(place: FolderLocation) -> None:
    place.correct([relabel(1, "image-2", "X"), relabel(2, "image-3", "Y")])
    history = place.history()
    place.remove_rows(["image-0"])
    place.change_about({"other": 1}, of=place.manifest().version)
    assert place.history() == history
    place.compact()
    assert place.history() == history
    assert model_of(place.open())["image-2"] == ("X",)


def test_compacting_forgets_the_corrections_of_removed_images(place: FolderLocation) -> None:
    place.correct([relabel(1, "image-2", "X"), relabel(2, "image-3", "Y")])
    place.remove_rows(["image-3"])
    place.compact()
    assert [one.image_id for one in place.history()] == ["image-2"]
    assert not any(b"image-3" in data for data in files(place.folder).values())
    place.remove_rows(["image-2"])
    place.compact()
    assert place.history() == [] and place.problems() == []
    place.correct([relabel(2, "image-1", "Z")])  # a number that was used before
    assert place.history() == []
    place.correct([relabel(3, "image-1", "Z")])
    assert [one.number for one in place.history()] == [3]


def test_a_new_build_keeps_the_history_of_its_images(place: FolderLocation) -> None:
    place.correct([relabel(1, "image-2", "X"), relabel(2, "image-3", "Y")])
    publish(place.folder, unit(3, DIM))
    assert [one.image_id for one in place.history()] == ["image-2"]
    assert place.manifest().corrections == 2 and place.problems() == []


def test_a_damaged_history_is_named(place: FolderLocation) -> None:
    place.correct([relabel(1, "image-2", "X")])
    (version_folder(place.folder, 2) / HISTORY).write_text("{}\n")
    assert "history.jsonl" in place.problems()[0]


# Any corrections

IDS = st.sampled_from([*(f"image-{i}" for i in range(3)), "a", "b"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["relabel", "relabel", "remove", "add"]),
        IDS,
        st.lists(st.sampled_from(["C1", "C2", "X", "Y"]), unique=True).map(sorted).map(tuple),
    ),
    max_size=12,
)


def corrections_of(steps: list[tuple[str, str, tuple[str, ...]]], model: Model) -> list[Correction]:
    """The steps that are possible, as corrections; applies them to the model."""
    made: list[Correction] = []
    for what, id_, cuis in steps:
        if (what == "add") != (id_ not in model) or (what == "remove" and len(model) == 1):
            continue
        new = row(len(made)) if what == "add" else None
        after = None if what == "remove" else cuis
        before = model.pop(id_, None) if after is None else model.get(id_)
        made.append(Correction(len(made) + 1, id_, before, after, "me", AT, row=new))
        if after is not None:
            model[id_] = after
    return made


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, cut=st.integers(0, 12), added_before=st.booleans())
def test_any_corrections_give_what_a_dict_would(
    steps: list[tuple[str, str, tuple[str, ...]]], cut: int, added_before: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = built(Path(folder) / "index")
        if added_before:  # so that there are several segments, and removed rows
            first = [
                Correction(1, "old", None, ("C1", "C9"), "me", AT, row=row(77)),
                Correction(2, "image-5", ("C1", "C5"), None, "me", AT),
            ]
            place.correct(first)
        start = place.manifest().corrections
        model = model_of(place.open())
        made = corrections_of(steps, model)
        made = [replace(one, number=one.number + start) for one in made]
        unpublished = corrected(place.open(), made)
        place.correct(made[:cut])
        again = corrected(place.open(), made[cut:])
        place.correct(made)
        published = place.open()
        queries = unit(4, DIM, 9)
        expected = published.index.search(queries, 5)
        for stored in (unpublished, again, published):
            assert model_of(stored) == model
            assert len(stored) == stored.manifest.n == len(model)
            assert stored.manifest.corrections == start + len(made)
            held = {cui for cuis in model.values() for cui in cuis}
            assert stored.labels.cuis == tuple(sorted(held))
            found = stored.index.search(queries, 5)
            assert np.array_equal(found.similarities, expected.similarities)
            ids = [[stored.ids[i] for i in near] for near in found.rows.tolist()]
            assert ids == [[published.ids[i] for i in near] for near in expected.rows.tolist()]
            rows = {one.image_id: one.row for one in made if one.row is not None}
            captions = dict(zip(stored.ids, stored.columns["captions"], strict=True))
            assert captions == {
                id_: "new" if id_ in rows or id_ == "old" else f"caption {id_[-1]}" for id_ in model
            }
        kept = [replace(one, row=None) for one in made]
        assert place.history()[-len(kept) :] == kept or not kept
        assert place.problems() == []


# The journal


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    some = [
        relabel(1, "a", "X", reason="ü\n"),
        Correction(2, "b", None, ("C1",), "me", AT, row=row(3)),
    ]
    with Journal(tmp_path) as journal:
        assert journal.left == []
        journal.append(some[:1])
        journal.append(some[1:])
    with Journal(tmp_path) as journal:
        assert journal.left[0] == some[0]
        (added,) = journal.left[1:]
        assert added.row is not None and some[1].row is not None
        assert np.array_equal(added.row.vector, some[1].row.vector)
        assert replace(added, row=None) == replace(some[1], row=None)
        journal.drop(1)
        journal.append([relabel(3, "c", "Z")])
    with Journal(tmp_path) as journal:
        assert [one.number for one in journal.left] == [2, 3]
        journal.drop(3)
    assert Journal.is_empty(tmp_path)


def test_a_line_that_was_cut_anywhere_is_cut_off(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append([relabel(1, "a", "X"), relabel(2, "b", "Y")])
    first = (tmp_path / JOURNAL).read_bytes()
    with Journal(tmp_path) as journal:
        journal.append([relabel(3, "c", "Z")])
    whole = (tmp_path / JOURNAL).read_bytes()
    for size in range(len(first), len(whole)):
        (tmp_path / JOURNAL).write_bytes(whole[:size])
        with Journal(tmp_path) as journal:
            assert [one.number for one in journal.left] == [1, 2]
        assert (tmp_path / JOURNAL).read_bytes() == first
    (tmp_path / JOURNAL).write_bytes(whole[:-20] + bytes(19) + b"\n")  # as after a power cut
    with Journal(tmp_path) as journal:
        assert [one.number for one in journal.left] == [1, 2]


def test_damage_before_the_last_line_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append([relabel(1, "a", "X")])
        journal.append([relabel(2, "b", "Y")])
    data = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(data.replace(b'"X"', b'"Z"'))
    with pytest.raises(IndexProblem, match="line 1 has changed"):
        Journal(tmp_path)
    assert (tmp_path / JOURNAL).read_bytes() != b""


def test_a_full_disk_leaves_the_journal_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(tmp_path) as journal:
        journal.append([relabel(1, "a", "X")])
        before = (tmp_path / JOURNAL).read_bytes()

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", full)
            with pytest.raises(OSError, match="No space"):
                journal.append([relabel(2, "b", "Y")])
        assert (tmp_path / JOURNAL).read_bytes() == before
        journal.append([relabel(3, "c", "Z")])
    with Journal(tmp_path) as journal:
        assert [one.number for one in journal.left] == [1, 3]


def test_what_a_killed_service_left_is_settled(place: FolderLocation) -> None:
    place.settle()
    assert numbered(read_manifest(place.folder).version) == "v000001"
    place.correct([relabel(1, "image-1", "X")])
    with Journal(place.folder) as journal:  # of which the first was published
        journal.append([relabel(1, "image-1", "X"), relabel(2, "image-2", "Y")])
    with place.hold(), pytest.raises(IndexProblem, match="Another process"):
        place.settle()
    place.settle()
    assert model_of(open_index(place.folder))["image-2"] == ("Y",)
    assert [one.number for one in place.history()] == [1, 2]
    assert Journal.is_empty(place.folder)


def test_one_writer_at_a_time(place: FolderLocation) -> None:
    with place.hold() as held:
        with pytest.raises(IndexProblem, match="Another process is writing"):
            place.correct([relabel(1, "image-1", "X")])
        held.correct([relabel(1, "image-1", "X")])
    place.correct([relabel(2, "image-1", "Y")])
    assert model_of(place.open())["image-1"] == ("Y",)
