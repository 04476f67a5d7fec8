"""The index on disk: whole or not there, and never believed unchecked."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from versions import numbered, version_folder

from index import FlatIndex, IndexProblem, StoredIndex, VersionWriter, open_index
from index.manifest import FORMAT, number_of, read_manifest
from index.segments import THUMBNAIL_ENDS, THUMBNAILS
from tests.index import indexes
from tests.index.indexes import files, problem, publish, rewrite

Start = Callable[..., subprocess.Popen[str]]
N, DIM = 7, 5
IDS = [f"image-{i}" for i in range(N)]
CONCEPTS = [["C2", "C1"], [], ["C3"], ["C1"], ["C10", "C3"], ["C2"], []]
NAMES = {"C1": "Röntgen", "C3": "two\nlines\tand a tab", "C9": "not in the index"}
COLUMNS = {"captions": [f"caption {i}\nsecond line, “quoted”" for i in range(N)]}
ARRAYS: dict[str, np.ndarray] = {
    "map.matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "rows": np.array([[3, 1], [2, 0]], np.int32),
    "nothing": np.zeros((0, 4)),
}
ABOUT = {"embedder": {"name": "e", "sizes": [1, 2]}, "voting": {"k": 3}}


def unit(n: int = N, seed: int = 0) -> np.ndarray:
    return indexes.unit(n, DIM, seed)


def build(directory: Path, seed: int = 0, **changes: Any) -> str:
    parts: dict[str, Any] = {
        "ids": IDS,
        "concepts": CONCEPTS,
        "names": NAMES,
        "columns": COLUMNS,
        "about": ABOUT,
        "arrays": ARRAYS,
    }
    return publish(directory, unit(seed=seed), **parts | changes)


@pytest.fixture
def built(tmp_path: Path) -> Path:
    build(tmp_path / "index")
    return tmp_path / "index"


def test_what_was_published_is_opened(built: Path) -> None:
    stored = open_index(built)
    assert numbered(stored.version) == "v000001"
    assert stored.ids == tuple(IDS)
    assert [stored.labels.row(i) for i in range(N)] == [tuple(sorted(c)) for c in CONCEPTS]
    assert stored.names == {"C1": "Röntgen", "C3": "two lines and a tab"}
    assert stored.columns == {"captions": tuple(COLUMNS["captions"])}
    assert stored.manifest.about == ABOUT
    assert np.array_equal(np.load(version_folder(built) / "vectors.npy"), unit())
    found, expected = stored.index.search(unit(), 3), FlatIndex(unit()).search(unit(), 3)
    assert np.array_equal(found.rows, expected.rows)
    assert np.array_equal(found.similarities, expected.similarities)


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_arrays_come_back_read_only(
    built: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr("index.manifest.IN_MEMORY", in_memory)
    arrays = open_index(built).arrays
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert np.array_equal(arrays[name], array) and arrays[name].dtype == array.dtype
        assert isinstance(arrays[name], np.memmap) == (in_memory == 0)
        assert not arrays[name].flags.writeable
        assert np.array_equal(np.load(version_folder(built) / f"{name}.npy"), array)
    with pytest.raises(ValueError, match="read-only"):
        arrays["rows"][0, 0] = 9
    assert numbered(build(built, arrays={})) == "v000002"
    assert open_index(built).arrays == {}


def test_small_files_may_change_under_a_reader(built: Path) -> None:
    stored = open_index(built)
    for path in version_folder(built).iterdir():
        path.write_bytes(b"")
    assert stored.find(unit(), 1).neighbors.rows[:, 0].tolist() == list(range(N))


@pytest.mark.parametrize("change", ["truncated", "written over"])
def test_mapped_files_that_change_are_noticed(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Reading a mapped file behind its new end would kill the process."""
    monkeypatch.setattr("index.manifest.IN_MEMORY", 0)
    stored = open_index(built)
    path = version_folder(built) / "vectors.npy"
    build(tmp_path / "other", seed=1)
    renamed = tmp_path / "renamed.npy"
    renamed.write_bytes(path.read_bytes())
    renamed.replace(path)  # as by rsync: what is mapped stays
    assert stored.find(unit(), 1).neighbors.rows[:, 0].tolist() == list(range(N))
    stored = open_index(built)
    if change == "truncated":
        path.open("wb").close()
    else:
        path.write_bytes((version_folder(tmp_path / "other") / "vectors.npy").read_bytes())
    with pytest.raises(IndexProblem, match=r"vectors\.npy was written over while it was in use"):
        stored.find(unit(), 1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.jsonl", b"[" * 100_000 + b"\n" * N),
        ("vectors.npy", b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 117 + b"\n"),
        (
            "map.matrix.npy",
            b"\x93NUMPY\x01\x00\x76\x00"
            + b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 99), }".ljust(117)
            + b"\n",
        ),
        ("labels.indptr.npy", b""),
        ("ids.txt", b"\xff\xfe\n" * N),
    ],
)
def test_absurd_files_with_the_right_checksum(built: Path, name: str, content: bytes) -> None:
    indexes.replace_file(built, name, content)
    with pytest.raises(IndexProblem, match=version_folder(built).name):
        open_index(built)


def test_a_manifest_without_end(built: Path) -> None:
    text = "[" * 100_000
    (version_folder(built) / "manifest.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (built / "current").write_text(f"{version_folder(built).name} {digest}\n")
    with pytest.raises(IndexProblem, match="is not JSON"):
        open_index(built)


def test_an_index_of_format_1_opens(built: Path) -> None:
    """Format 1 had no arrays, and its manifest no entry for them."""
    build(built, arrays={}, columns={})
    rewrite(built, lambda m: {k: v for k, v in m.items() if k != "arrays"} | {"format": 1})
    stored = open_index(built)
    assert stored.ids == tuple(IDS) and stored.arrays == {}
    assert stored.manifest.format == 1
    assert numbered(build(built, arrays={}, columns={})) == "v000003"  # written in today's format
    assert open_index(built).manifest.format == FORMAT > 1


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    build(tmp_path / "a")
    build(tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert f"{version_folder(tmp_path / 'a').name}/vectors.npy" in files(tmp_path / "a")


def test_versions_have_the_same_name_only_if_they_hold_the_same(tmp_path: Path) -> None:
    same, other = build(tmp_path / "a"), build(tmp_path / "other", seed=1)
    assert build(tmp_path / "b") == same
    assert numbered(other) == numbered(same) and other != same
    # A name does not depend on what was there before, but for its number.
    build(tmp_path / "other")
    (again,) = (tmp_path / "other").glob("v000002-*")
    assert again.name.partition("-")[2] == same.partition("-")[2]


def test_another_index_copied_over_an_open_one_leaves_it_alone(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.manifest.IN_MEMORY", 0)
    stored = open_index(built)
    before = stored.find(unit(), 3).neighbors
    other = tmp_path / "other"
    build(other, seed=1)
    shutil.copytree(other, built, dirs_exist_ok=True)  # as `cp -r` does
    after = stored.find(unit(), 3).neighbors
    assert np.array_equal(before.similarities, after.similarities)
    assert open_index(built).version == open_index(other).version != stored.version
    build(built)  # what the copy has left behind is removed
    assert len(list(built.glob("v*"))) == 2


def test_a_version_without_a_digest_in_its_name_opens(built: Path) -> None:
    """Indexes were written so until versions of two builds could be told apart."""
    named = version_folder(built)
    named.rename(built / "v000001")
    pointer = built / "current"
    pointer.write_text(pointer.read_text().replace(named.name, "v000001"))
    assert open_index(built).version == "v000001"
    assert build(built) == "v000001"  # it is there already
    assert numbered(build(built, seed=1)) == "v000002"


def test_ids_may_be_any_printable_text(tmp_path: Path) -> None:
    ids = ["a b", "ü", "\u2028", "\x85", "x\x0by", "1.2.840", ""]
    build(tmp_path, ids=ids)
    assert open_index(tmp_path).ids == tuple(ids)


def test_nothing_is_visible_before_publishing_and_after_an_exception(built: Path) -> None:
    before = files(built)
    with pytest.raises(KeyboardInterrupt), VersionWriter(built) as writer:
        writer.add(unit(seed=1))
        assert numbered(open_index(built).version) == "v000001"
        raise KeyboardInterrupt
    with VersionWriter(built) as writer:
        writer.add(unit(seed=1))
    assert files(built) == before
    assert not list(built.glob(".writing-*"))


def test_a_first_build_that_fails_leaves_no_index(tmp_path: Path) -> None:
    with pytest.raises(IndexProblem), VersionWriter(tmp_path / "index") as writer:
        writer.add(unit() * 2)
    assert "has no file `current`" in problem(tmp_path / "index")
    assert numbered(build(tmp_path / "index")) == "v000001"


def test_one_writer_at_a_time_while_readers_read(built: Path) -> None:
    with VersionWriter(built):
        with pytest.raises(IndexProblem, match="Another process is writing"):
            build(built)
        assert open_index(built).ids == tuple(IDS)
    assert numbered(build(built, seed=1)) == "v000002"


def test_a_reader_keeps_its_version_while_two_more_are_published(built: Path) -> None:
    stored = open_index(built)
    before = stored.index.search(unit(), N)
    build(built, seed=1)
    build(built, seed=2)
    after = stored.index.search(unit(), N)
    assert np.array_equal(before.rows, after.rows)
    assert np.array_equal(before.similarities, after.similarities)
    assert numbered(open_index(built).version) == "v000003"


def test_the_version_before_is_kept_and_older_ones_are_not(built: Path) -> None:
    (built / "v000009").mkdir()  # renamed by a writer that was killed before it was named
    for seed in (1, 2):
        build(built, seed=seed)
    assert sorted(numbered(path.name) for path in built.glob("v*")) == ["v000010", "v000011"]


def test_what_is_there_already_is_not_published_again(built: Path) -> None:
    before = files(built)
    assert numbered(build(built)) == "v000001"
    assert files(built) == before
    assert not list(built.glob(".writing-*"))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"ids": [*IDS[:-1], "other"]},
        {"concepts": [*CONCEPTS[:-1], ["C1"]]},
        {"names": {}},
        {"columns": COLUMNS | {"groups": ["p"] * N}},
        {"about": ABOUT | {"voting": {"k": 4}}},
        {"arrays": ARRAYS | {"rows": np.array([[3, 1], [2, 1]], np.int32)}},
        {"arrays": ARRAYS | {"rows": np.array([[3, 1], [2, 0]], np.int64)}},
    ],
)
def test_whatever_differs_is_a_new_version(built: Path, change: dict[str, Any]) -> None:
    assert numbered(build(built, **change)) == "v000002"
    assert numbered(open_index(built).version) == "v000002"


def test_what_is_there_but_damaged_is_published_again(built: Path) -> None:
    (version_folder(built) / "ids.txt").unlink()
    assert numbered(build(built)) == "v000002"
    assert open_index(built).ids == tuple(IDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": IDS[1:]}, "7 vectors but 6 ids"),
        ({"concepts": [*CONCEPTS, []]}, "7 vectors but 8 concepts"),
        ({"columns": {"groups": ["a"]}}, "7 vectors but 1 groups"),
        ({"ids": [*IDS[1:], IDS[1]]}, "ids repeat"),
        ({"ids": ["a\nb", *IDS[1:]]}, "image id 'a\\\\nb'"),
        ({"concepts": [["C1\tname"], *CONCEPTS[1:]]}, "CUI 'C1\\\\tname'"),
        ({"columns": {"../captions": IDS}}, "name of a column"),
        *(
            ({"arrays": {name: np.zeros(3)}}, "name of a column or an array")
            for name in ("../x", "", "é", "x" * 96, "vectors", "added-1")
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(IndexProblem, match=message):
        build(tmp_path / "index", **change)


def test_the_longest_name_can_be_opened(tmp_path: Path) -> None:
    name = "x" * 94
    build(tmp_path, arrays={name: np.ones(2)}, columns={name: IDS})
    stored = open_index(tmp_path)
    assert stored.arrays[name].tolist() == [1, 1] and stored.columns[name] == tuple(IDS)


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        build(tmp_path, arrays={"objects": np.array([{}], object)})
    assert "has no file `current`" in problem(tmp_path)


def test_an_index_without_rows_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(IndexProblem, match="at least one vector"),
        VersionWriter(tmp_path) as writer,
    ):
        writer.publish([], [], names={}, columns={}, about={})


@pytest.mark.parametrize(
    "vectors", [unit() * 1.01, unit() * np.nan, unit()[:, 1:], unit().astype(np.float64)]
)
def test_vectors_that_cannot_be_compared_are_refused(tmp_path: Path, vectors: np.ndarray) -> None:
    with VersionWriter(tmp_path) as writer, pytest.raises(IndexProblem):
        writer.add(vectors)


def test_no_index_is_written_between_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(IndexProblem, match="not an index and not empty"):
        build(tmp_path)
    with pytest.raises(IndexProblem, match="is a file"):
        build(tmp_path / "thesis.txt")
    assert files(tmp_path) == {"thesis.txt": b"mine"}


def test_places_without_an_index(tmp_path: Path) -> None:
    assert "nowhere does not exist" in problem(tmp_path / "nowhere")
    assert "has no file `current`" in problem(tmp_path)
    (tmp_path / "file").write_text("")
    assert "is a file" in problem(tmp_path / "file")


# A writer that dies


def build_again_and_again(directory: Path) -> None:
    print("ready", flush=True)
    for seed in range(1, 1000):
        build(directory, seed=seed)


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_a_sound_index(tmp_path: Path, start: Start) -> None:
    directory = tmp_path / "index"
    build(directory)
    moments = random.Random(0)
    left_over = 0
    for _ in range(12):
        before = number_of(read_manifest(directory).version)
        with start(__file__, "build_again_and_again", directory) as writer:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
            time.sleep(moments.uniform(0, 0.05))
            writer.kill()
            assert writer.wait() == -signal.SIGKILL
        stored = open_index(directory)
        assert number_of(stored.version) >= before
        assert stored.ids == tuple(IDS)
        left_over += len(list(directory.glob(".writing-*")))
    assert left_over > 0, "the writer was never killed at work"
    build(directory, seed=5000)
    assert not list(directory.glob(".writing-*"))
    assert len(list(directory.glob("v*"))) <= 2


def with_pictures(directory: Path, pictures: list[bytes]) -> StoredIndex:
    arrays = {
        THUMBNAILS: np.frombuffer(b"".join(pictures), np.uint8),
        THUMBNAIL_ENDS: np.cumsum([len(p) for p in pictures]).astype(np.int64),
    }
    publish(directory, np.eye(len(pictures), dtype=np.float32), arrays=arrays)
    return open_index(directory)


def test_each_row_has_its_own_picture(tmp_path: Path) -> None:
    stored = with_pictures(tmp_path, [b"first", b"", b"third"])
    assert stored.has_thumbnails
    assert [stored.thumbnail(row) for row in range(3)] == [b"first", None, b"third"]


@pytest.mark.parametrize(
    "ends", [[5, 5, 11], [5, 4, 10], [-1, 5, 10], [5, 10]], ids=["long", "back", "below", "few"]
)
def test_pictures_that_do_not_fit_the_rows_are_refused(tmp_path: Path, ends: list[int]) -> None:
    arrays = {THUMBNAILS: np.zeros(10, np.uint8), THUMBNAIL_ENDS: np.array(ends, np.int64)}
    publish(tmp_path, np.eye(3, dtype=np.float32), arrays=arrays)
    assert "small pictures do not fit" in problem(tmp_path)
