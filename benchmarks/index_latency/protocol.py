"""What a system to be measured is: a function that builds its files and one that opens them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

# An effort to search with, as JSON: its "name", "effort" or whatever else the system needs; "graph"
# where k candidates are kept at least; "default" for the product's own choice.
Point = dict[str, Any]
# (vectors.npy, empty folder, threads) -> efforts to measure. The time until the first of them is
# that of the build; vectors are float32[n, dim] of unit norm.
Build = Callable[[Path, Path, int], Iterator[Point]]
# (queries float32[q, dim], k, effort) -> int64[q, k], nearest rows by inner product; -1 for none.
Search = Callable[[Floats, int, Point], Rows]
# (vectors.npy, folder, threads, first effort) -> search
Open = Callable[[Path, Path, int, Point], Search]

EXACT: Point = {"name": "exact", "default": True}
ROWS_AT_ONCE = 65536


@dataclass(frozen=True)
class System:
    """A way to search.

    Attributes:
        key: As `--only` takes it.
        label: As the report shows it.
        build: Makes its files.
        open: Opens them.
        needs: Packages that it imports, before any clock runs.
        ours: Whether it is the product's.
        device: It runs on.
    """

    key: str
    label: str
    build: Build
    open: Open
    needs: tuple[str, ...] = ("faiss",)
    ours: bool = False
    device: str = "cpu"

    @property
    def keeps_vectors(self) -> bool:
        """Whether it searches vectors.npy itself, beside or instead of files of its own."""
        return self.build is build_nothing or (self.ours and self.device == "cpu")

    def missing(self) -> str | None:
        """The first package that it needs and that is not installed."""
        absent = (n for n in self.needs if importlib.util.find_spec(n.partition(".")[0]) is None)
        return next(absent, None)


def build_nothing(vectors_path: Path, folder: Path, threads: int) -> Iterator[Point]:
    """For systems that search the vectors as they are."""
    yield EXACT


def parts(vectors: Floats) -> Iterator[tuple[int, Floats]]:
    """First row and rows of each part of mapped vectors."""
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        yield start, np.ascontiguousarray(vectors[start : start + ROWS_AT_ONCE])


def graph_efforts() -> Iterator[Point]:
    """Candidates that a graph keeps while it searches."""
    for effort in (16, 32, 64, 128, 256, 512):
        yield {"name": f"ef {effort}", "effort": effort, "graph": True}
