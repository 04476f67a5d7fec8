"""Search on a GPU: the product's, a bare matrix product, and FAISS where it is built for GPUs.

Queries start and rows end in host memory: what it takes to move them counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.search.gpu import gpu_index

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Point = dict[str, Any]

_SCORES_AT_ONCE = 2**28  # float32: 1 GiB
_ROWS_AT_ONCE = 2**18  # copied to the device


class Ours:
    """The product's exact index on the GPU."""

    def __init__(self, vectors_path: Path) -> None:
        self._index = gpu_index(np.load(vectors_path, mmap_mode="r"))

    def use(self, point: Point) -> None:
        """Nothing to choose."""

    def search(self, queries: Floats, k: int) -> Rows:
        """int64[q, k]."""
        rows: Rows = self._index.search(queries, k).rows
        return rows


def opening_ours(vectors_path: Path, folder: Path, threads: int, point: Point) -> Ours:
    """Opens the product's index on the GPU."""
    return Ours(vectors_path)


class TorchScan:
    """A matrix product and `topk`, over as many rows at a time as their scores fit in 1 GiB.

    Args:
        vectors_path: Of float32[n, dim].
        device: Such as "cuda".
        tf32: Multiply with 10 bits of mantissa, where the GPU can.
        at_once: Scores at a time.
    """

    def __init__(
        self, vectors_path: Path, device: str, tf32: bool, at_once: int = _SCORES_AT_ONCE
    ) -> None:
        import torch

        self._torch = torch
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        vectors = np.load(vectors_path, mmap_mode="r")
        self._vectors = torch.empty(vectors.shape, dtype=torch.float32, device=device)
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            part = np.array(vectors[start : start + _ROWS_AT_ONCE])
            self._vectors[start : start + len(part)].copy_(torch.from_numpy(part))
        self._device, self._at_once = device, at_once

    def use(self, point: Point) -> None:
        """Nothing to choose."""

    def search(self, queries: Floats, k: int) -> Rows:
        """int64[q, k]; returns when it is done."""
        torch = self._torch
        with torch.inference_mode():
            asked = torch.from_numpy(queries).to(self._device)
            step = max(self._at_once // len(queries), k)
            best, places = [], []
            for start in range(0, len(self._vectors), step):
                scores = asked @ self._vectors[start : start + step].T
                found = scores.topk(min(k, scores.shape[1]), dim=1)
                best.append(found.values)
                places.append(found.indices + start)
            if len(best) == 1:
                chosen = places[0]
            else:
                order = torch.cat(best, 1).topk(k, dim=1).indices
                chosen = torch.cat(places, 1).gather(1, order)
            rows: Rows = chosen.cpu().numpy()
        return rows


def opening_torch(tf32: bool) -> Callable[[Path, Path, int, Point], TorchScan]:
    """Opens the vectors for a scan by torch."""

    def open_(vectors_path: Path, folder: Path, threads: int, point: Point) -> TorchScan:
        return TorchScan(vectors_path, "cuda", tf32)

    return open_


class FaissCuda:
    """`GpuIndexFlatIP`."""

    def __init__(self, vectors_path: Path, folder: Path, threads: int, point: Point) -> None:
        import faiss

        vectors = np.load(vectors_path, mmap_mode="r")
        self._resources = faiss.StandardGpuResources()
        self._index = faiss.GpuIndexFlatIP(self._resources, vectors.shape[1])
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            self._index.add(np.ascontiguousarray(vectors[start : start + _ROWS_AT_ONCE]))

    def use(self, point: Point) -> None:
        """Nothing to choose."""

    def search(self, queries: Floats, k: int) -> Rows:
        """int64[q, k]."""
        rows: Rows = self._index.search(queries, k)[1]
        return rows


def read_bandwidth(gibibytes: int = 4, rounds: int = 10) -> float:
    """Bytes a second that the GPU reads: the quickest of summing up and of copying an array.

    Args:
        gibibytes: Size of the array.
        rounds: Of each.
    """
    import torch

    array = torch.ones(gibibytes * 2**28, dtype=torch.float32, device="cuda")
    target = torch.empty_like(array)
    works: tuple[tuple[Callable[[], Any], int], ...] = (
        (lambda: array.sum(), 1),
        (lambda: target.copy_(array), 2),
    )
    best = 0.0
    for work, times in works:
        work()
        for _ in range(rounds):
            torch.cuda.synchronize()
            started = time.perf_counter()
            work()
            torch.cuda.synchronize()
            seconds = time.perf_counter() - started
            best = max(best, times * gibibytes * 2**30 / seconds)
    return best


def describe_gpu() -> dict[str, Any] | None:
    """Name and memory of the GPU; None where torch or a GPU is missing."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
    }


def device_memory() -> int | None:
    """Bytes in use on the GPU, whoever uses them; None without one."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return int(total - free)


def gpu_faiss() -> bool:
    """Whether FAISS is installed and built for GPUs."""
    try:
        import faiss
    except ImportError:
        return False
    return hasattr(faiss, "StandardGpuResources")
