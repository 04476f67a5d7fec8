"""What `verify` finds wrong with an index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from versions import version_folder

from annotator.encoders.fingerprint import Fingerprint
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.voting import Voting
from index import LabelTable, open_index
from index.folder.location import FolderLocation
from index.search.build import KINDS
from index.segments import Segment
from tests.index.indexes import publish, unit

N, DIM = 150, 8
FINGERPRINT = Fingerprint("net", "sha256:0", {"size": 32}, "fp32", "middle", DIM)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    vectors = unit(N, DIM)
    vectors[7] = vectors[3]  # a copy finds its original, which is no problem
    publish(
        tmp_path / "index",
        vectors,
        concepts=[["C1", "C2"] if n % 2 else ["C2"] for n in range(N)],
        columns={"captions": [""] * N},
        about=IndexMetadata("net", FINGERPRINT, Voting(k=9)).to_dict(),
    )
    return tmp_path / "index"


def test_all_damaged_files_are_named(directory: Path) -> None:
    version = version_folder(directory)
    (version / "ids.txt").unlink()
    (version / "captions.jsonl").write_text("")
    (version / "notes").write_text("")
    data = bytearray((version / "vectors.npy").read_bytes())
    data[500] ^= 1
    (version / "vectors.npy").write_bytes(data)
    found = FolderLocation(directory).problems()
    assert len(found) == 4
    for name, problem in (
        ("captions.jsonl has 0 bytes", found[0]),
        ("ids.txt is missing", found[1]),
        ("vectors.npy has changed", found[2]),
        ("notes does not belong", found[3]),
    ):
        assert problem.startswith(f"{version.name}/{name}")


def test_places_without_a_sound_manifest(directory: Path, tmp_path: Path) -> None:
    (problem,) = FolderLocation(tmp_path / "nowhere").problems()
    assert "nowhere does not exist" in problem
    (problem,) = FolderLocation(tmp_path).problems()
    assert "is no index" in problem
    (version_folder(directory) / "manifest.json").write_text("{}")
    (problem,) = FolderLocation(directory).problems()
    assert "manifest.json is not the manifest that was published" in problem


def test_vectors_that_were_published_wrong_are_found(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a faulty writer would: everything fits together, but one vector is not of unit norm.
    with monkeypatch.context() as patch:
        patch.setattr("index.folder.writer.check_unit", lambda *_: None)
        publish(directory, np.array([[1, 0], [3, 4]], np.float32))
    (problem,) = FolderLocation(directory).problems()
    assert "row 1 has norm 5" in problem


# Rows that were added and removed


def add(directory: Path, n: int = 20) -> None:
    rows = Segment(
        vectors=unit(n, DIM, seed=1),
        ids=[f"new{i}" for i in range(n)],
        labels=LabelTable.from_sets([["C3"]] * n),
        names={"C3": "three"},
        columns={},
        arrays={},
    )
    FolderLocation(directory).add_rows(rows, of=open_index(directory).version)


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_is_sound_after_every_change(directory: Path, kind: str) -> None:
    FolderLocation(directory).compact(index_type=kind)  # type: ignore[arg-type]
    assert FolderLocation(directory).problems() == []
    add(directory)
    assert FolderLocation(directory).problems() == []
    FolderLocation(directory).remove_rows(["image-7", "image-149", "new0"])
    assert FolderLocation(directory).problems() == []
    FolderLocation(directory).compact()
    assert FolderLocation(directory).problems() == []


def test_damage_to_added_rows_is_named(directory: Path) -> None:
    add(directory)
    FolderLocation(directory).remove_rows(["image-5"])
    for name in ("added-000001.vectors.npy", "removed.npy"):
        path = version_folder(directory, 3) / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        (problem,) = FolderLocation(directory).problems()
        assert problem.startswith(f"{path.parent.name}/{name} has changed")
        path.write_bytes(whole)


def test_a_faiss_index_that_finds_other_rows_is_found(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a faulty writer would leave it: all files as published, but built of other vectors."""
    from index.search import build

    def of_others(kind: build.Kind, vectors: np.ndarray, *args: Any, **options: Any) -> object:
        return build_files(kind, np.ascontiguousarray(-vectors), *args, **options)

    build_files = build.build_files
    monkeypatch.setattr(build, "build_files", of_others)
    FolderLocation(directory).compact(index_type="compressed")
    assert any("find" in problem for problem in FolderLocation(directory).problems())
