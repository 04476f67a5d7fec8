"""The product's kinds of index, through `build_files` and `open_files`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from index.search import build as structure
from index.search.base import import_faiss
from index.search.build import Kind, build_files, open_files
from index.search.ivf import IvfKind, tune

Floats = NDArray[np.float32]
Point = dict[str, Any]

TARGETS = (0.9, 0.95, structure.DEFAULT_RECALL, 0.99)
EXACT: tuple[Kind, ...] = ("flat", "scan")


def building(kind: str) -> Callable[[Path, Path, int], list[Point]]:
    """Builds one of the product's kinds, and tunes it for each target."""

    def build(vectors_path: Path, folder: Path, threads: int) -> list[Point]:
        vectors = np.load(vectors_path, mmap_mode="r")
        params = build_files(cast(Kind, kind), vectors, folder)
        if kind in EXACT:
            return [{"name": "exact", "params": params}]
        points = {structure.DEFAULT_RECALL: params}
        for target in TARGETS:
            if target not in points:
                points[target] = _tuned_again(cast(Kind, kind), vectors, folder, target)
        return [
            {
                "name": f"target {target:g}",
                "params": points[target],
                "default": target == structure.DEFAULT_RECALL,
            }
            for target in TARGETS
        ]

    return build


def opening(kind: str) -> Callable[[Path, Path, int, Point], Ours]:
    """Opens what `building` built."""

    def open_(vectors_path: Path, folder: Path, threads: int, point: Point) -> Ours:
        return Ours(kind, vectors_path, folder, point)

    return open_


class Ours:
    """One of the product's kinds, its vectors mapped from disk."""

    def __init__(self, kind: str, vectors_path: Path, folder: Path, point: Point) -> None:
        self._kind, self._folder = kind, folder
        self._vectors = np.load(vectors_path, mmap_mode="r")
        self._point = point
        self._index: Any = open_files(kind, self._vectors, folder, point["params"])

    def use(self, point: Point) -> None:
        """Open it with other parameters, if they are others."""
        if point != self._point:
            self._index = None  # before the next one is read
            self._index = open_files(self._kind, self._vectors, self._folder, point["params"])
            self._point = point

    def search(self, queries: Floats, k: int) -> NDArray[np.int64]:
        """int64[q, k]."""
        rows: NDArray[np.int64] = self._index.search(queries, k).rows
        return rows


def _tuned_again(kind: Kind, vectors: Floats, folder: Path, target: float) -> dict[str, Any]:
    """What `build_files` would return for another target, without building all of it again."""
    read = import_faiss().read_index(str(folder / structure.ANN))
    return tune(cast(IvfKind, kind), read, vectors, target)
