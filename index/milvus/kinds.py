"""Index types of Milvus and their parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

from index.errors import IndexProblem

MilvusKind = Literal["gpu-flat", "gpu-ivf", "gpu-cagra"]  # beside those that folders have, too

TYPES = {
    "flat": "FLAT",
    "hnsw": "HNSW",
    "ivf": "IVF_FLAT",
    "compressed": "IVF_SQ8",
    "gpu-flat": "GPU_BRUTE_FORCE",
    "gpu-ivf": "GPU_IVF_FLAT",
    "gpu-cagra": "GPU_CAGRA",
}
EXACT = ("flat", "gpu-flat")
_METRIC = "IP"
_FEW = 50_000  # rows for which exact search is fast enough


def choose_milvus_kind(kind: str, n: int, target_recall: float | None) -> tuple[str, str]:
    """The index type for n rows, and why; `kind` is "auto" or one of `TYPES`.

    Raises:
        IndexProblem: Milvus has no such type.
    """
    if kind != "auto":
        if kind not in TYPES:
            raise IndexProblem(
                f"Milvus has no index of the type {kind}.", f"It has: {', '.join(TYPES)}."
            )
        return kind, "it was asked for"
    if target_recall == 1:
        return "flat", "all true neighbours are wanted (target recall 1)"
    if n <= _FEW:
        return "flat", f"{n:,} rows are few enough to compare them all"
    return "hnsw", f"{n:,} rows are too many to compare them all"


def build_params(kind: str, n: int) -> dict[str, Any]:
    """Index type and parameters for building, as Milvus takes them."""
    params: dict[str, Any] = {}
    if kind == "hnsw":
        params = {"M": 32, "efConstruction": 200}
    elif kind in ("ivf", "compressed", "gpu-ivf"):
        params = {"nlist": _lists(n)}
    elif kind == "gpu-cagra":
        params = {"intermediate_graph_degree": 64, "graph_degree": 32}
    return {"index_type": TYPES[kind], "metric_type": _METRIC, "params": params}


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
    """Search parameters as Milvus takes them; graphs keep at least k candidates."""
    least = {name: max(value, k) if name != "nprobe" else value for name, value in params.items()}
    return {"metric_type": _METRIC, "params": least}


def _lists(n: int) -> int:
    return int(max(1, min(4 * math.isqrt(n), n // 39 or 1, 65536)))
