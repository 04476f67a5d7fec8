"""The vectors, queries, exact neighbours and labels of one size, made once and kept on disk.

DIR/vectors.npy     float32[n, dim]
DIR/queries.npy     float32[q, dim], synthetic; then those of a collection's test side, if given
DIR/rows.npy        int64[q, 50], the exact neighbours
DIR/exact.npy       float64[q, 50], their similarities
DIR/labels.npy      int32[n, 3]: a row's cluster and two concepts of its own; a planted row of a
                    collection has -1 - its number in place of a cluster
DIR/clusters.npy    int32[1000], the cluster of each synthetic query
DIR/data.json       written last: what all of it is
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.labels import LabelTable
from index_latency_parts.collection import Real
from index_latency_parts.files import digest, write_json
from index_latency_parts.synthetic import VERSION, Synthetic, SyntheticLabels, clusters_for
from index_latency_parts.truth import exact_neighbours

Floats = NDArray[np.float32]

QUERIES = 1000
MOST_K = 50


@dataclass(frozen=True)
class Dataset:
    """What a size is measured with.

    Attributes:
        folder: Holds the files.
        n: Rows.
        dim: Numbers of a vector.
        seed: Of the synthetic part.
        real: The collection whose training side is among the rows, if any.
    """

    folder: Path
    n: int
    dim: int
    seed: int
    real: Real | None

    @property
    def name(self) -> str:
        """Changes with whatever the vectors depend on."""
        return self.folder.name

    @property
    def vectors_path(self) -> Path:
        """Of float32[n, dim]."""
        return self.folder / "vectors.npy"

    @property
    def queries_path(self) -> Path:
        """Of float32[q, dim]."""
        return self.folder / "queries.npy"

    @cached_property
    def vectors(self) -> Floats:
        """float32[n, dim], mapped from disk."""
        return _mapped(self.vectors_path)

    @cached_property
    def queries(self) -> Floats:
        """float32[q, dim]."""
        return _loaded(self.queries_path)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """int64[q, 50]: the exact neighbours."""
        loaded: NDArray[np.int64] = np.load(self.folder / "rows.npy")
        return loaded

    @cached_property
    def exact(self) -> NDArray[np.float64]:
        """float64[q, 50]: their similarities."""
        loaded: NDArray[np.float64] = np.load(self.folder / "exact.npy")
        return loaded

    @cached_property
    def _labels(self) -> SyntheticLabels:
        return SyntheticLabels(clusters_for(self.n), self.seed)

    @cached_property
    def _clusters(self) -> NDArray[np.int32]:
        loaded: NDArray[np.int32] = np.load(self.folder / "clusters.npy")
        return loaded

    def truth(self, query: int) -> frozenset[str]:
        """The concepts that a query ought to get."""
        if query >= QUERIES:
            assert self.real is not None
            return self.real.test_labels[query - QUERIES]
        return frozenset(_cui(j) for j in self._labels.of_cluster(int(self._clusters[query])))

    def label_table(self, rows: NDArray[np.int64]) -> tuple[LabelTable, NDArray[np.int64]]:
        """The labels of the rows that occur in `rows`, and `rows` as positions among those.

        A table of all rows would need gigabytes for millions of them, and no more than these are
        ever looked at.
        """
        occurring, positions = np.unique(rows, return_inverse=True)
        stored = np.load(self.folder / "labels.npy", mmap_mode="r")[occurring]
        sets = [self._set(*entry) for entry in stored.tolist()]
        return LabelTable.from_sets(sets), positions.reshape(rows.shape).astype(np.int64)

    def _set(self, cluster: int, *own: int) -> Sequence[str]:
        if cluster < 0:
            assert self.real is not None
            return sorted(self.real.train_labels[-1 - cluster])
        return [_cui(j) for j in {*self._labels.of_cluster(cluster), *own} - {-1}]


def prepare(work: Path, n: int, dim: int, seed: int, real: Real | None) -> Dataset:
    """The data of a size, from `work` or made now.

    Memory does not grow with n.

    Args:
        work: Where everything is kept.
        n: Rows.
        dim: Numbers of a vector.
        seed: Of the synthetic part.
        real: A collection, whose training side is planted among the rows and whose test side is
            asked about after the synthetic queries.
    """
    about: dict[str, Any] = {"n": n, "dim": dim, "seed": seed, "version": VERSION}
    about |= {"queries": QUERIES, "collection": real.name if real else None}
    folder = work / "data" / f"{n}x{dim}-{digest(about)}"
    dataset = Dataset(folder, n, dim, seed, real)
    if not (folder / "data.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _make(dataset)
        write_json(folder / "data.json", about)
    return dataset


def _make(data: Dataset) -> None:
    synthetic = Synthetic(data.dim, data.n, data.seed)
    labels = SyntheticLabels(synthetic.clusters, data.seed)
    shape = (data.n, data.dim)
    temporary = data.folder / "vectors.tmp.npy"
    vectors = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
    table = np.empty((data.n, 3), np.int32)
    done = 0
    for rows, clusters in synthetic.chunks(data.n):
        end = done + len(rows)
        vectors[done:end] = rows
        table[done:end, 0], table[done:end, 1:] = clusters, labels.own(done, len(rows))
        done = end
    queries, of = next(synthetic.chunks(QUERIES, stream=1))
    if data.real is not None:
        train, test = data.real.vectors(data.dim)
        places = np.linspace(0, data.n - 1, min(len(train), data.n)).astype(np.int64)
        vectors[places] = train[: len(places)]
        table[places] = -1
        table[places, 0] = -1 - np.arange(len(places))
        queries = np.concatenate([queries, test])
    vectors.flush()
    del vectors
    temporary.replace(data.vectors_path)
    np.save(data.folder / "labels.npy", table)
    np.save(data.folder / "clusters.npy", of)
    np.save(data.queries_path, queries)
    nearest, exact = exact_neighbours(data.vectors, queries, min(MOST_K, data.n))
    np.save(data.folder / "rows.npy", nearest)
    np.save(data.folder / "exact.npy", exact)


def _cui(number: int) -> str:
    return f"C{number:07d}"


def _mapped(path: Path) -> Floats:
    array: Floats = np.load(path, mmap_mode="r")
    return array


def _loaded(path: Path) -> Floats:
    array: Floats = np.load(path)
    return array
