"""Indexes that an earlier version wrote open, verify and answer as they did then.

`old_format/scan` has a projection, tuning, captions, groups, an added segment and removed rows;
`old_format/hnsw` is of a kind that can no longer be built.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotator.indexing.metadata import IndexMetadata
from annotator.knn.cross_validation import stored_lists
from annotator.knn.guarantees import Guarantee, Promises
from annotator.knn.projection import Projection
from index import IndexProblem, open_index
from index.folder.location import FolderLocation

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
    assert FolderLocation(directory).problems() == []
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
    metadata = IndexMetadata.of(stored)
    assert metadata.encoder == "tiny" and metadata.tuning is not None
    assert Projection.from_arrays(stored.arrays) is not None
    lists = stored_lists(stored)
    assert lists is not None and 0 < len(lists.queries) <= len(stored)


def test_guarantees_are_over_the_groups_that_its_lists_do_not_say() -> None:
    stored = open_index(OLD / "scan")
    voting = IndexMetadata.of(stored).voting
    kept = Promises(Guarantee("missed", 0.3), stored, stored.labels, voting).of("new")
    assert kept.groups == kept.images == 79
    two = tuple(f"patient {i % 2}" for i in range(len(stored)))
    lists = stored_lists(replace(stored, columns={"groups": two}))
    assert lists is not None and lists.groups is not None
    assert np.array_equal(lists.groups, lists.queries % 2)


def test_an_index_of_kind_hnsw_can_be_changed_and_compaction_gives_it_another_kind(
    tmp_path: Path,
) -> None:
    location = FolderLocation(Path(shutil.copytree(OLD / "hnsw", tmp_path / "hnsw")))
    before = location.open()
    assert before.manifest.index_type == "hnsw"
    location.remove_rows([before.ids[2]])
    assert location.problems() == []
    location.compact()
    after = location.open()
    assert after.manifest.index_type == "flat" and location.problems() == []
    assert not (tmp_path / "hnsw" / after.version / "structure.faiss").exists()
    assert after.ids == before.ids[:2] + before.ids[3:]
    kept = np.delete(np.arange(len(before)), 2)
    assert np.array_equal(after.vectors(np.arange(len(after))), before.vectors(kept))


def test_hnsw_is_built_no_more(tmp_path: Path) -> None:
    with pytest.raises(IndexProblem, match="no index of the type hnsw"):
        FolderLocation(tmp_path).check_index_type("hnsw")
