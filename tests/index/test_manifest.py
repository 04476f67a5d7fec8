"""Damage to an index on disk: whatever it is, it is found, named, and never believed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from versions import version_folder

from index import LabelTable, open_index
from index.folder.location import FolderLocation
from index.segments import Segment
from tests.index.indexes import facts, problem, publish, replace_file, rewrite, unit

N, DIM = 7, 5


def build(directory: Path, seed: int = 0) -> None:
    publish(
        directory,
        unit(N, DIM, seed),
        concepts=[["C2", "C1"], [], ["C3"], ["C1"], ["C10", "C3"], ["C2"], []],
        names={"C1": "Röntgen"},
        columns={"captions": [f"caption {i}" for i in range(N)]},
        about={"voting": {"k": 3}},
        arrays={"map": np.arange(6, dtype=np.float32).reshape(2, 3)},
    )


@pytest.fixture
def built(tmp_path: Path) -> Path:
    build(tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pristine") / "index"
    build(directory)
    return directory


PARTS = [
    "manifest.json",
    "vectors.npy",
    "labels.indptr.npy",
    "labels.indices.npy",
    "cuis.tsv",
    "ids.txt",
    "captions.jsonl",
    "map.npy",
]


def place(directory: Path, name: str) -> Path:
    return directory / name if name == "current" else version_folder(directory) / name


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.sampled_from([*PARTS, "current"]), where=st.floats(0, 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(pristine: Path, name: str, where: float, bit: int) -> None:
    path = place(pristine, name)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[int(where * (len(whole) - 1))] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        message = problem(pristine)
    finally:
        path.write_bytes(whole)
    # A bit in the digest that `current` holds makes the manifest the one that does not fit.
    assert name in message or (name == "current" and "manifest.json" in message)


@pytest.mark.parametrize("name", [*PARTS, "current"])
def test_any_damaged_file_is_named(pristine: Path, name: str) -> None:
    path = place(pristine, name)
    whole = path.read_bytes()
    for data in (None, whole[:-1], whole + b"\n", b""):
        path.unlink() if data is None else path.write_bytes(data)
        assert name in problem(pristine)
    path.unlink()
    path.mkdir()
    assert name in problem(pristine)
    path.rmdir()
    path.write_bytes(whole)
    open_index(pristine)


def test_files_of_another_version_are_found(built: Path) -> None:
    build(built, seed=1)
    shutil.copy(version_folder(built) / "vectors.npy", version_folder(built, 2) / "vectors.npy")
    assert "vectors.npy has changed" in problem(built)


def test_an_extra_file_is_found(built: Path) -> None:
    (version_folder(built) / "notes.txt").write_text("")
    assert "notes.txt does not belong there" in problem(built)


@pytest.mark.parametrize(
    "text",
    [b"\xff\xfe\x00", b"v000002 " + b"0" * 64, b"../other " + b"0" * 64, b"v000001 abc"],
)
def test_a_garbled_pointer_is_found(built: Path, text: bytes) -> None:
    (built / "current").write_bytes(text)
    assert str(built / "current") in problem(built)


def test_an_edited_manifest_is_found(built: Path) -> None:
    path = version_folder(built) / "manifest.json"
    path.write_text(path.read_text().replace('"k": 3', '"k": 4'))
    assert "not the manifest that was published" in problem(built)


def test_a_format_from_the_future_says_so(built: Path) -> None:
    rewrite(built, lambda m: {"format": 99, "libraries": {"annotator": "7.0"}})
    message = problem(built)
    assert "format 99" in message and "newer one" in message and "7.0" in message


def with_file(name: str, facts: Any) -> Callable[[Any], Any]:
    return lambda m: m | {"files": m["files"] | {name: facts}}


def with_other(key: str, name: str, suffix: str) -> Callable[[Any], Any]:
    """A column or an array more, and its file."""

    def change(m: Any) -> Any:
        return with_file(f"{name}.{suffix}", FACTS)(m | {key: [*m[key], name]})

    return change


FACTS = facts(b"abc")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: [], "not a JSON object"),
        (lambda m: {}, "no format number"),
        (lambda m: m | {"n": 6}, "rows do not add up"),
        (lambda m: m | {"dim": -1}, "its dim is not a positive whole number"),
        (lambda m: m | {"dim": 4}, "7 rows of 4 dimensions were expected"),
        (lambda m: m | {"metric": "l2"}, "metric 'l2'"),
        (lambda m: m | {"index_type": ["flat"]}, "does not know"),
        (lambda m: m | {"index_type": "ivf"}, "lists files other"),
        (lambda m: m | {"about": []}, "its about is not a JSON object"),
        (lambda m: m | {"columns": [["captions"]]}, "columns are not a list"),
        (lambda m: m | {"arrays": ["map", "map2"]}, "lists files other"),
        (with_file("../secret", FACTS), "lists files other"),
        (with_file("ids.txt", {"bytes": -1, "sha256": ""}), "size and sha256 of ids.txt"),
        (with_file("ids.txt", {"bytes": 3, "sha256": 3}), "size and sha256 of ids.txt"),
        (with_other("columns", "../secret", "jsonl"), "not a plain file name"),
        (with_other("arrays", "../secret", "npy"), "not a plain file name"),
    ],
)
def test_a_manifest_with_wrong_entries_is_refused(
    built: Path, change: Callable[[Any], Any], message: str
) -> None:
    (built / "secret").write_text("abc")
    rewrite(built, change)
    assert message in problem(built)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("vectors.npy", b"not a numpy file"),
        ("labels.indptr.npy", b"\x80\x04\x95pickle"),
        ("cuis.tsv", b"C1\t\nC1\t\nC2\t\nC3\t\n"),
        ("cuis.tsv", b"\xff\t\n"),
        ("ids.txt", b"a\nb\n"),
        ("ids.txt", b"a\n" * N),
        ("captions.jsonl", b"{\n" * N),
        ("map.npy", b"\x80\x04\x95pickle"),
    ],
)
def test_files_that_say_something_else_are_refused(built: Path, name: str, data: bytes) -> None:
    replace_file(built, name, data)
    assert str(built) in problem(built)


def test_arrays_of_objects_are_never_unpickled(built: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    for name in ("labels.indices.npy", "map.npy"):
        whole = (version_folder(built) / name).read_bytes()
        replace_file(built, name, (tmp_path / "trap.npy").read_bytes())
        assert "cannot be read" in problem(built)
        assert not (tmp_path / "sprung").exists()
        replace_file(built, name, whole)
    assert open_index(built).arrays["map"].shape == (2, 3)


# Rows that were added and removed


@pytest.fixture
def changed(built: Path) -> Path:
    """The index with two rows in a segment and two of nine removed."""
    rows = Segment(
        vectors=np.eye(2, DIM, dtype=np.float32),
        ids=["new-0", "new-1"],
        labels=LabelTable.from_sets([["C1"], ["C7"]]),
        names={"C7": "seven"},
        columns={"captions": ["a", "b"]},
        arrays={},
    )
    FolderLocation(built).add_rows(rows, of=version_folder(built).name)
    FolderLocation(built).remove_rows(["image-2", "new-0"])
    assert open_index(built).ids == ("image-0", "image-1", *(f"image-{i}" for i in (3, 4, 5, 6)),
                                     "new-1")  # fmt: skip
    return built


ADDED = [
    f"added-000001.{name}"
    for name in ("vectors.npy", "labels.indptr.npy", "labels.indices.npy", "cuis.tsv", "ids.txt",
                 "captions.jsonl")
]  # fmt: skip


@pytest.mark.parametrize("name", [*ADDED, "removed.npy"])
def test_damaged_files_of_changes_are_named(changed: Path, name: str) -> None:
    path = version_folder(changed, 3) / name
    whole = path.read_bytes()
    for data in (None, whole[:-1], whole + b"\n", whole[:-1] + bytes([whole[-1] ^ 1])):
        path.unlink() if data is None else path.write_bytes(data)
        assert name in problem(changed)
    path.write_bytes(whole)
    open_index(changed)


def segment(**entries: Any) -> Callable[[Any], Any]:
    return lambda m: m | {"segments": [m["segments"][0] | entries]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m | {"segments": []}, "rows do not add up"),
        (lambda m: m | {"segments": None}, "segments"),
        (segment(prefix="../added-000001."), "no prefix"),
        (segment(rows=True), "rows are not positive whole numbers"),
        (segment(rows=3), "rows do not add up"),
        (segment(arrays=None), "arrays are not a list"),
        (segment(arrays=["../content"]), "lists files other"),
        (lambda m: m | {"rows": 6, "n": 6}, "7 ids"),
        (lambda m: m | {"removed": 0, "n": 9}, "lists files other"),
        (lambda m: m | {"removed": 1, "n": 8}, "removed rows is damaged"),
        (lambda m: m | {"removed": -2}, "rows are not positive whole numbers"),
        (lambda m: {k: v for k, v in m.items() if k != "removed"}, "rows are not positive"),
    ],
)
def test_a_manifest_with_wrong_entries_of_changes_is_refused(
    changed: Path, change: Callable[[Any], Any], message: str
) -> None:
    rewrite(changed, change)
    assert message in problem(changed)


@pytest.mark.parametrize(
    "rows",
    [
        np.array([2, 2]),
        np.array([7, 2]),
        np.array([2, 9]),
        np.array([2]),
        np.array([2, 7], np.int32),
        np.array([2.0, 7.0]),
        np.array([[2, 7]]),
        np.array(2),
    ],
    ids=repr,
)
def test_a_list_of_removed_rows_that_does_not_fit_is_refused(changed: Path, rows: Any) -> None:
    np.save(changed / "other.npy", rows)
    data = (changed / "other.npy").read_bytes()
    replace_file(changed, "removed.npy", data)
    assert "removed rows is damaged" in problem(changed)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("ids.txt", b"new-0\n"),
        ("ids.txt", b"new-0\nimage-0\n"),
        ("cuis.tsv", b"C7\t\nC1\t\n"),
        ("captions.jsonl", b'"a"\n'),
        ("captions.jsonl", b"{\n{\n"),
        ("vectors.npy", b"no array"),
        ("labels.indptr.npy", b"\x80\x04\x95pickle"),
    ],
)
def test_segments_that_say_something_else_are_refused(
    changed: Path, name: str, data: bytes
) -> None:
    replace_file(changed, f"added-000001.{name}", data)
    assert str(changed) in problem(changed)


def test_added_vectors_of_another_length_are_refused(changed: Path) -> None:
    np.save(changed / "other.npy", np.eye(2, DIM + 1, dtype=np.float32))
    replace_file(changed, "added-000001.vectors.npy", (changed / "other.npy").read_bytes())
    assert f"2 rows of {DIM} dimensions were expected" in problem(changed)
