"""The product's kinds of index: on the CPU without ids and labels, on the GPU as a stored index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.index_latency.protocol import EXACT, Floats, Point, Rows, Search, parts
from index import LabelTable, VersionWriter, open_index
from index.search.base import import_faiss
from index.search.build import ANN, DEFAULT_RECALL, Kind, build_files, open_files
from index.search.build import EXACT as EXACT_KINDS
from index.search.ivf import IvfKind, tune

OTHER_TARGETS = (0.9, 0.95, 0.99)


def build(kind: str, vectors_path: Path, folder: Path, threads: int) -> Iterator[Point]:
    """Built for the default target recall, and tuned to others; exact kinds have one effort."""
    vectors = np.load(vectors_path, mmap_mode="r")
    params = build_files(cast(Kind, kind), vectors, folder, target_recall=DEFAULT_RECALL)
    if kind in EXACT_KINDS:
        yield {**EXACT, "params": params}
        return
    yield {"name": f"target {DEFAULT_RECALL:g}", "params": params, "default": True}
    ann = import_faiss().read_index(str(folder / ANN))
    for target in OTHER_TARGETS:
        params = tune(cast(IvfKind, kind), ann, vectors, target)
        yield {"name": f"target {target:g}", "params": params, "default": False}


def open_(kind: str, vectors_path: Path, folder: Path, threads: int, point: Point) -> Search:
    """The vectors stay mapped from disk."""
    vectors = np.load(vectors_path, mmap_mode="r")
    opened: dict[str, Any] = {}

    def use(point: Point) -> Any:
        if point["name"] not in opened:
            opened.clear()  # before the next one is read
            opened[point["name"]] = open_files(kind, vectors, folder, point["params"])
        return opened[point["name"]]

    def search(queries: Floats, k: int, point: Point) -> Rows:
        return cast(Rows, use(point).search(queries, k).rows)

    use(point)
    return search


def build_stored(kind: str, vectors_path: Path, folder: Path, threads: int) -> Iterator[Point]:
    """A whole index, as `build-index` writes it."""
    vectors = np.load(vectors_path, mmap_mode="r")
    ids = [str(row) for row in range(len(vectors))]
    labels = LabelTable.from_sets([("C0000001",)] * len(ids))
    with VersionWriter(folder / "index") as writer:
        for _, part in parts(vectors):
            writer.add(part)
        writer.publish(ids, labels, names={}, columns={}, about={}, index_type=cast(Kind, kind))
    yield {"name": "default", "default": True}


def open_on_gpu(vectors_path: Path, folder: Path, threads: int, point: Point) -> Search:
    """As `--device cuda` opens it."""
    index = open_index(folder / "index", device="cuda").index
    return lambda queries, k, point: index.search(queries, k).rows
