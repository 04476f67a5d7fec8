"""Saying something else about an index without copying it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from versions import numbered, version_folder

from index import IndexProblem, open_index
from index.folder.location import FolderLocation
from tests.index.indexes import files, publish

ROOT = Path(__file__).parents[3]
N = 6


@pytest.fixture
def built(tmp_path: Path) -> Path:
    publish(
        tmp_path / "index",
        np.eye(N, dtype=np.float32),
        names={"C1": "one"},
        columns={"captions": ["a caption"] * N},
        about={"voting": {"k": 3}, "embedder": "e"},
        arrays={"rows": np.arange(N)},
    )
    return tmp_path / "index"


def test_files_are_shared_and_the_rest_is_as_before(built: Path) -> None:
    before = open_index(built)
    about = {"voting": {"k": 9}, "more": [1, None, "ü"]}
    assert (
        numbered(FolderLocation(built).change_about(about, of=version_folder(built).name))
        == "v000002"
    )
    after = open_index(built)
    assert numbered(after.version) == "v000002" and after.manifest.about == about
    for name in ("ids", "names", "columns"):
        assert getattr(after, name) == getattr(before, name)
    assert np.array_equal(after.arrays["rows"], before.arrays["rows"])
    assert after.manifest == replace(before.manifest, version=after.version, about=about)
    for name in after.manifest.files:
        one, other = ((version_folder(built, v) / name).stat() for v in (1, 2))
        assert (one.st_ino, one.st_dev) == (other.st_ino, other.st_dev)
        assert one.st_nlink == 2


def test_what_says_the_same_is_not_published_again(built: Path) -> None:
    before = files(built)
    about = open_index(built).manifest.about
    assert (
        numbered(FolderLocation(built).change_about(about, of=version_folder(built).name))
        == "v000001"
    )
    assert files(built) == before
    assert not list(built.glob(".writing-*"))


def test_a_writer_in_another_process_is_seen(built: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from index.folder.publish import only_writer\n"
        "with only_writer(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(built)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(IndexProblem, match="Another process is writing"):
            FolderLocation(built).change_about({}, of=version_folder(built).name)
        holder.communicate("")
    assert (
        numbered(FolderLocation(built).change_about({}, of=version_folder(built).name)) == "v000002"
    )


def test_what_is_no_json_is_refused_and_leaves_nothing(built: Path) -> None:
    with pytest.raises(TypeError):
        FolderLocation(built).change_about({"path": built}, of=version_folder(built).name)
    assert numbered(open_index(built).version) == "v000001"
    assert not list(built.glob(".writing-*"))


def test_a_new_version_can_be_read_by_all_who_read_the_one_before(built: Path) -> None:
    FolderLocation(built).change_about({}, of=version_folder(built).name)
    mode = version_folder(built, 2).stat().st_mode & 0o777
    assert mode == version_folder(built).stat().st_mode & 0o777 == 0o755
    assert os.access(version_folder(built, 2) / "manifest.json", os.R_OK)
