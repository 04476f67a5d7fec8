"""Making, keeping and opening what the kinds of index need beside the vectors.

Exact kinds are made in seconds, approximate ones are trained, and how much of them a search visits
is tuned until it finds the wanted share of the true neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.manifest import SEARCH_FILES
from index.progress import track
from index.search.base import VectorIndex, not_finite
from index.search.faiss_ivf import (
    TUNED_K,
    ApproximateIndex,
    ApproximateKind,
    candidates_for,
    set_effort,
)
from index.search.flat import FlatIndex
from index.search.library import import_faiss
from index.search.pca_scan import ScanIndex
from index.search.rerank import ROUNDING, similarities
from index.search.scan_table import ROWS_AT_ONCE as SCANNED_AT_ONCE
from index.search.scan_table import ScanTable, fit_axes, fit_table

Kind = Literal["flat", "scan", "hnsw", "ivf", "compressed"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DEFAULT_RECALL = 0.98

(AXES, TABLE), (STRUCTURE,) = SEARCH_FILES["scan"], SEARCH_FILES["ivf"]
_ROWS_AT_ONCE = 32768
_LEAST_LIST = 40  # rows a list, or training says it is not enough
_TRAINED = 64  # rows a list that it is trained on
_PROBES = 200
_WIDTHS: Mapping[str, tuple[int, ...]] = {
    "hnsw": (1, 2, 4),
    "ivf": (2, 4, 8, 16),
    "compressed": (1, 2, 4),
}
# What a visited row and a candidate cost, in nanoseconds: measured with
# benchmarks/index_latency.py, rounded. Only the ratio matters.
_COSTS: Mapping[str, tuple[float, float]] = {
    "hnsw": (1000.0, 100.0),
    "ivf": (30.0, 1500.0),
    "compressed": (40.0, 5000.0),
}


def make_structure(
    kind: Kind,
    vectors: NDArray[np.float32],
    folder: Path,
    *,
    target_recall: float = DEFAULT_RECALL,
) -> dict[str, Any]:
    """Write what `kind` needs beside the vectors into `folder`: the files `SEARCH_FILES[kind]`.

    The same vectors give the same bytes, on as many threads. Memory does not grow with vectors
    that are mapped from disk, beyond the structure itself.

    Args:
        kind: Of the index.
        vectors: float32[n, dim] of unit norm, C-contiguous, n at least 1.
        folder: Exists.
        target_recall: For approximate kinds, the share of the 50 nearest that a search is to find.

    Returns:
        Parameters for `open_structure`, as JSON types; for approximate kinds with the recall that
        was measured on rows of the index itself.

    Raises:
        IndexProblem: The target is not above 0 and at most 1.
    """
    if not 0 < target_recall <= 1:
        raise IndexProblem(f"The target recall must be above 0 and at most 1, not {target_recall}.")
    if kind == "flat":
        return {}
    if kind == "scan":
        axes = fit_axes(vectors)
        np.save(folder / AXES, axes, allow_pickle=False)
        shape = (len(vectors), axes.shape[1] + 1)
        table = np.lib.format.open_memmap(folder / TABLE, "w+", np.float32, shape)
        steps = -(-len(vectors) // SCANNED_AT_ONCE)
        label = f"Indexing (by {SCANNED_AT_ONCE:,})"
        done = 0
        for part in track(fit_table(vectors, axes), total=steps, label=label):
            table[done : done + len(part)] = part
            done += len(part)
        table.flush()
        return {"width": shape[1]}
    structure = _trained(kind, vectors)
    faiss = import_faiss()
    threads = faiss.omp_get_max_threads()
    try:
        if kind == "hnsw":
            faiss.omp_set_num_threads(1)  # several insert in an order that is never the same
        starts = range(0, len(vectors), _ROWS_AT_ONCE)
        for start in track(starts, total=len(starts), label=f"Indexing (by {_ROWS_AT_ONCE:,})"):
            structure.add(np.ascontiguousarray(vectors[start : start + _ROWS_AT_ONCE]))
    finally:
        faiss.omp_set_num_threads(threads)
    faiss.write_index(structure, str(folder / STRUCTURE))
    return tuned(kind, structure, vectors, target_recall)


def open_structure(
    kind: str, vectors: NDArray[np.float32], folder: Path, params: Mapping[str, Any]
) -> VectorIndex:
    """The index over `vectors` from the files that `make_structure` has written.

    Args:
        kind: Of the index.
        vectors: The same.
        folder: Holds the files, which are believed: check them before.
        params: What `make_structure` returned.

    Raises:
        IndexProblem: Files and vectors do not fit together, or FAISS cannot read its file.
    """
    if kind == "flat":
        return FlatIndex(vectors)
    if kind == "scan":
        axes = np.load(folder / AXES, allow_pickle=False)
        table = np.load(folder / TABLE, mmap_mode="r", allow_pickle=False)
        return ScanIndex(vectors, ScanTable(axes, table))
    faiss = import_faiss()
    try:
        structure = faiss.read_index(str(folder / STRUCTURE))
        effort, width = int(params["effort"]), int(params["width"])
    except RuntimeError as error:
        raise IndexProblem(
            f"FAISS {faiss.__version__} cannot read {STRUCTURE}: {str(error).splitlines()[-1]}",
            "It was written by another version: `annotator compact` with that version, or build "
            "the index again.",
        ) from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise IndexProblem(f"The search parameters are damaged: {error!r}.") from error
    if not 1 <= effort < 2**31 or not 1 <= width < 2**31:
        raise IndexProblem(f"The search parameters are damaged: {effort=}, {width=}.")
    return ApproximateIndex(
        cast(ApproximateKind, kind), structure, vectors, effort=effort, width=width
    )


def lists_for(n: int) -> int:
    """How many inverted lists suit n rows: about their square root, a power of two."""
    return int(max(1, min(2 ** round(math.log2(max(math.sqrt(n), 1))), n // _LEAST_LIST, 8192)))


def _trained(kind: Kind, vectors: NDArray[np.float32]) -> Any:
    faiss = import_faiss()
    n, dim = vectors.shape
    lists = lists_for(n)
    # A random rotation spreads what the bits have to say evenly over the numbers.
    factory = {
        "hnsw": "HNSW32_SQ8",
        "ivf": f"RR{dim},IVF{lists},RaBitQfs",
        "compressed": f"RR{dim},IVF{lists},RaBitQfs4",
    }[kind]
    structure = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    wanted = 65536
    if kind == "hnsw":
        faiss.downcast_index(structure).hnsw.efConstruction = 100
    else:
        clustering = faiss.extract_index_ivf(structure).cp
        clustering.max_points_per_centroid = _TRAINED
        clustering.min_points_per_centroid = 1
        wanted = max(_TRAINED * lists, 65536)
    sample = np.ascontiguousarray(vectors[:: max(1, n // wanted)])
    if not np.isfinite(sample).all():
        raise not_finite()
    structure.train(sample)
    return structure


def tuned(
    kind: Kind, structure: Any, vectors: NDArray[np.float32], target: float
) -> dict[str, Any]:
    """The cheapest effort and width that find the target share, on rows of the index itself.

    Args:
        kind: An approximate one.
        structure: The FAISS index of `vectors` that `make_structure` writes.
        vectors: float32[n, dim].
        target: Share of the 50 nearest.

    Returns:
        As `make_structure`.
    """
    n = len(vectors)
    k = min(TUNED_K, max(n - 1, 1))
    probes = np.unique(np.linspace(0, n - 1, min(_PROBES, n)).astype(np.int64))
    queries = np.ascontiguousarray(vectors[probes])
    # A row finds itself: it is left out on both sides.
    exact = FlatIndex(vectors).search(queries, min(k + 1, n))
    kth = exact.similarities[:, -1] - ROUNDING
    lists = lists_for(n)
    efforts = [2**i for i in range(4, 11)] if kind == "hnsw" else _powers_to(lists)
    visited = 1.0 if kind == "hnsw" else n / lists
    row_cost, pair_cost = _COSTS[kind]
    # A quarter of the way from the target to everything: new images are harder than these.
    aim = target + 0.25 * (1 - target)
    trials: list[tuple[float, int, int, float]] = []
    for effort in efforts:
        reached = any(recall >= aim for _, _, _, recall in trials)
        set_effort(structure, effort)
        widest = min(candidates_for(TUNED_K, max(_WIDTHS[kind])), n)
        found = structure.search(queries, widest)[1]
        of, place = np.nonzero(found >= 0)
        few = np.bincount(of, minlength=len(probes)) < k  # for these a search compares all rows
        rows = found[of, place]
        good = similarities(vectors, rows, queries, of) >= kth[of]
        good &= rows != probes[of]
        for width in _WIDTHS[kind]:
            seen = good & (place < candidates_for(TUNED_K, width))
            hits = np.minimum(np.bincount(of[seen], minlength=len(probes)), k)
            hits[few] = k
            cost = effort * visited * row_cost + width * TUNED_K * pair_cost
            trials.append((cost, effort, width, float(hits.mean()) / k))
        if reached or trials[-1][3] >= 1.0:
            break  # one effort more might do with fewer candidates, two will not
    enough = [trial for trial in trials if trial[3] >= aim]
    _, effort, width, recall = min(enough) if enough else max(trials, key=lambda t: (t[3], -t[0]))
    return {
        "effort": effort,
        "width": width,
        "target_recall": target,
        "recall": round(recall, 4),
    }


def _powers_to(most: int) -> list[int]:
    """1, 2, 4, ... and `most`."""
    return sorted({min(2**i, most) for i in range(most.bit_length() + 1)})
