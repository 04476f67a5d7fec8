"""Search on a GPU: by FAISS where its GPU build is installed, else by a scan in torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.search.base import Neighbors, VectorIndex, check_vectors, not_finite
from index.search.flat import FlatIndex
from index.search.gpu_faiss import FaissMethod, build, check_faiss, faiss_gpus, room_for
from index.search.over_vectors import OverVectors
from index.search.rerank import ROUNDING, ranked, similarities
from index.search.shared_setting import SharedSetting

GpuKind = Literal["auto", "torch", "flat", "ivf", "cagra"]
Precision = Literal["fp16", "bf16", "fp32"]

SCRATCH = 512 * 2**20  # bytes a search may take beside the vectors
_MARGIN = 64  # candidates beyond k
_QUERIES_AT_ONCE = 256
_BYTES_A_SCORE = 32  # a score, what finds the highest ones, and the places of those
_BYTES_A_CANDIDATE = 48  # score and row, twice while two lists of them are merged
_LONGEST = 2.0  # of unit norm, or far from it
_DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


def gpu_index(
    vectors: NDArray[np.float32], *, device: str = "cuda", kind: GpuKind = "auto"
) -> VectorIndex:
    """An index whose search runs on a GPU.

    Args:
        vectors: float32[n, dim], each of unit norm, C-contiguous; may be mapped from disk.
        device: "cuda", or "cuda:1" for the second one.
        kind: "auto" is "flat" where FAISS has GPU support, else "torch". "torch" and "flat" find
            the true neighbours, "ivf" and "cagra" about them.

    Raises:
        IndexProblem: No such GPU; a FAISS without GPU support or cuVS; vectors that do not fit in
            the GPU's free memory, or are not finite.
    """
    check_vectors(vectors)
    number = _device_number(device)
    if kind == "auto":
        kind = "flat" if faiss_gpus() > 0 else "torch"
    if kind == "torch":
        _check_torch(number)
        return TorchScanIndex(vectors, f"cuda:{number}")
    method: FaissMethod = kind
    check_faiss(method, number)
    if _import_torch().cuda.is_available():  # the only one of the two that knows what is free
        check_room(room_for(method, *vectors.shape), f"cuda:{number}")
    return build(vectors, method, number)


def check_room(needed: int, device: str) -> None:
    """Refuse what does not fit.

    Args:
        needed: Bytes.
        device: Such as "cuda:0".

    Raises:
        IndexProblem: Less is free there; says how much.
    """
    cuda = _import_torch().cuda
    free, total = cuda.mem_get_info(device)
    free += cuda.memory_reserved(device) - cuda.memory_allocated(device)  # torch's own, unused
    if needed > free:
        raise IndexProblem(
            f"Searching on {device} needs {_gib(needed)} there for the vectors and to work with; "
            f"{_gib(free)} of {_gib(total)} are free.",
            "End what else runs on it (nvidia-smi lists it), choose another device, or search on "
            "the CPU.",
        )


class TorchScanIndex(OverVectors):
    """Exact search by a scan in half precision, whose error is bounded, and full comparison.

    With x~ and q~ what rounding leaves of a row x and a query q, by Cauchy and Schwarz

        |q.x - q~.x~| <= |q - q~| |x| + |q~| |x - x~|,

    whose norms are computed; with what adding up q~.x~ may lose, this is how wrong a scanned
    similarity can be. The k + 64 rows with the highest ones are compared in full. Where a row
    outside of them may belong, all rows are scanned again, and those that may are compared in full.
    So the neighbours, their similarities and their order are those of `FlatIndex`, always.

    Args:
        vectors: float32[n, dim], each of unit norm, C-contiguous; may be mapped from disk.
        device: A torch device that holds them, such as "cuda:0"; "cpu" works too, and is slow.
        precision: In which it holds them.
        scratch: Bytes that a search may take there beside them.

    Raises:
        IndexProblem: The vectors do not fit, are not finite or far from unit norm.
    """

    kind = "gpu"
    method = "torch"

    def __init__(
        self,
        vectors: NDArray[np.float32],
        device: str,
        *,
        precision: Precision = "fp16",
        scratch: int = SCRATCH,
    ) -> None:
        super().__init__(vectors)
        self._torch = torch = _import_torch()
        self._flat = FlatIndex(vectors)
        self._scratch = scratch
        self._dtype = getattr(torch, _DTYPES[precision])
        self._on_gpu = torch.device(device).type == "cuda"
        if self._on_gpu:
            check_room(vectors.size * self._dtype.itemsize + scratch, device)
        self._held = torch.empty(vectors.shape, dtype=self._dtype, device=device)
        self._norm, self._lost = self._hold()
        self._wide = self._on_gpu and precision != "fp32" and self._gives_fp32()
        # What an inner product of unit vectors loses in being added up in fp32, by units that may
        # cut off instead of rounding, and in being returned.
        self._adding = (self.dim + 2) * 2.0**-23
        if not self._wide:
            self._adding += float(torch.finfo(self._dtype).eps)
        if self._on_gpu and precision == "fp32":
            self._adding += 2.0**-9  # torch may have been told to multiply in TF32

    def _at_once(self, k: int) -> int:
        room = self._scratch // 4 // (_BYTES_A_CANDIDATE * self._width(k))
        return min(_QUERIES_AT_ONCE, max(1, room))

    def _width(self, k: int) -> int:
        return min(k + _MARGIN, len(self))

    def _search(self, queries: NDArray[np.float32], k: int) -> Neighbors:
        width = self._width(k)
        rounded, error = self._rounded(queries)
        scanned, candidates = self._highest(rounded, width)
        of, rows = np.repeat(np.arange(len(queries)), width), candidates.ravel()
        exact = similarities(self._vectors, rows, queries, of)
        result = ranked(rows, exact, of, len(queries), k)
        if width == len(self):
            return result
        kth = result.similarities[:, -1]
        # Hardware that is less exact than it is held to be shows here, and is not believed.
        wrong = (np.abs(scanned - exact.reshape(scanned.shape)) > error[:, None]).any(axis=1)
        unsure = ~wrong & (scanned.min(axis=1) + error >= kth)
        for mask in (wrong, unsure):
            some = np.flatnonzero(mask)
            if len(some) == 0:
                continue
            if mask is wrong:
                better = self._flat.search(queries[some], k)
            else:
                better = self._above(rounded, queries, some, kth[some] - error[some], k)
            result.rows[some], result.similarities[some] = better.rows, better.similarities
        return result

    def _hold(self) -> tuple[float, float]:
        """Copy the vectors to the device; the longest norm of a row and of what rounding loses."""
        torch, norm, lost = self._torch, 0.0, 0.0
        at_once = max(1, min(2**16, self._scratch // (16 * max(self.dim, 1))))
        for start in range(0, len(self), at_once):
            # A copy: torch warns of arrays that cannot be written to, as those mapped from disk.
            part = torch.from_numpy(np.array(self._vectors[start : start + at_once]))
            part = part.to(self._held.device)
            held = self._held[start : start + len(part)]
            held.copy_(part)
            norms = torch.linalg.vector_norm(part, dim=1)
            longest = float(norms.max())
            if not np.isfinite(longest):
                raise not_finite()
            if longest > _LONGEST:
                raise IndexProblem(
                    f"The vectors must be of unit norm; row {start + int(norms.argmax())} has norm "
                    f"{longest:.4g}.",
                    "Divide each vector by its norm.",
                )
            norm = max(norm, longest)
            lost = max(lost, float(torch.linalg.vector_norm(part - held.float(), dim=1).max()))
        return norm * 1.001, lost * 1.001  # themselves rounded

    def _rounded(self, queries: NDArray[np.float32]) -> tuple[Any, NDArray[np.float64]]:
        """The queries on the device, [q, dim]; float64[q], how wrong a similarity can be."""
        rounded = self._torch.from_numpy(np.array(queries)).to(self._dtype)
        left = rounded.double().numpy()
        lost = np.linalg.norm(queries - left, axis=1)
        own = np.linalg.norm(left, axis=1)
        error = lost * self._norm + own * self._lost
        error += own * (self._norm + self._lost) * self._adding
        return rounded.to(self._held.device), error + ROUNDING

    def _highest(self, queries: Any, width: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The highest scanned similarities, float32[q, width] in no order, and their rows."""
        torch = self._torch
        best, rows = None, None
        for start, stop in self._shards(len(queries)):
            found, places = self._scores(queries, start, stop).topk(
                min(width, stop - start), dim=1, sorted=False
            )
            places += start
            if best is not None:
                found, places = torch.cat([best, found], 1), torch.cat([rows, places], 1)
                found, order = found.topk(min(width, found.shape[1]), dim=1, sorted=False)
                places = places.gather(1, order)
            best, rows = found, places
        assert best is not None and rows is not None
        return best.cpu().numpy(), rows.cpu().numpy()

    def _above(
        self,
        rounded: Any,
        queries: NDArray[np.float32],
        some: NDArray[np.int64],
        least: NDArray[np.float64],
        k: int,
    ) -> Neighbors:
        """The k nearest of all rows whose scanned similarity is at least `least`, float64[some]."""
        torch = self._torch
        device = self._held.device
        chosen = rounded[torch.from_numpy(some).to(device)]
        queries = np.ascontiguousarray(queries[some])
        # Rounded down, or a row that just reaches it would be lost.
        below = np.nextafter(least.astype(np.float32), np.float32(-np.inf))
        reached = torch.from_numpy(below).to(device)[:, None]
        best = _Best(k)
        for start, stop in self._shards(len(chosen)):
            pairs = torch.nonzero(self._scores(chosen, start, stop) >= reached).cpu().numpy()
            of, rows = pairs[:, 0], pairs[:, 1] + start
            best.add(of, rows, similarities(self._vectors, rows, queries, of))
        if np.bincount(best.of, minlength=len(some)).min() < k:  # the bound did not hold
            return self._flat.search(queries, k)
        return ranked(best.rows, best.found, best.of, len(some), k)

    def _shards(self, queries: int) -> Iterator[tuple[int, int]]:
        """From and to which rows are scanned together."""
        at_once = max(1, self._scratch * 3 // 4 // (_BYTES_A_SCORE * queries))
        for start in range(0, len(self), at_once):
            yield start, min(start + at_once, len(self))

    def _scores(self, queries: Any, start: int, stop: int) -> Any:
        """float32[q, stop - start]: scanned similarities."""
        rows = self._held[start:stop].T
        if self._wide:
            return self._torch.mm(queries, rows, out_dtype=self._torch.float32)
        with _added_up_in_fp32(self._torch, self._on_gpu):
            return (queries @ rows).float()

    def _gives_fp32(self) -> bool:
        """Whether torch returns products of half precision as they were added up (from 2.8)."""
        one = self._torch.zeros((16, 16), dtype=self._dtype, device=self._held.device)
        try:
            self._torch.mm(one, one, out_dtype=self._torch.float32)
        except (TypeError, RuntimeError):
            return False
        return True


class _Best:
    """The k best pairs of each query among all that were added.

    Attributes:
        of: int64[p], which query.
        rows: int64[p].
        found: float32[p], their similarities.
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self.of = np.empty(0, np.int64)
        self.rows = np.empty(0, np.int64)
        self.found = np.empty(0, np.float32)

    def add(
        self, of: NDArray[np.int64], rows: NDArray[np.int64], found: NDArray[np.float32]
    ) -> None:
        of, rows = np.append(self.of, of), np.append(self.rows, rows)
        found = np.append(self.found, found)
        order = np.lexsort((rows, -found, of))
        place = np.arange(len(of)) - np.searchsorted(of[order], of[order])
        kept = order[place < self._k]
        self.of, self.rows, self.found = of[kept], rows[kept], found[kept]


@cache
def _fp32_sums(torch: Any) -> SharedSetting:
    """Products of half precision added up in fp32 throughout; torch allows less by default."""
    settings = torch.backends.cuda.matmul
    names = [f"allow_{name}_reduced_precision_reduction" for name in ("fp16", "bf16")]

    def change() -> Callable[[], None]:
        before = [getattr(settings, name) for name in names]
        _set(settings, names, [False, False])
        return lambda: _set(settings, names, before)

    return SharedSetting(change)


def _set(settings: Any, names: Sequence[str], values: Sequence[Any]) -> None:
    for name, value in zip(names, values, strict=True):
        setattr(settings, name, value)


def _added_up_in_fp32(torch: Any, on_gpu: bool) -> AbstractContextManager[None]:
    return _fp32_sums(torch) if on_gpu else nullcontext()


def _device_number(device: str) -> int:
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if match is None:
        raise IndexProblem(
            f'The device of a GPU index must be "cuda" or "cuda:N", not "{device}".',
            "For the CPU choose an index of another kind, such as flat or scan.",
        )
    return int(match[1] or 0)


def _check_torch(number: int) -> None:
    torch = _import_torch()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise IndexProblem(
            f"torch {torch.__version__} sees no CUDA device here, and so cannot search on one.",
            "Look whether nvidia-smi shows a GPU and torch is a build for CUDA, or search on the "
            "CPU.",
        )
    if number >= count:
        raise IndexProblem(
            f"There is no cuda:{number}: torch sees {count} CUDA device{'s' * (count > 1)}.",
            "They are counted from 0, among those in CUDA_VISIBLE_DEVICES.",
        )


def _import_torch() -> Any:
    try:
        import torch
    except (ImportError, OSError) as error:
        raise IndexProblem(f"torch does not load: {error}", "pip install torch") from error
    return torch


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
