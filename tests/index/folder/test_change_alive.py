"""Changes while readers read, and changes that are killed: nobody ever sees a wrong row.

Everything about a row follows from its id and edition, so whoever reads one can tell whether it is
right. This file is also the script of the processes that read and write.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from index import LabelTable, open_index
from index.folder.location import FolderLocation
from index.manifest import check_files, read_manifest
from index.search.build import KINDS
from index.segments import Segment
from tests.index.indexes import publish

DIM = 16
Start = Callable[..., subprocess.Popen[str]]
Model = Mapping[str, int]  # the edition of each id


def vector(id_: str, edition: int) -> np.ndarray:
    seed = zlib.crc32(f"{id_}/{edition}".encode())
    found = np.random.default_rng(seed).standard_normal(DIM)
    return (found / np.linalg.norm(found)).astype(np.float32)


def rows_of(model: Model) -> Segment:
    return Segment(
        vectors=np.stack([vector(*row) for row in model.items()]),
        ids=list(model),
        labels=LabelTable.from_sets([[f"C{id_}", f"E{e}"] for id_, e in model.items()]),
        names={},
        columns={"captions": [str(edition) for edition in model.values()]},
        arrays={},
    )


def build(directory: Path, model: Model) -> None:
    rows = rows_of(model)
    publish(directory, rows.vectors, ids=rows.ids, concepts=rows.labels, columns=rows.columns)


def add(directory: Path, model: Model) -> None:
    FolderLocation(directory).add_rows(
        rows_of(model), of=read_manifest(directory).version, over=True
    )


def opened(directory: Path, seed: int) -> dict[str, int]:
    """The rows of the index, after looking at each from every side."""
    stored = open_index(directory)
    model = {
        id_: int(edition)
        for id_, edition in zip(stored.ids, stored.columns["captions"], strict=True)
    }
    assert len(model) == len(stored.ids) == len(stored.index)
    for row, (id_, edition) in enumerate(model.items()):
        assert stored.labels.row(row) == (f"C{id_}", f"E{edition}"), (id_, edition)
    vectors = np.stack([vector(*row) for row in model.items()])
    assert np.array_equal(stored.vectors(np.arange(len(model))), vectors)
    query = vector("query", seed)
    found = stored.index.search(query[None], 10)
    rows = found.rows[0]
    assert len(set(rows.tolist())) == len(rows) == min(10, len(model))
    assert np.abs(found.similarities[0] - vectors[rows] @ query).max() < 1e-6
    if stored.manifest.index_type in ("flat", "scan"):
        assert np.abs(found.similarities[0] - np.sort(vectors @ query)[:-11:-1]).max() < 1e-6
    return model


# A reader


def read_until(directory: Path, log: Path, stop: Path) -> None:
    """What another process does: open anew and look, until there is a file `stop`."""
    opens, sizes = 0, set()
    print("ready", flush=True)
    while not stop.exists():
        before = log.read_text().split()
        model = opened(directory, opens)
        after = log.read_text().split()
        there = {f"{id_}/{edition}" for id_, edition in model.items()}
        removed = {line[1:] for line in before if line[0] == "-"}
        assert not there & removed, f"removed before: {there & removed}"
        leaving = {line[1:] for line in after if line[0] == "~"}
        missing = {line[1:] for line in before if line[0] == "+"} - leaving - there
        assert not missing, f"added before: {missing}"
        opens += 1
        sizes.add(len(model))
    print(json.dumps({"opens": opens, "sizes": len(sizes)}), flush=True)


@pytest.mark.slow
def test_readers_see_whole_versions_while_changes_are_made(tmp_path: Path, start: Start) -> None:
    directory, log, stop = tmp_path / "index", tmp_path / "log", tmp_path / "stop"
    rng = random.Random(0)
    model = {str(i): 0 for i in range(40)}
    build(directory, model)
    with log.open("w") as file, without_waiting_for_the_disk():

        def say(mark: str, rows: Model) -> None:
            file.writelines(f"{mark}{id_}/{edition}\n" for id_, edition in rows.items())
            file.flush()

        say("+", model)
        readers = [start(__file__, "read_until", directory, log, stop) for _ in range(2)]
        assert all(reader.stdout and reader.stdout.readline() == "ready\n" for reader in readers)
        for turn in range(1, 61):
            what = rng.choice(["add", "add", "remove", "compact"])
            if what == "add":
                new = {str(rng.randrange(60)): turn for _ in range(rng.randint(1, 5))}
                say("~", {id_: model[id_] for id_ in new if id_ in model})
                add(directory, new)
                say("-", {id_: model[id_] for id_ in new if id_ in model})
                say("+", new)
                model |= new
            elif what == "remove" and len(model) > 10:
                gone = {id_: model.pop(id_) for id_ in rng.sample(sorted(model), 3)}
                say("~", gone)
                FolderLocation(directory).remove_rows(list(gone))
                say("-", gone)
            else:
                FolderLocation(directory).compact(index_type=rng.choice(KINDS))
            if any(reader.poll() is not None for reader in readers):
                break
        stop.touch()
    results = [reader.communicate() for reader in readers]
    assert [reader.returncode for reader in readers] == [0, 0], results
    assert opened(directory, 0) == model
    for out, _ in results:
        seen = json.loads(out)
        assert seen["opens"] > 20 and seen["sizes"] > 5


def test_a_version_that_goes_between_pointer_and_manifest_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader has read which version is current; before it opens that, it is compacted away."""
    build(tmp_path, {"a": 0, "b": 0})
    FolderLocation(tmp_path).remove_rows(["b"])
    real, version = Path.read_text, read_manifest(tmp_path).version

    def then_compact(path: Path, *args: str, **kwargs: str) -> str:
        text = real(path, *args, **kwargs)
        if path == tmp_path / "current" and text.startswith(version):
            with monkeypatch.context() as patch:
                patch.setattr(Path, "read_text", real)
                FolderLocation(tmp_path).compact()
        return text

    monkeypatch.setattr(Path, "read_text", then_compact)
    assert open_index(tmp_path).ids == ("a",)


# A writer that dies


def write_when_told(directory: Path, log: Path) -> None:
    """For every line of the input, a child that makes changes until it is killed."""
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            if sys.platform == "linux":  # if the writer is killed, so is it
                ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            with contextlib.suppress(BaseException):
                change_for_ever(directory, log, random.Random(line))
            os._exit(9)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


def change_for_ever(directory: Path, log: Path, rng: random.Random) -> None:
    model = opened(directory, 0)
    with log.open("w") as file, without_waiting_for_the_disk():
        while True:
            what = rng.choice(["build", "add", "remove", "compact"])
            turn = 1 + max(model.values())
            after = dict(model)
            change = {str(rng.randrange(30)): turn for _ in range(rng.randint(1, 6))}
            if what == "build":
                after = {str(i): turn for i in range(rng.randint(5, 20))}
            elif what == "add":
                after |= change
            elif what == "remove":
                after = {id_: e for id_, e in model.items() if id_ not in change} or after
            file.write(json.dumps([what, model, after]) + "\n")
            file.flush()
            if what == "build":
                build(directory, after)
            elif what == "add":
                add(directory, change)
            elif what == "remove":
                FolderLocation(directory).remove_rows(model.keys() - after.keys())
            else:
                FolderLocation(directory).compact(index_type=rng.choice(KINDS))
            model = after


@pytest.mark.slow
def test_changes_killed_at_any_moment_leave_the_old_or_the_new(
    tmp_path: Path, start: Start
) -> None:
    directory, log = tmp_path / "index", tmp_path / "log"
    build(directory, {"0": 0, "1": 0, "2": 0})
    moments = random.Random(0)
    killed, outcomes, left_over = set(), set(), 0
    with start(__file__, "write_when_told", directory, log) as writer:
        assert writer.stdin and writer.stdout and writer.stdout.readline() == "ready\n"
        for turn in range(60):
            log.write_text("")
            writer.stdin.write(f"{turn}\n")
            writer.stdin.flush()
            child = int(writer.stdout.readline())
            deadline = time.monotonic() + 20
            while log.stat().st_size == 0 and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(moments.uniform(0, 0.1))
            os.kill(child, signal.SIGKILL)
            assert int(writer.stdout.readline()) == signal.SIGKILL, "it ended by itself"
            left_over += bool(list(directory.glob(".writing-*")))
            what, before, after = json.loads(log.read_text().split("\n")[-2])
            found = opened(directory, turn)
            assert found in (before, after), what
            manifest = read_manifest(directory)
            assert check_files(directory / manifest.version, manifest) == []
            killed.add(what)
            outcomes.add((found == before, found == after))
        writer.stdin.close()
    assert killed == {"build", "add", "remove", "compact"}
    assert {(True, False), (False, True)} <= outcomes and left_over > 5
    FolderLocation(directory).compact()
    assert not list(directory.glob(".writing-*")) and len(list(directory.glob("v*"))) == 1


@contextlib.contextmanager
def without_waiting_for_the_disk() -> Iterator[None]:
    """A process that is killed loses nothing that it has written; a power cut is another matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield
