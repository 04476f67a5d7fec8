"""usearch: connectivity 16, expansion 100 while adding, vectors kept as f32 or i8."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.index_latency.protocol import Floats, Point, Rows, Search, graph_efforts, parts


def build(dtype: str, vectors_path: Path, folder: Path, threads: int) -> Iterator[Point]:
    """Build and save."""
    vectors = np.load(vectors_path, mmap_mode="r")
    index = _index(vectors.shape[1], dtype)
    for start, part in parts(vectors):
        index.add(np.arange(start, start + len(part)), part, threads=threads)
    index.save(str(folder / "usearch.bin"))
    yield from graph_efforts()


def open_(dtype: str, vectors_path: Path, folder: Path, threads: int, point: Point) -> Search:
    """Read into memory; the effort is expansion_search, and k where that is more."""
    index = _index(np.load(vectors_path, mmap_mode="r").shape[1], dtype)
    index.load(str(folder / "usearch.bin"))

    def search(queries: Floats, k: int, point: Point) -> Rows:
        index.expansion_search = max(point["effort"], k)
        found = index.search(queries, k, threads=threads)
        rows: Rows = np.asarray(found.keys).astype(np.int64).reshape(len(queries), -1)
        if rows.shape[1] == k and len(queries) > 1:
            rows[np.arange(k) >= np.asarray(found.counts)[:, None]] = -1
        return np.pad(rows, ((0, 0), (0, k - rows.shape[1])), constant_values=-1)

    return search


def _index(dim: int, dtype: str) -> Any:
    from usearch.index import Index

    return Index(ndim=dim, metric="ip", dtype=dtype, connectivity=16, expansion_add=100)
