"""What is measured: the product's kinds of index and its peers, all built and asked alike."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from index_latency_parts import cuda, ours, peers

Floats = NDArray[np.float32]
Point = dict[str, Any]


class Searcher(Protocol):
    """An opened index."""

    def use(self, point: Point) -> None:
        """Search with this effort from now on."""
        ...

    def search(self, queries: Floats, k: int) -> NDArray[np.int64]:
        """int64[q, k]: the rows nearest to queries float32[q, dim] of unit norm; -1 for none."""
        ...


# Vectors on disk, a folder for what is built, threads; returns the efforts to measure.
Build = Callable[[Path, Path, int], list[Point]]
# Vectors on disk, the folder, threads, a first effort.
Open = Callable[[Path, Path, int, Point], Searcher]


@dataclass(frozen=True)
class System:
    """A way to search.

    Attributes:
        key: As `--only` takes it.
        label: As the report shows it.
        build: Makes its files.
        open: Opens them.
        needs: Packages that it imports.
        exact: Whether it finds the true neighbours.
        ours: Whether it is the product's.
        cost: What building and searching a row costs, against comparing all rows.
        memory: Bytes it takes at its peak, in sizes of all vectors.
        on: The device it runs on.
    """

    key: str
    label: str
    build: Build
    open: Open
    needs: tuple[str, ...] = ("faiss",)
    exact: bool = False
    ours: bool = False
    cost: float = 1.0
    memory: float = 1.1
    on: str = "cpu"

    def missing(self) -> str | None:
        """The first package that it needs and that is not installed."""
        absent = (name for name in self.needs if importlib.util.find_spec(name) is None)
        return next(absent, None)


def _ours(kind: str, label: str, **more: Any) -> System:
    return System(kind, label, ours.building(kind), ours.opening(kind), ours=True, **more)


_ALL = (
    _ours("scan", "ours: scan (exact)", exact=True, cost=0.5, memory=0.3),
    _ours("flat", "ours: flat (exact)", exact=True, memory=0.1),
    _ours("ivf", "ours: ivf", cost=0.6, memory=0.3),
    _ours("compressed", "ours: compressed", cost=0.9, memory=0.4),
    System("faiss-flat", "FAISS IndexFlatIP", peers.build_flat, peers.FaissFlat, exact=True),
    System("torch", "torch matmul + topk", peers.build_none, peers.Torch, ("torch",), exact=True),
    System(
        "sklearn", "scikit-learn brute force", peers.build_none, peers.Sklearn,
        ("sklearn", "sklearn.neighbors"),
        exact=True, cost=5.0, memory=3.0,
    ),
    System("faiss-ivf", "FAISS IVF flat", peers.build_ivf, peers.FaissIvf, cost=1.5, memory=1.3),
    System("faiss-hnsw", "FAISS HNSW32", peers.build_hnsw, peers.FaissHnsw, cost=3.0, memory=1.4),
    System(
        "hnswlib", "hnswlib", peers.build_hnswlib, peers.Hnswlib, ("hnswlib",),
        cost=3.0, memory=1.3,
    ),
    System(
        "usearch", "usearch f32", peers.building_usearch("f32"), peers.opening_usearch("f32"),
        ("usearch", "usearch.index"), cost=3.0, memory=1.3,
    ),
    System(
        "usearch-i8", "usearch i8", peers.building_usearch("i8"), peers.opening_usearch("i8"),
        ("usearch", "usearch.index"), cost=2.5, memory=0.5,
    ),
    System(
        "gpu", "ours: gpu (exact)", peers.build_none, cuda.opening_ours,
        ("torch", "faiss"), exact=True, ours=True, on="cuda",
    ),
    System(
        "torch-cuda", "torch matmul + topk, fp32", peers.build_none, cuda.opening_torch(False),
        ("torch",), exact=True, on="cuda",
    ),
    System(
        "torch-cuda-tf32", "torch matmul + topk, TF32", peers.build_none, cuda.opening_torch(True),
        ("torch",), on="cuda",
    ),
    System(
        "faiss-cuda", "FAISS GpuIndexFlatIP", peers.build_none, cuda.FaissCuda, exact=True,
        on="cuda",
    ),
)  # fmt: skip
SYSTEMS = {system.key: system for system in _ALL}
