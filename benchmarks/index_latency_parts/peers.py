"""Other libraries, each as its documentation says to use it.

Those that search a plain array (torch, scikit-learn) load it whole. Libraries with files of their
own write and read those. Inner product of unit vectors throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Point = dict[str, Any]

M, EF_CONSTRUCTION = 16, 100
EFFORTS = (16, 32, 64, 128, 256, 512)
PROBES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_ROWS_AT_ONCE = 65536
_EXACT = {"name": "exact"}


def build_none(vectors_path: Path, folder: Path, threads: int) -> list[Point]:
    """Nothing to build: the vectors are searched as they are."""
    return [_EXACT]


def build_flat(vectors_path: Path, folder: Path, threads: int) -> list[Point]:
    """`IndexFlatIP` as a FAISS file."""
    _write_faiss(vectors_path, folder, "Flat", threads)
    return [_EXACT]


def build_ivf(vectors_path: Path, folder: Path, threads: int) -> list[Point]:
    """`IndexIVFFlat` with about 4 sqrt(n) lists, as FAISS advises, trained on 64 rows a list."""
    n = len(np.load(vectors_path, mmap_mode="r"))
    lists = max(1, min(2 ** round(np.log2(4 * n**0.5)), n // 40))
    _write_faiss(vectors_path, folder, f"IVF{lists},Flat", threads, train=64 * lists)
    return [{"name": f"nprobe {probes}", "effort": probes} for probes in PROBES if probes <= lists]


def build_hnsw(vectors_path: Path, folder: Path, threads: int) -> list[Point]:
    """`IndexHNSWFlat` with 32 links, efConstruction 100."""
    _write_faiss(vectors_path, folder, "HNSW32", threads)
    return _efforts()


def build_hnswlib(vectors_path: Path, folder: Path, threads: int) -> list[Point]:
    """M 16, ef_construction 100, inner product."""
    import hnswlib

    vectors = np.load(vectors_path, mmap_mode="r")
    index = hnswlib.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), ef_construction=EF_CONSTRUCTION, M=M)
    for start, part in _parts(vectors):
        index.add_items(part, np.arange(start, start + len(part)), num_threads=threads)
    index.save_index(str(folder / "hnswlib.bin"))
    return _efforts()


def building_usearch(dtype: str) -> Callable[[Path, Path, int], list[Point]]:
    """Connectivity 16, expansion 100 while adding, numbers kept as `dtype`."""

    def build(vectors_path: Path, folder: Path, threads: int) -> list[Point]:
        vectors = np.load(vectors_path, mmap_mode="r")
        index = _usearch(vectors.shape[1], dtype)
        for start, part in _parts(vectors):
            index.add(np.arange(start, start + len(part)), part, threads=threads)
        index.save(str(folder / "usearch.bin"))
        return _efforts()

    return build


def opening_usearch(dtype: str) -> Callable[[Path, Path, int, Point], Usearch]:
    """Opens what `building_usearch` built."""

    def open_(vectors_path: Path, folder: Path, threads: int, point: Point) -> Usearch:
        dim = np.load(vectors_path, mmap_mode="r").shape[1]
        return Usearch(dim, dtype, folder, threads, point)

    return open_


class FaissFlat:
    """`IndexFlatIP`, read into memory."""

    def __init__(self, vectors_path: Path, folder: Path, threads: int, point: Point) -> None:
        import faiss

        faiss.omp_set_num_threads(threads)
        self._index: Any = faiss.read_index(str(folder / "faiss.index"))
        self.use(point)

    def use(self, point: Point) -> None:
        """Nothing to choose."""

    def search(self, queries: Floats, k: int) -> Rows:
        """int64[q, k]."""
        rows: Rows = self._index.search(queries, k)[1]
        return rows


class FaissIvf(FaissFlat):
    """`IndexIVFFlat`."""

    def use(self, point: Point) -> None:
        """Visit so many lists."""
        self._index.nprobe = point["effort"]


class FaissHnsw(FaissFlat):
    """`IndexHNSWFlat`."""

    def use(self, point: Point) -> None:
        """Keep so many candidates."""
        self._index.hnsw.efSearch = point["effort"]


class Hnswlib:
    """hnswlib, read into memory."""

    def __init__(self, vectors_path: Path, folder: Path, threads: int, point: Point) -> None:
        import hnswlib

        self._index = hnswlib.Index("ip", np.load(vectors_path, mmap_mode="r").shape[1])
        self._index.load_index(str(folder / "hnswlib.bin"))
        self._threads = threads
        self.use(point)

    def use(self, point: Point) -> None:
        """Keep so many candidates; hnswlib itself takes k where that is more."""
        self._effort = point["effort"]

    def search(self, queries: Floats, k: int) -> Rows:
        """int64[q, k]."""
        self._index.set_ef(max(self._effort, k))
        labels = self._index.knn_query(queries, k, num_threads=self._threads)[0]
        rows: Rows = labels.astype(np.int64)
        return rows


class Usearch:
    """usearch, read into memory."""

    def __init__(self, dim: int, dtype: str, folder: Path, threads: int, point: Point) -> None:
        self._index = _usearch(dim, dtype)
        self._index.load(str(folder / "usearch.bin"))
        self._threads = threads
        self.use(point)

    def use(self, point: Point) -> None:
        """Keep so many candidates."""
        self._effort = point["effort"]

    def search(self, queries: Floats, k: int) -> Rows:
        """int64[q, k]."""
        self._index.expansion_search = max(self._effort, k)
        found = self._index.search(queries, k, threads=self._threads)
        rows = np.asarray(found.keys).astype(np.int64).reshape(len(queries), -1)
        if rows.shape[1] == k and len(queries) > 1:
            counts = np.asarray(found.counts)
            rows[np.arange(k) >= counts[:, None]] = -1
        return np.pad(rows, ((0, 0), (0, k - rows.shape[1])), constant_values=-1)


class Sklearn:
    """`NearestNeighbors(algorithm="brute", metric="cosine")`."""

    def __init__(self, vectors_path: Path, folder: Path, threads: int, point: Point) -> None:
        from sklearn.neighbors import NearestNeighbors

        self._index = NearestNeighbors(algorithm="brute", metric="cosine", n_jobs=threads)
        self._index.fit(np.load(vectors_path))

    def use(self, point: Point) -> None:
        """Nothing to choose."""

    def search(self, queries: Floats, k: int) -> Rows:
        """int64[q, k]."""
        rows: Rows = self._index.kneighbors(queries, k, return_distance=False)
        return rows


class Torch:
    """A matrix product and `topk`, fp32."""

    def __init__(self, vectors_path: Path, folder: Path, threads: int, point: Point) -> None:
        import torch

        torch.set_num_threads(threads)
        self._torch = torch
        self._vectors = torch.from_numpy(np.load(vectors_path)).T

    def use(self, point: Point) -> None:
        """Nothing to choose."""

    def search(self, queries: Floats, k: int) -> Rows:
        """int64[q, k]."""
        with self._torch.inference_mode():
            found = self._torch.from_numpy(queries) @ self._vectors
            rows: Rows = found.topk(k, dim=1).indices.numpy()
        return rows


def _usearch(dim: int, dtype: str) -> Any:
    from usearch.index import Index

    return Index(ndim=dim, metric="ip", dtype=dtype, connectivity=M, expansion_add=EF_CONSTRUCTION)


def _write_faiss(
    vectors_path: Path, folder: Path, factory: str, threads: int, train: int = 0
) -> None:
    import faiss

    faiss.omp_set_num_threads(threads)
    vectors = np.load(vectors_path, mmap_mode="r")
    index: Any = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    if factory.startswith("HNSW"):
        index.hnsw.efConstruction = EF_CONSTRUCTION
    if train:
        index.cp.max_points_per_centroid = 64
        index.train(np.ascontiguousarray(vectors[:: max(1, len(vectors) // train)]))
    for _, part in _parts(vectors):
        index.add(part)
    faiss.write_index(index, str(folder / "faiss.index"))


def _parts(vectors: Floats) -> Iterator[tuple[int, Floats]]:
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        yield start, np.ascontiguousarray(vectors[start : start + _ROWS_AT_ONCE])


def _efforts() -> list[Point]:
    return [{"name": f"ef {effort}", "effort": effort, "graph": True} for effort in EFFORTS]
