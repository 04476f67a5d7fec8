"""The product's kinds of index: on the CPU without ids and labels, on the GPU as a stored index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.index_latency.protocol import EXACT, Floats, Point, Rows, Search, parts
from index import LabelTable, VersionWriter, open_index
from index.search.build import DEFAULT_RECALL, Kind, build_files, open_files

TARGETS = (DEFAULT_RECALL, 0.9, 0.95, 0.99)


def build(kind: str, vectors_path: Path, folder: Path, threads: int) -> Iterator[Point]:
    """One folder for each target recall, the default first; exact kinds have one."""
    vectors = np.load(vectors_path, mmap_mode="r")
    for target in TARGETS:
        name = f"target {target:g}"
        (folder / name).mkdir()
        params = build_files(cast(Kind, kind), vectors, folder / name, target_recall=target)
        if kind in ("flat", "scan"):
            yield {**EXACT, "params": params, "folder": name}
            return
        default = target == DEFAULT_RECALL
        yield {"name": name, "params": params, "folder": name, "default": default}


def open_(kind: str, vectors_path: Path, folder: Path, threads: int, point: Point) -> Search:
    """The vectors stay mapped from disk."""
    vectors = np.load(vectors_path, mmap_mode="r")
    opened: dict[str, Any] = {}

    def use(point: Point) -> Any:
        if point["folder"] not in opened:
            opened.clear()  # before the next one is read
            files = folder / point["folder"]
            opened[point["folder"]] = open_files(kind, vectors, files, point["params"])
        return opened[point["folder"]]

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
