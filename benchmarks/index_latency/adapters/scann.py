"""ScaNN: a tree of lists, anisotropic codes of 4 bits, candidates compared again.

Its parameters follow its own guide (docs/algorithms.md there): about sqrt(n) leaves, trained on at
most 250,000 rows, threshold 0.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.index_latency.protocol import Floats, Point, Rows, Search

_MOST_TRAINING_ROWS = 250_000


def build(vectors_path: Path, folder: Path, threads: int) -> Iterator[Point]:
    """Build and save; an effort is the number of leaves, and of candidates compared again."""
    from scann import scann_ops_pybind

    vectors = np.load(vectors_path)
    n = len(vectors)
    leaves = max(1, round(n**0.5))
    builder = scann_ops_pybind.builder(vectors, 50, "dot_product").set_n_training_threads(threads)
    builder = builder.tree(leaves, 1, training_sample_size=min(n, _MOST_TRAINING_ROWS))
    builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100)
    builder.build().serialize(str(folder))
    for share in (0.01, 0.02, 0.04, 0.08, 0.16, 0.32):
        for candidates in (100, 200, 400):
            wanted = max(1, round(share * leaves))
            yield {"name": f"{wanted} of {leaves} leaves, {candidates} again", "effort": wanted} | {
                "candidates": candidates
            }


def open_(vectors_path: Path, folder: Path, threads: int, point: Point) -> Search:
    """Read into memory."""
    from scann import scann_ops_pybind

    searcher = scann_ops_pybind.load_searcher(str(folder))
    searcher.set_num_threads(threads)

    def search(queries: Floats, k: int, point: Point) -> Rows:
        candidates, leaves = max(point["candidates"], k), point["effort"]
        if len(queries) == 1:
            found = searcher.search(queries[0], k, candidates, leaves)[0][None]
        elif threads == 1:
            found = searcher.search_batched(queries, k, candidates, leaves)[0]
        else:
            found = searcher.search_batched_parallel(queries, k, candidates, leaves)[0]
        rows = np.asarray(found).astype(np.int64)
        return np.pad(rows, ((0, 0), (0, k - rows.shape[1])), constant_values=-1)

    return search
