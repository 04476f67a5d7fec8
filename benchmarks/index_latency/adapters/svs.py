"""Scalable Vector Search: a Vamana graph over vectors as float16.

Degree 64 and window 128 while building, as its documentation has it. Its codes of 4 and 8 bits
(LVQ) run on Intel's processors only, so they are not compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.index_latency.protocol import Floats, Point, Rows, Search, graph_efforts

_PARTS = ("config", "graph", "data")


def build(vectors_path: Path, folder: Path, threads: int) -> Iterator[Point]:
    """Build and save."""
    import svs

    index = svs.Vamana.build(
        svs.VamanaBuildParameters(alpha=0.95, graph_max_degree=64, window_size=128),
        np.load(vectors_path).astype(np.float16),
        svs.DistanceType.MIP,
        num_threads=threads,
    )
    index.save(*(str(folder / part) for part in _PARTS))
    yield from graph_efforts()


def open_(vectors_path: Path, folder: Path, threads: int, point: Point) -> Search:
    """Read into memory; the effort is the search window, and k where that is more."""
    import svs

    config, graph, data = (str(folder / part) for part in _PARTS)
    index: Any = svs.Vamana(
        config,
        svs.GraphLoader(graph),
        svs.VectorDataLoader(data, svs.DataType.float16),
        svs.DistanceType.MIP,
        query_type=svs.DataType.float32,
        num_threads=threads,
    )

    def search(queries: Floats, k: int, point: Point) -> Rows:
        index.search_window_size = max(point["effort"], k)
        rows: Rows = np.asarray(index.search(queries, k)[0]).astype(np.int64)
        return rows

    return search
