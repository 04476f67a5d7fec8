"""Indexes that an earlier version wrote open, verify and answer as they did then.

`old_format/scan` has a projection, tuning, captions, groups, an added segment and removed rows;
`old_format/hnsw` is of a kind that can no longer be built.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotator.indexing.metadata import recorded_encoder, recorded_lists, recorded_voting
from annotator.knn.projection import Projection
from index import open_index
from index.folder.check import problems

OLD = Path(__file__).parent / "old_format"


@pytest.fixture(params=["scan", "hnsw"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any], np.ndarray]:
    """A copy of an old index, what was read from it when it was written, and queries."""
    name = request.param
    expected = json.loads((OLD / f"{name}.expected.json").read_text(encoding="utf-8"))
    queries = np.load(OLD / f"{name}.queries.npy")
    return Path(shutil.copytree(OLD / name, tmp_path / name)), expected, queries


def test_it_verifies_and_answers_as_before(old: tuple[Path, dict[str, Any], np.ndarray]) -> None:
    directory, expected, queries = old
    assert problems(directory) == []
    stored = open_index(directory, whole=True)
    assert stored.version == expected["version"]
    assert list(stored.ids) == expected["ids"]
    assert [list(stored.labels.row(i)) for i in range(len(stored))] == expected["labels"]
    assert dict(stored.names) == expected["names"]
    assert {name: list(column) for name, column in stored.columns.items()} == expected["columns"]
    arrays = {name: [str(a.dtype), list(a.shape)] for name, a in stored.arrays.items()}
    assert arrays == expected["arrays"]
    found = stored.index.search(queries, 10)
    assert found.rows.tolist() == expected["rows"]
    similarities = [[float.fromhex(x) for x in row] for row in expected["similarities"]]
    assert np.abs(found.similarities - similarities).max() < 1e-6


def test_what_annotating_and_tuning_need_is_read() -> None:
    stored = open_index(OLD / "scan")
    assert recorded_encoder(stored)[0] == "tiny"
    assert recorded_voting(stored).k >= 1
    assert Projection.from_arrays(stored.arrays) is not None
    lists = recorded_lists(stored)
    assert lists is not None and len(lists.queries) <= len(stored)
