"""FAISS: flat, inverted lists, RaBitQ and HNSW from files; flat on the GPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.index_latency.protocol import EXACT, Point, Rows, Search, graph_efforts, parts

_PROBES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def build_flat(vectors_path: Path, folder: Path, threads: int) -> Iterator[Point]:
    """`IndexFlatIP`."""
    _write(vectors_path, folder, "Flat", threads)
    yield EXACT


def build_ivf(vectors_path: Path, folder: Path, threads: int) -> Iterator[Point]:
    """`IndexIVFFlat` with about 4 sqrt(n) lists, as FAISS advises, trained on 64 rows a list."""
    lists = _lists(vectors_path)
    _write(vectors_path, folder, f"IVF{lists},Flat", threads, train=64 * lists)
    for effort in _PROBES:
        if effort <= lists:
            yield {"name": f"nprobe {effort}", "effort": effort}


def build_rabitq(vectors_path: Path, folder: Path, threads: int) -> Iterator[Point]:
    """One bit a dimension in the same lists (`IVF,RaBitQfs`), the best again by float16."""
    lists = _lists(vectors_path)
    factory = f"IVF{lists},RaBitQfs,Refine(SQfp16)"
    _write(vectors_path, folder, factory, threads, train=64 * lists)
    for effort in _PROBES:
        for times in (2, 4, 8):  # as many candidates as k are compared again
            if effort <= lists:
                yield {"name": f"nprobe {effort}, {times} k", "effort": effort, "times": times}


def build_hnsw(vectors_path: Path, folder: Path, threads: int) -> Iterator[Point]:
    """`IndexHNSWFlat` with 32 links, efConstruction 100."""
    _write(vectors_path, folder, "HNSW32", threads)
    yield from graph_efforts()


def open_flat(vectors_path: Path, folder: Path, threads: int, point: Point) -> Search:
    """Read into memory."""
    index = _read(folder, threads)
    return lambda queries, k, point: cast(Rows, index.search(queries, k)[1])


def open_ivf(vectors_path: Path, folder: Path, threads: int, point: Point) -> Search:
    """Read into memory; the effort is nprobe."""
    index = _read(folder, threads)

    def search(queries: Any, k: int, point: Point) -> Rows:
        index.nprobe = point["effort"]
        return cast(Rows, index.search(queries, k)[1])

    return search


def open_rabitq(vectors_path: Path, folder: Path, threads: int, point: Point) -> Search:
    """Read into memory; the effort is nprobe."""
    import faiss

    index = _read(folder, threads)
    space: Any = faiss.ParameterSpace()

    def search(queries: Any, k: int, point: Point) -> Rows:
        space.set_index_parameters(index, f"nprobe={point['effort']},k_factor_rf={point['times']}")
        return cast(Rows, index.search(queries, k)[1])

    return search


def open_hnsw(vectors_path: Path, folder: Path, threads: int, point: Point) -> Search:
    """Read into memory; the effort is efSearch."""
    index = _read(folder, threads)

    def search(queries: Any, k: int, point: Point) -> Rows:
        index.hnsw.efSearch = point["effort"]
        return cast(Rows, index.search(queries, k)[1])

    return search


def open_cuda(vectors_path: Path, folder: Path, threads: int, point: Point) -> Search:
    """`GpuIndexFlatIP`; queries and rows lie in host memory."""
    import faiss

    vectors = np.load(vectors_path, mmap_mode="r")
    resources = faiss.StandardGpuResources()
    index = faiss.GpuIndexFlatIP(resources, vectors.shape[1])
    for _, part in parts(vectors):
        index.add(part)

    def search(queries: Any, k: int, point: Point) -> Rows:
        assert resources  # live as long as the index
        return cast(Rows, index.search(queries, k)[1])

    return search


def _lists(vectors_path: Path) -> int:
    """About 4 sqrt(n), of 40 rows at least."""
    n = len(np.load(vectors_path, mmap_mode="r"))
    return max(1, min(1 << round(math.log2(4 * n**0.5)), n // 40))


def _write(vectors_path: Path, folder: Path, factory: str, threads: int, train: int = 0) -> None:
    import faiss

    faiss.omp_set_num_threads(threads)
    vectors = np.load(vectors_path, mmap_mode="r")
    index: Any = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    if factory.startswith("HNSW"):
        index.hnsw.efConstruction = 100
    if train:
        faiss.extract_index_ivf(index).cp.max_points_per_centroid = 64
        index.train(np.ascontiguousarray(vectors[:: max(1, len(vectors) // train)]))
    for _, part in parts(vectors):
        index.add(part)
    faiss.write_index(index, str(folder / "faiss.index"))


def _read(folder: Path, threads: int) -> Any:
    import faiss

    faiss.omp_set_num_threads(threads)
    return faiss.read_index(str(folder / "faiss.index"))
