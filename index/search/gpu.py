"""Search on all GPUs of this machine by FAISS, with a full comparison of the candidates by torch.

This module has not been run on a GPU yet; see docs/search.md.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.distribution import pip_install
from index.errors import IndexProblem
from index.rows import Neighbors
from index.search.base import (
    ROUNDING,
    ArrayIndex,
    check_ann,
    check_vectors,
    import_faiss,
    not_finite,
    ranked,
)
from index.search.flat import MARGIN, FlatIndex
from index.search.ivf import lists_for, train

# FAISS takes 1.5 GiB on each GPU if it is not told otherwise. What needs more is allocated then.
TEMP_MEMORY = 256 * 2**20
_MOST = 2048  # candidates, and inverted lists visited, that FAISS's GPU kernels can select
_BATCH = 512
_COMPARED_BYTES = 256 * 2**20  # of candidates that are compared at once
_ROWS_AT_ONCE = 2**15


class GpuIndex(ArrayIndex):
    """Candidates from a FAISS index on GPUs, then full comparison with the vectors themselves.

    More candidates than k are found, compared by `compare`, and ordered by similarity, equal ones
    by row. Where fewer than k are found, or an exact search cannot tell that no other row belongs
    to the k nearest (more ties than candidates), all rows are compared on the CPU.

    Args:
        vectors: float32[n, dim], each of unit norm, C-contiguous; may be mapped from disk.
        ann: A FAISS index of `vectors`, in their order.
        exact: It compares all rows.
        device: Torch device that compares the candidates.

    Raises:
        IndexProblem: `ann` does not hold these vectors.
    """

    kind = "gpu"

    def __init__(
        self, vectors: NDArray[np.float32], ann: Any, *, exact: bool, device: str = "cuda"
    ) -> None:
        super().__init__(vectors)
        check_ann(ann, vectors)
        self.is_exact = exact
        self._ann = ann
        self._device = device
        self._flat = FlatIndex(vectors)
        self._lock = threading.Lock()  # FAISS's resources serve one thread at a time

    def _batch_size(self, k: int) -> int:
        return max(1, min(_BATCH, _COMPARED_BYTES // (8 * self.dim * (k + MARGIN))))

    def _search(self, queries: NDArray[np.float32], k: int) -> Neighbors:
        width = min(k + MARGIN, len(self))
        if width > _MOST:
            return self._flat.search(queries, k)
        try:
            with self._lock:
                approximate, rows = self._ann.search(queries, width)
        except RuntimeError as error:
            raise _failed("search", error) from error
        exact = compare(self._vectors, rows, queries, self._device)
        of = np.repeat(np.arange(len(queries)), width)
        result = ranked(rows.ravel(), exact.ravel(), of, len(queries), k)
        again = (rows >= 0).sum(axis=1) < k
        if self.is_exact and width < len(self):
            again |= approximate[:, -1] > result.similarities[:, -1] - ROUNDING
            # A GPU that multiplies less exactly than in float32 shows here, and is not trusted.
            again |= ~(np.abs(approximate - exact) <= ROUNDING).all(axis=1)
        some = np.flatnonzero(again)
        if len(some):
            whole = self._flat.search(queries[some], k)
            result.rows[some], result.similarities[some] = whole.rows, whole.similarities
        return result


def compare(
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64],
    queries: NDArray[np.float32],
    device: str,
) -> NDArray[np.float32]:
    """float32[q, m]: the inner products of queries float32[q, dim] and their candidates.

    They are added up in float64, so that a pair has the same similarity in any company.

    Args:
        vectors: float32[n, dim].
        rows: int64[q, m], the candidates of each query; -1 has the similarity -inf.
        queries: float32[q, dim].
        device: Torch device that computes them.
    """
    import torch

    candidates = torch.from_numpy(np.asarray(vectors[np.maximum(rows, 0)])).to(device)
    asked = torch.from_numpy(np.array(queries)).to(device)
    products = (candidates.double() * asked.double()[:, None]).sum(dim=2)
    found: NDArray[np.float32] = products.float().cpu().numpy()
    found[rows < 0] = -np.inf
    return found


def gpu_index(vectors: NDArray[np.float32], *, nprobe: int | None = None) -> GpuIndex:
    """An index of the vectors, spread over all GPUs.

    Args:
        vectors: float32[n, dim], each of unit norm, C-contiguous; may be mapped from disk.
        nprobe: Visit so many of `lists_for(n)` inverted lists; None compares all rows.

    Raises:
        IndexProblem: FAISS has no GPU support or sees no GPU; vectors that are not finite or do not
            fit in the GPUs' memory.
    """
    check_vectors(vectors)
    check_gpus()
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        if not np.isfinite(vectors[start : start + _ROWS_AT_ONCE]).all():
            raise not_finite()
    faiss = import_faiss()
    ann = empty_ann(vectors, nprobe)
    gpus = range(faiss.get_num_gpus())
    try:
        resources = [faiss.StandardGpuResources() for _ in gpus]
        for each in resources:
            each.setTempMemory(TEMP_MEMORY)
        options = faiss.GpuMultipleClonerOptions()
        options.shard = True
        ann = faiss.index_cpu_to_gpu_multiple_py(resources, ann, co=options, gpus=list(gpus))
        ann.add(vectors)  # in one call, or shards would not number rows in this order
    except RuntimeError as error:
        raise _failed("index the vectors", error) from error
    return GpuIndex(vectors, ann, exact=nprobe is None)


def empty_ann(vectors: NDArray[np.float32], nprobe: int | None) -> Any:
    """The FAISS index on the CPU that is copied to the GPUs before it gets its rows.

    Args:
        vectors: Those that it will hold, to train on.
        nprobe: As for `gpu_index`.
    """
    if nprobe is None:
        return import_faiss().IndexFlatIP(vectors.shape[1])
    ann = train(f"IVF{lists_for(len(vectors))},Flat", vectors)
    ann.nprobe = min(nprobe, ann.nlist, _MOST)
    return ann


def check_gpus() -> None:
    """Refuse a FAISS or a machine that cannot search on a GPU.

    Raises:
        IndexProblem: FAISS has no GPU support, or sees no GPU.
    """
    faiss = import_faiss()
    if not hasattr(faiss, "StandardGpuResources"):
        raise IndexProblem(
            f"Searching on a GPU needs FAISS with GPU support; FAISS {faiss.__version__} here is a "
            "CPU build.",
            f"pip uninstall faiss-cpu, then {pip_install('gpu')}; or leave out --device cuda, then "
            "the CPU searches and a GPU encodes where there is one.",
        )
    # Without a working driver, FAISS ends the process instead of counting none.
    if not _driver_works() or faiss.get_num_gpus() == 0:
        raise IndexProblem(
            f"FAISS {faiss.__version__} sees no GPU.",
            "Look at what nvidia-smi shows, and at CUDA_VISIBLE_DEVICES.",
        )


def _driver_works() -> bool:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return bool(driver.cuInit(0) == 0)


def _failed(what: str, error: RuntimeError) -> IndexProblem:
    reason = str(error).strip().splitlines()[-1]
    hint = "Search on the CPU, and report it."
    if "memory" in str(error):
        hint = "End what else runs on the GPU (nvidia-smi lists it), or search on the CPU."
    return IndexProblem(f"FAISS cannot {what} on the GPU: {reason}", hint)
