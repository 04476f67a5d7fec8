"""scikit-learn: `NearestNeighbors(algorithm="brute", metric="cosine")`."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.index_latency.protocol import Point, Rows, Search


def open_(vectors_path: Path, folder: Path, threads: int, point: Point) -> Search:
    """The vectors are loaded whole."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(algorithm="brute", metric="cosine", n_jobs=threads)
    index.fit(np.load(vectors_path))
    return lambda queries, k, point: cast(Rows, index.kneighbors(queries, k, return_distance=False))
