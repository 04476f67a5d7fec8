"""Kinds of index that Milvus has, and their search parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.backends.flat import FlatIndex
from index.errors import IndexProblem
from index.milvus.server import Server

METRIC = "IP"
_TYPES = {
    "flat": "FLAT",
    "hnsw": "HNSW",
    "ivf": "IVF_FLAT",
    "compressed": "IVF_SQ8",
    "gpu-flat": "GPU_BRUTE_FORCE",
    "gpu-ivf": "GPU_IVF_FLAT",
    "gpu-cagra": "GPU_CAGRA",
}
EXACT = ("flat", "gpu-flat")
_FEW = 50_000  # rows that comparing all of them suits
_PROBES, _K = 200, 50
_LINKS, _EF_CONSTRUCTION = 32, 200


def choose_milvus_kind(kind: str, n: int, target_recall: float | None) -> tuple[str, str]:
    """The kind for n rows, and why.

    Raises:
        IndexProblem: Milvus does not have it.
    """
    if kind != "auto":
        if kind not in _TYPES:
            raise IndexProblem(
                f"Milvus has no index of the type {kind}.", f"It has: {', '.join(_TYPES)}."
            )
        return kind, "it was asked for"
    if target_recall == 1:
        return "flat", "all true neighbours are wanted (target recall 1)"
    if n <= _FEW:
        return "flat", f"{n:,} rows are few enough to compare them all"
    return "hnsw", f"{n:,} rows are too many to compare them all"


def build_params(kind: str, n: int) -> dict[str, Any]:
    """Type and parameters for building, as Milvus takes them."""
    params: dict[str, Any] = {}
    if kind == "hnsw":
        params = {"M": _LINKS, "efConstruction": _EF_CONSTRUCTION}
    elif kind in ("ivf", "compressed", "gpu-ivf"):
        params = {"nlist": _lists(n)}
    elif kind == "gpu-cagra":
        params = {"intermediate_graph_degree": 64, "graph_degree": 32}
    return {"index_type": _TYPES[kind], "metric_type": METRIC, "params": params}


def efforts(kind: str, n: int) -> Iterator[dict[str, int]]:
    """Search parameters from quick to thorough."""
    if kind == "hnsw":
        yield from ({"ef": ef} for ef in (64, 96, 128, 192, 256, 384, 512, 1024))
    elif kind in ("ivf", "compressed", "gpu-ivf"):
        lists = _lists(n)
        yield from ({"nprobe": min(2**i, lists)} for i in range(lists.bit_length() + 1))
    elif kind == "gpu-cagra":
        yield from ({"itopk_size": size} for size in (64, 128, 256, 512))
    else:
        yield {}


def search_params(params: dict[str, int], k: int) -> dict[str, Any]:
    """As Milvus takes them, for k neighbours: graphs keep k candidates at least."""
    least = {name: max(value, k) if name != "nprobe" else value for name, value in params.items()}
    return {"metric_type": METRIC, "params": least}


def tune_search(
    server: Server,
    collection: str,
    kind: str,
    vectors: NDArray[np.float32],
    ids: list[str],
    target: float,
) -> dict[str, Any]:
    """The least effort that finds the target share of the 50 nearest, on rows of the index.

    Args:
        server: To talk to.
        collection: Of the rows, loaded.
        kind: An approximate one.
        vectors: float32[n, dim], of the rows.
        ids: Of the rows.
        target: Share of the 50 nearest.

    Returns:
        "params", "target_recall" and the "recall" that was found.
    """
    n = len(vectors)
    k = min(_K, n - 1)
    rows = np.unique(np.linspace(0, n - 1, min(_PROBES, n)).astype(np.int64))
    queries = np.ascontiguousarray(vectors[rows])
    exact = FlatIndex(vectors).search(queries, k + 1)
    truth = [{ids[r] for r in near} for near in exact.rows.tolist()]
    chosen: dict[str, Any] = {}
    aim = target + 0.25 * (1 - target)  # new images are harder than these
    for params in efforts(kind, n):
        found = server.call(
            "search",
            collection,
            data=list(queries),
            limit=k + 1,
            search_params=search_params(params, k + 1),
            consistency_level="Bounded",
        )
        hits = sum(len({h["id"] for h in near} & t) for near, t in zip(found, truth, strict=True))
        recall = (hits - len(rows)) / (len(rows) * k)  # each finds itself
        chosen = {"params": params, "target_recall": target, "recall": round(recall, 4)}
        if recall >= aim:
            break
    return chosen


def _lists(n: int) -> int:
    return int(max(1, min(4 * math.isqrt(n), n // 39 or 1, 65536)))
