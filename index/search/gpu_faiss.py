"""Search on a GPU by FAISS: its structure finds candidates, which are then compared in full."""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from index.distribution import pip_install
from index.errors import IndexProblem
from index.search.base import Neighbors, not_finite
from index.search.flat import MARGIN, FlatIndex
from index.search.library import import_faiss
from index.search.over_vectors import OverVectors, check_structure
from index.search.rerank import ROUNDING, ranked, similarities

FaissMethod = Literal["flat", "ivf", "cagra"]

# FAISS takes 1.5 GiB of the GPU's memory and 256 MiB of pinned memory for each resources object if
# it is not told otherwise. What does not fit in this much is allocated while it is needed.
TEMPORARY = 256 * 2**20
PINNED = 64 * 2**20

_MOST = {"flat": 2048, "ivf": 2048, "cagra": 512}  # candidates that FAISS's kernels can select
_QUERIES_AT_ONCE = 512
_WIDTH = 4  # times k candidates of an approximate structure are compared in full
_ROWS_AT_ONCE = 2**15
_LEAST_LIST, _TRAINED, _MOST_LISTS = 40, 64, 4096  # rows a list; of them trained on; lists
_PROBED = 8  # of the lists one in so many is visited
_LEAST_GRAPH = 1024  # rows that a graph can be made of
_GRAPH_DEGREE = 64


class FaissGpuIndex(OverVectors):
    """Candidates from a FAISS structure on a GPU, then full comparison with the vectors themselves.

    A "flat" structure compares all rows, and where a row that it did not return may belong to the
    k nearest, these are looked for on the CPU: so its neighbours, similarities and order are those
    of `FlatIndex`. "ivf" and "cagra" find about the nearest; where they find fewer than k, the CPU
    does. So it does beyond as many as a GPU can select (2,048; 512 for "cagra").

    Args:
        method: One of these.
        structure: A FAISS index of `vectors`, in their order.
        vectors: float32[n, dim], each of unit norm, C-contiguous; may be mapped from disk.
        lock: Held while the GPU works: FAISS's resources are for one thread at a time.
        parameters: Makes the parameters of a search for so many candidates; None for none.

    Raises:
        IndexProblem: The structure is not one of these vectors.
    """

    kind = "gpu"

    def __init__(
        self,
        method: FaissMethod,
        structure: Any,
        vectors: NDArray[np.float32],
        *,
        lock: threading.Lock,
        parameters: Callable[[int], Any] | None = None,
    ) -> None:
        super().__init__(vectors)
        check_structure(structure, vectors)
        self.method: FaissMethod = method
        self._structure = structure
        self._flat = FlatIndex(vectors)
        self._lock = lock
        self._parameters = parameters

    def _at_once(self, k: int) -> int:
        return _QUERIES_AT_ONCE

    def _search(self, queries: NDArray[np.float32], k: int) -> Neighbors:
        exact = self.method == "flat"
        least = min(k + MARGIN, len(self)) if exact else k
        width = min(least if exact else k * _WIDTH + MARGIN, len(self), _MOST[self.method])
        if width < least:
            return self._flat.search(queries, k)
        return self._compared(queries, k, width)

    def _compared(self, queries: NDArray[np.float32], k: int, width: int) -> Neighbors:
        """The k best of so many candidates that the GPU finds."""
        approximate, candidates = self._candidates(queries, width)
        there = (candidates >= 0) & (candidates < len(self))
        if self.method != "flat":  # a graph may reach a row twice
            order = np.argsort(candidates, axis=1, kind="stable")
            ordered = np.take_along_axis(candidates, order, axis=1)
            twice = np.zeros_like(there)
            twice[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
            there[np.arange(len(there))[:, None], order] &= ~twice
        elsewhere = there.sum(axis=1) < k
        there[elsewhere] = False
        candidates[elsewhere, :k], there[elsewhere, :k] = np.arange(k), True  # replaced below
        of, place = np.nonzero(there)
        rows = candidates[of, place]
        exact = similarities(self._vectors, rows, queries, of)
        result = ranked(rows, exact, of, len(queries), k)
        if self.method == "flat" and width < len(self):
            # A GPU that multiplies less exactly than in fp32 shows here, and is not believed.
            wrong = ~(np.abs(approximate[of, place] - exact) <= ROUNDING)
            elsewhere |= np.bincount(of, weights=wrong, minlength=len(queries)) > 0
            elsewhere |= approximate.min(axis=1) >= result.similarities[:, -1] - ROUNDING
        some = np.flatnonzero(elsewhere)
        if len(some):
            whole = self._flat.search(queries[some], k)
            result.rows[some], result.similarities[some] = whole.rows, whole.similarities
        return result

    def _candidates(
        self, queries: NDArray[np.float32], width: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        parameters = None if self._parameters is None else self._parameters(width)
        try:
            with self._lock:
                found, rows = self._structure.search(queries, width, params=parameters)
        except RuntimeError as error:
            raise _failed("search", error) from error
        return found, rows


def build(vectors: NDArray[np.float32], method: FaissMethod, device: int = 0) -> FaissGpuIndex:
    """Copy the vectors to a GPU that `check_faiss` has found there, and index them.

    Args:
        vectors: float32[n, dim], each of unit norm, C-contiguous; may be mapped from disk, then
            they are read from there.
        method: Of indexing.
        device: Which GPU.

    Raises:
        IndexProblem: Vectors that are not finite, that do not fit, or too few for a graph.
    """
    if method == "cagra" and len(vectors) < _LEAST_GRAPH:
        raise IndexProblem(
            f"A graph (cagra) needs at least {_LEAST_GRAPH:,} vectors, not {len(vectors):,}.",
            'Use kind="flat", which is as fast for so few.',
        )
    if len(vectors) == 0:
        method = "flat"
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        if not np.isfinite(vectors[start : start + _ROWS_AT_ONCE]).all():
            raise not_finite()
    make = {"flat": _flat, "ivf": _ivf, "cagra": _cagra}[method]
    resources, lock = _resources(device)
    try:
        with lock:
            structure = make(vectors, resources, device)
    except RuntimeError as error:
        raise _failed("index the vectors", error) from error
    parameters = _cagra_parameters if method == "cagra" else None
    return FaissGpuIndex(method, structure, vectors, lock=lock, parameters=parameters)


def check_faiss(method: FaissMethod, device: int) -> None:
    """Refuse what the FAISS that is installed, or this machine, cannot do.

    Raises:
        IndexProblem: FAISS has no GPU support or no cuVS; there is no such GPU.
    """
    faiss = import_faiss()
    if not hasattr(faiss, "StandardGpuResources"):
        raise IndexProblem(
            f'kind="{method}" needs FAISS with GPU support; FAISS {faiss.__version__} here is a '
            "CPU build.",
            f'pip uninstall faiss-cpu, then {pip_install("gpu")}; or kind="torch", which searches '
            "on a GPU without it.",
        )
    count = faiss_gpus()
    if device >= count:
        seen = "no GPU" if count == 0 else f"{count} GPU{'s' * (count > 1)}, counted from 0"
        raise IndexProblem(
            f"There is no cuda:{device}: FAISS {faiss.__version__} sees {seen}.",
            "Look at what nvidia-smi shows, and at CUDA_VISIBLE_DEVICES.",
        )
    has_cuvs = hasattr(faiss, "GpuIndexCagra") and "CUVS" in faiss.get_compile_options()
    if method == "cagra" and not has_cuvs:
        raise IndexProblem(
            f'kind="cagra" needs FAISS with cuVS; FAISS {faiss.__version__} here is built without.',
            'pip uninstall faiss-gpu, then pip install faiss-gpu-cuvs (CUDA 13); or kind="ivf".',
        )


def faiss_gpus() -> int:
    """How many GPUs the FAISS that is installed can use."""
    faiss = import_faiss()
    # Without a working driver, FAISS ends the process instead of counting none.
    if not hasattr(faiss, "StandardGpuResources") or not _driver_works():
        return 0
    return int(faiss.get_num_gpus())


def room_for(method: FaissMethod, n: int, dim: int) -> int:
    """About how many bytes of a GPU's memory an index of n vectors takes while it is made."""
    vectors = 4 * n * dim
    size = {
        "flat": vectors + 4 * n,
        "ivf": vectors * 3 // 2 + 8 * n,  # lists grow by being copied
        "cagra": vectors * 3 // 2 + 12 * n * _GRAPH_DEGREE,  # the graph, and one twice as dense
    }[method]
    return size + TEMPORARY


def _flat(vectors: NDArray[np.float32], resources: Any, device: int) -> Any:
    faiss = import_faiss()
    config = _config(faiss.GpuIndexFlatConfig(), device)
    structure = faiss.GpuIndexFlatIP(resources, vectors.shape[1], config)
    if len(vectors):
        # All at once: it takes just the memory that they need, and copies them from where they are.
        structure.add(vectors)
    return structure


def _ivf(vectors: NDArray[np.float32], resources: Any, device: int) -> Any:
    faiss = import_faiss()
    n, dim = vectors.shape
    lists = max(1, min(math.isqrt(n), n // _LEAST_LIST, _MOST_LISTS))
    config = _config(faiss.GpuIndexIVFFlatConfig(), device)
    structure = faiss.GpuIndexIVFFlat(resources, dim, lists, faiss.METRIC_INNER_PRODUCT, config)
    structure.cp.min_points_per_centroid = 1
    structure.train(np.ascontiguousarray(vectors[:: max(1, n // (_TRAINED * lists))]))
    structure.add(vectors)  # page by page
    structure.reclaimMemory()
    structure.nprobe = min(lists, max(8, lists // _PROBED))
    return structure


def _cagra(vectors: NDArray[np.float32], resources: Any, device: int) -> Any:
    faiss = import_faiss()
    config = faiss.GpuIndexCagraConfig()
    config.device = device
    config.graph_degree, config.intermediate_graph_degree = _GRAPH_DEGREE, 2 * _GRAPH_DEGREE
    # For unit vectors the nearest are the most similar, and a graph of distances has no vertex
    # that is near to everything, as one of inner products has.
    structure = faiss.GpuIndexCagra(resources, vectors.shape[1], faiss.METRIC_L2, config)
    structure.train(vectors)  # adds them as well
    return structure


def _cagra_parameters(width: int) -> Any:
    parameters = import_faiss().SearchParametersCagra()
    parameters.itopk_size = min(512, max(128, -(-width // 32) * 32))
    # One start in the graph misses much of a large one (github.com/NVIDIA/cuvs/issues/2102).
    parameters.num_random_samplings = 8
    return parameters


def _config(config: Any, device: int) -> Any:
    config.device = device
    parts: list[Any] = [config, getattr(config, "flatConfig", None)]  # that of the lists' centroids
    for part in parts:
        if hasattr(part, "use_cuvs"):
            part.use_cuvs = False  # FAISS's own kernels do it in fp32, and so do all its builds
    return config


_shared: dict[int, tuple[Any, threading.Lock]] = {}
_sharing = threading.Lock()


def _resources(device: int) -> tuple[Any, threading.Lock]:
    """FAISS's memory on a GPU, one for the process, and the lock of those that use it."""
    with _sharing:
        if device not in _shared:
            resources = import_faiss().StandardGpuResources()
            resources.setTempMemory(TEMPORARY)
            resources.setPinnedMemory(PINNED)
            _shared[device] = resources, threading.Lock()
        return _shared[device]


def _driver_works() -> bool:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return bool(driver.cuInit(0) == 0)


def _failed(what: str, error: RuntimeError) -> IndexProblem:
    reason = str(error).strip().splitlines()[-1]
    hint = "End what else runs on the GPU (nvidia-smi lists it), or search on the CPU."
    if "memory" not in str(error):
        hint = "Search on the CPU, and report it."
    return IndexProblem(f"FAISS cannot {what} on the GPU: {reason}", hint)
