"""An index in Milvus finds what the index in a folder finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index import IndexProblem
from index.corrections import Correction
from index.folder.location import FolderLocation
from index.milvus.location import MilvusLocation
from index.protocols import Index

Publish = Callable[..., str]
Unit = Callable[..., np.ndarray]


def both(
    tmp_path: Path, location: MilvusLocation, publish: Publish, vectors: np.ndarray, **options: Any
) -> tuple[Index, Index]:
    """The same rows in a folder and in Milvus, opened."""
    publish(FolderLocation(tmp_path / "index"), vectors, **options)
    publish(location, vectors, **options)
    return FolderLocation(tmp_path / "index").open(), location.open()


Near = list[list[tuple[str, tuple[str, ...]]]]


def found(index: Index, queries: np.ndarray, k: int) -> tuple[Near, np.ndarray]:
    """Ids and CUIs of the neighbours, and their similarities."""
    near, cases = (result := index.find(queries, k)).neighbors, result.cases
    rows = [
        [(cases.ids[row], cases.labels.row(row)) for row in some] for some in near.rows.tolist()
    ]
    return rows, near.similarities


def check_same(local: Index, milvus: Index, queries: np.ndarray, k: int) -> None:
    ids, similarities = found(local, queries, k)
    theirs, their_similarities = found(milvus, queries, k)
    assert theirs == ids
    assert their_similarities.dtype == np.float32
    assert np.abs(their_similarities - similarities).max(initial=0) < 1e-6


def check_lone_queries(index: Index, queries: np.ndarray) -> None:
    """One alone finds what it finds in a batch."""
    ids, similarities = found(index, queries, 20)
    for i in (0, 1, 255, 256, 299):
        theirs, alone = found(index, queries[i : i + 1], 20)
        assert theirs == [ids[i]]
        assert np.abs(alone[0] - similarities[i]).max() < 1e-6


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_neighbours_and_similarities(
    tmp_path: Path, location: MilvusLocation, publish: Publish, unit: Unit, kind: str
) -> None:
    vectors = unit(3000)
    vectors[2000:] = vectors[:1000]
    publish(FolderLocation(tmp_path / "index"), vectors)
    publish(location, vectors, index_type=kind, target_recall=1.0)
    local, milvus = FolderLocation(tmp_path / "index").open(), location.open()
    assert milvus.manifest.index_type == kind
    queries = unit(300, seed=1)  # more than go into one message
    if kind == "flat":
        for k in (1, 5, 50):
            check_same(local, milvus, queries, k)
        check_lone_queries(milvus, queries)
        return
    assert milvus.manifest.search["recall"] > 0.99
    ids, similarities = found(local, queries, 20)
    theirs, their_similarities = found(milvus, queries, 20)
    hits = sum(len({*a} & {*b}) for a, b in zip(ids, theirs, strict=True))
    assert hits > 0.98 * 300 * 20
    for i, name in enumerate(theirs):
        for j, (id_, _) in enumerate(name):  # whatever is found has its true similarity
            true = float(vectors[int(id_[1:])].astype(np.float64) @ queries[i])
            assert abs(true - their_similarities[i, j]) < 1e-6
    assert similarities[:, 0] == pytest.approx(their_similarities[:, 0], abs=0.2)


@pytest.mark.parametrize("n", [1, 300])
def test_few_rows_and_many_equal_ones(
    tmp_path: Path, location: MilvusLocation, publish: Publish, unit: Unit, n: int
) -> None:
    # Three different vectors: more equal ones than fit beside the k that are asked for.
    copies = unit(3)[np.random.default_rng(0).integers(3, size=n)]
    local, remote = both(tmp_path, location, publish, copies)
    for k in (1, 9, 150, 300, 1000):
        check_same(local, remote, np.concatenate([unit(4, seed=1), copies[:3]]), k)
    assert remote.find(unit(0), 4).neighbors.rows.shape[0] == 0


def test_what_an_index_says_of_itself(
    tmp_path: Path, location: MilvusLocation, publish: Publish, unit: Unit
) -> None:
    concepts = [["C1", "C2"][: i % 3] for i in range(90)]  # some have none
    arrays = {"small": np.arange(5), "large": np.random.default_rng(0).random((700, 128))}
    options: dict[str, Any] = {
        "concepts": concepts,
        "columns": {"captions": [f"Ünd “{i}”\n\\ '\"" * 9 for i in range(90)]},
        "arrays": arrays,
        "names": {"C1": "One\tand\nmore", "C2": "", "C3": "Nowhere"},
    }
    local, milvus = both(tmp_path, location, publish, unit(90), **options)
    assert len(milvus) == len(local) == 90
    assert dict(milvus.concepts) == dict(local.concepts)
    assert list(milvus.concepts) == list(local.concepts)
    assert dict(milvus.names) == dict(local.names) == {"C1": "One and more"}
    assert milvus.manifest.about == local.manifest.about
    for name, array in arrays.items():
        assert np.array_equal(milvus.arrays[name], array)
        assert not milvus.arrays[name].flags.writeable
    with pytest.raises(KeyError):
        milvus.arrays["other"]
    mine, theirs = local.labels, milvus.labels
    assert mine.cuis == theirs.cuis
    assert np.array_equal(mine.indptr, theirs.indptr)
    assert np.array_equal(mine.indices, theirs.indices)
    assert np.array_equal(mine.frequencies, theirs.frequencies)
    result, same = milvus.find(unit(3, seed=1), 9), local.find(unit(3, seed=1), 9)
    for row, their_row in zip(
        same.neighbors.rows.ravel().tolist(), result.neighbors.rows.ravel().tolist(), strict=True
    ):
        assert same.cases.columns["captions"][row] == result.cases.columns["captions"][their_row]
    rows = result.neighbors.rows[0]
    assert np.array_equal(result.cases.vectors(rows), same.cases.vectors(same.neighbors.rows[0]))
    # What stands for all rows is the same, so that the prior is.
    sample = [result.cases.labels.row(i) for i in result.cases.labels.sample.tolist()]
    assert sample == [mine.row(i) for i in mine.sample.tolist()]
    for queries in (unit(2, 15), unit(2) * 2, unit(2).astype(np.float64)):
        with pytest.raises(IndexProblem):
            milvus.find(queries, 3)
    with pytest.raises(IndexProblem, match="at least 1, not 0"):
        milvus.find(unit(1), 0)


def test_a_folder_corrects_labels_and_milvus_says_that_it_does_not(
    tmp_path: Path, location: MilvusLocation, publish: Publish, unit: Unit
) -> None:
    local, milvus = both(tmp_path, location, publish, unit(5))
    correction = Correction(1, "i000002", ("C2",), ("C7",), "me", "2026-11-30T12:00:00Z")
    folder = FolderLocation(tmp_path / "index")
    folder.correct([correction], of=local.version)
    assert folder.open().with_ids(["i000002"]).labels.row(0) == ("C7",)
    assert list(folder.history()) == [correction]
    with pytest.raises(IndexProblem, match=r"cannot be corrected.*\n?.*add --replace"):
        location.correct([correction], of=milvus.version)
    assert location.open().with_ids(["i000002"]).labels.row(0) == ("C2",)
    assert list(location.history()) == []
