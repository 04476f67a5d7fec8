"""What `info` says of an index."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from annotator.encoders.fingerprint import Fingerprint
from annotator.errors import AnnotatorError
from annotator.indexing.describe import describe
from annotator.indexing.metadata import to_record
from annotator.knn.voting import Voting
from index import LabelTable, VersionWriter, open_index
from index.folder.change import add_rows, compact, remove_rows
from index.folder.check import problems
from index.folder.location import FolderLocation
from index.segments import Segment

N, DIM = 150, 8
FINGERPRINT = Fingerprint("net", "sha256:0", {"size": 32}, "fp32", "middle", DIM)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    vectors = np.random.default_rng(0).standard_normal((N, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[7] = vectors[3]  # a copy finds its original, which is no problem
    with VersionWriter(tmp_path / "index") as writer:
        writer.add(vectors.astype(np.float32))
        writer.publish(
            [f"i{n}" for n in range(N)],
            [["C1", "C2"] if n % 2 else ["C2"] for n in range(N)],
            names={"C2": "two"},
            columns={"captions": [""] * N},
            about=to_record("net", FINGERPRINT, Voting(k=9)),
        )
    return tmp_path / "index"


def test_the_facts(directory: Path) -> None:
    facts = describe(open_index(directory), FolderLocation(directory))
    assert facts["version"] == "v000001"
    assert (facts["images"], facts["concepts"], facts["dim"]) == (N, 2, DIM)
    assert facts["concepts_per_image"] == 1.5
    assert facts["embedder"] == "net" and facts["fingerprint"] == FINGERPRINT.digest
    assert facts["voting"]["k"] == 9 and facts["columns"] == ["captions"]
    assert facts["most_frequent"] == [
        {"cui": "C2", "name": "two", "images": N},
        {"cui": "C1", "name": "", "images": N // 2},
    ]
    files = [p for p in (directory / "v000001").iterdir() if p.name != "manifest.json"]
    assert facts["bytes"] == sum(path.stat().st_size for path in files)
    assert json.loads(json.dumps(facts)) == facts


def add(directory: Path, n: int = 20) -> None:
    vectors = np.random.default_rng(1).standard_normal((n, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = Segment(
        vectors=vectors.astype(np.float32),
        ids=[f"new{i}" for i in range(n)],
        labels=LabelTable.from_sets([["C3"]] * n),
        names={"C3": "three"},
        columns={},
        arrays={},
    )
    add_rows(directory, rows, of=open_index(directory).version)


def test_the_facts_of_changes(directory: Path) -> None:
    facts = describe(open_index(directory), FolderLocation(directory))
    assert (facts["index_type"], facts["added"], facts["removed"]) == ("flat", 0, 0)
    add(directory)
    remove_rows(directory, ["i0", "i1", "new3"])
    facts = describe(open_index(directory), FolderLocation(directory))
    assert (facts["images"], facts["added"], facts["removed"]) == (N + 17, 20, 3)
    assert {"cui": "C3", "name": "three", "images": 19} in facts["most_frequent"]
    files = [p for p in (directory / "v000003").iterdir() if p.name != "manifest.json"]
    assert facts["bytes"] == sum(path.stat().st_size for path in files)
    compact(directory, index_type="ivf", target_recall=0.9)
    facts = describe(open_index(directory), FolderLocation(directory))
    assert (facts["images"], facts["added"], facts["removed"]) == (N + 17, 0, 0)
    assert facts["index_type"] == "ivf" and facts["search"]["target_recall"] == 0.9
    assert json.loads(json.dumps(facts)) == facts


def test_an_index_of_something_else_has_no_facts(tmp_path: Path) -> None:
    with VersionWriter(tmp_path) as writer:
        writer.add(np.array([[1, 0]], np.float32))
        writer.publish(["a"], [[]], names={}, columns={}, about={})
    with pytest.raises(AnnotatorError, match="does not say with which encoder"):
        describe(open_index(tmp_path), FolderLocation(tmp_path))
    assert problems(tmp_path) == []
