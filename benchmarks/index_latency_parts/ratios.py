"""The ratios that matter, each of two figures from one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from index.search.build import choose_kind

Record = dict[str, Any]
Curve = list[tuple[float, float]]

ENOUGH = 0.98  # recall of the point that tables show of a peer
GRAPHS = ("hnswlib", "usearch")


def at_recall(curve: Sequence[tuple[float, float]], recall: float) -> float | None:
    """Queries/s that a curve of efforts reaches at a recall.

    Only efforts that no other one beats in both count. Between two of them, the logarithm of the
    queries/s is taken to be linear in the recall.

    Args:
        curve: Recall and queries/s of each effort.
        recall: That is wanted.

    Returns:
        None where no effort reaches it.
    """
    best: Curve = []
    for point in sorted(curve, key=lambda p: (-p[0], -p[1])):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    above = [point for point in best if point[0] >= recall]
    if not above:
        return None
    low, below = above[-1], best[len(above) : len(above) + 1]
    if not below or low[0] == recall:
        return low[1]
    (high, rate), (less, faster) = low, below[0]
    share = (high - recall) / (high - less)
    return math.exp(math.log(rate) * (1 - share) + math.log(faster) * share)


def curve_of(records: Sequence[Record], batch: str) -> Curve:
    """Recall and queries/s of each of some records of one system and size."""
    return [
        (r["recall"], r["queries_per_second"][batch])
        for r in records
        if r["recall"] is not None and batch in r["queries_per_second"]
    ]


def shown(records: Sequence[Record]) -> list[Record]:
    """One record of each system: its default, or the quickest that reaches the recall of 0.98.

    Args:
        records: Of one size, threads and k.
    """
    result = []
    for key in dict.fromkeys(r["system"] for r in records):
        own = [r for r in records if r["system"] == key]
        default = [r for r in own if r["default"]]
        good = [r for r in own if (r["recall"] or 0) >= ENOUGH]
        if default:
            result.append(default[0])
        elif good:
            result.append(max(good, key=lambda r: r["queries_per_second"]["1"]))
        else:
            result.append(max(own, key=lambda r: r["recall"] or 0))
    return result


def auto(records: Sequence[Record]) -> Record | None:
    """The record of what the product chooses by itself for this size."""
    kind = choose_kind(records[0]["n"], records[0]["dim"])[0]
    return next((r for r in records if r["system"] == kind and r["default"]), None)


def ratios(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Ratios of one size, threads and k.

    Returns:
        "what" it is, the "value" (more is better for the product, except memory's), and the two
        figures that it is of.
    """
    found: list[dict[str, Any]] = []
    of = {r["system"]: r for r in shown(records)}

    def add(what: str, ours: float | None, theirs: float | None, of_what: str) -> None:
        if ours and theirs:
            value = round(ours / theirs, 3)
            entry = {"what": what, "value": value, "ours": ours, "theirs": theirs}
            found.append(entry | {"of": of_what})

    for exact, peer in (("scan", "faiss-flat"), ("flat", "faiss-flat"), ("gpu", "torch-cuda")):
        if exact in of and peer in of:
            ours, theirs = of[exact], of[peer]
            for batch, rate in ours["queries_per_second"].items():
                other = theirs["queries_per_second"].get(batch)
                add(f"{exact} / {peer}, {_batch(batch)}", rate, other, "queries/s")
            add(f"{exact} / {peer}, p50", ours["p50_ms"], theirs["p50_ms"], "ms")
            both = ours["peak_bytes"], theirs["peak_bytes"]
            add(f"{exact} / {peer}, memory at its peak", *both, "bytes")
            both = ours["peak_anonymous_bytes"], theirs["peak_anonymous_bytes"]
            add(f"{exact} / {peer}, memory of its own at its peak", *both, "bytes")
    chosen = auto(records)
    graphs = [key for key in GRAPHS if key in of]
    if chosen is None or not graphs:
        return found
    for batch, rate in chosen["queries_per_second"].items():
        best = [
            at_recall(curve_of([r for r in records if r["system"] == key], batch), chosen["recall"])
            for key in graphs
        ]
        known = [value for value in best if value is not None]
        what = f"auto ({chosen['system']}) / best of {', '.join(graphs)}"
        what += f" at recall {chosen['recall']:.3f}, {_batch(batch)}"
        if known:
            add(what, rate, max(known), "queries/s")
        else:
            entry = {"what": what, "value": None, "ours": rate, "theirs": None}
            found.append(entry | {"of": "queries/s"})
    for key in graphs:
        add(f"auto ({chosen['system']}) / {key}, build", chosen["build_s"], of[key]["build_s"], "s")
        both = chosen["peak_bytes"], of[key]["peak_bytes"]
        add(f"auto ({chosen['system']}) / {key}, memory at its peak", *both, "bytes")
    return found


def _batch(batch: str) -> str:
    return "lone" if batch == "1" else f"batch {batch}"
