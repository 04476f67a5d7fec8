"""hnswlib: M 16, ef_construction 100, inner product."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.index_latency.protocol import Floats, Point, Rows, Search, graph_efforts, parts


def build(vectors_path: Path, folder: Path, threads: int) -> Iterator[Point]:
    """Build and save."""
    import hnswlib

    vectors = np.load(vectors_path, mmap_mode="r")
    index = hnswlib.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), ef_construction=100, M=16)
    for start, part in parts(vectors):
        index.add_items(part, np.arange(start, start + len(part)), num_threads=threads)
    index.save_index(str(folder / "hnswlib.bin"))
    yield from graph_efforts()


def open_(vectors_path: Path, folder: Path, threads: int, point: Point) -> Search:
    """Read into memory; the effort is ef, and k where that is more."""
    import hnswlib

    index = hnswlib.Index("ip", np.load(vectors_path, mmap_mode="r").shape[1])
    index.load_index(str(folder / "hnswlib.bin"))

    def search(queries: Floats, k: int, point: Point) -> Rows:
        index.set_ef(max(point["effort"], k))
        labels = index.knn_query(queries, k, num_threads=threads)[0]
        rows: Rows = labels.astype(np.int64)
        return rows

    return search
