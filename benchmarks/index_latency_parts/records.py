"""From finished cells to one record for each way of asking, repeats pooled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from index_latency_parts.systems import SYSTEMS

Record = dict[str, Any]

_MEASURED = ("recall", "f1", "f1_change", "real_recall", "real_f1", "real_f1_change")
_PERCENTILES = (50, 95, 99)


def pooled(cells: Sequence[Record], bandwidths: Mapping[str, float]) -> list[Record]:
    """One record for each system, size, threads, effort and k.

    Args:
        cells: As `Runner.run` gives them.
        bandwidths: As `Runner.bandwidths` gives them.
    """
    together = defaultdict(list)
    for cell in cells:
        for measure in cell["measures"]:
            key = (cell["system"], cell["n"], cell["dim"], cell["threads"])
            together[*key, measure["point"], measure["k"]].append((cell, measure))
    return [_record(parts, bandwidths) for parts in together.values()]


def _record(parts: Sequence[tuple[Record, Record]], bandwidths: Mapping[str, float]) -> Record:
    first, measure = parts[0]
    system = SYSTEMS[first["system"]]
    lone = [second for _, m in parts for second in m["lone_s"]]
    calls = {
        size: [second for _, m in parts for second in m["batch_s"][size]]
        for size in measure["batch_s"]
    }
    # Of a repeat, queries / seconds; of the repeats, the median.
    rates = {"1": _median([len(m["lone_s"]) / sum(m["lone_s"]) for _, m in parts])}
    for size in calls:
        each = [int(size) * len(m["batch_s"][size]) / sum(m["batch_s"][size]) for _, m in parts]
        rates[size] = _median(each)
    build = first["build"]
    point = next(p for p in build["points"] if p["name"] == measure["point"])
    vectors = 4 * first["n"] * first["dim"]
    record: Record = {
        "when": max(cell["when"] for cell, _ in parts),
        "machine": first["machine"],
        "system": first["system"],
        "label": system.label,
        "n": first["n"],
        "dim": first["dim"],
        "threads": first["threads"],
        "device": system.on,
        "point": point["name"],
        "default": bool(point.get("default", system.exact)),
        "params": {name: point[name] for name in ("params", "effort") if name in point},
        "k": measure["k"],
        "data": first["data"],
        "sources": sorted({cell["sources"] for cell, _ in parts}) if system.ours else None,
        "repeats": len(parts),
        "build_s": round(build["seconds"], 3),
        "build_threads": build["threads"],
        "build_peak_bytes": _peak(build),
        "file_bytes": build["bytes"] + (vectors + 128 if build["vectors_too"] else 0),
        "load_s": _median([cell["load_s"] for cell, _ in parts]),
        "cold_ms": _median([1000 * cell["cold_s"] for cell, _ in parts]),
        "peak_bytes": max(_peak(cell) for cell, _ in parts),
        "peak_anonymous_bytes": max(cell["peak"].get("RssAnon", 0) for cell, _ in parts),
        "peak_mapped_bytes": max(cell["peak"].get("RssFile", 0) for cell, _ in parts),
        "before_anonymous_bytes": _median([c["memory_before"].get("RssAnon", 0) for c, _ in parts]),
        "device_bytes": first["memory"]["device"],
        "lone_queries": len(lone),
        "queries_per_second": rates,
    }
    for percent in _PERCENTILES:
        record[f"p{percent}_ms"] = round(float(np.percentile(lone, percent)) * 1000, 4)
    for name in _MEASURED:
        known = [m[name] for _, m in parts if name in m]
        record[name] = round(known[0], 5) if known else None
    limit = bandwidths.get("cuda" if system.on == "cuda" else str(first["threads"]))
    record["bandwidth_bytes_per_second"] = limit
    record["bandwidth_share"] = _shares(record, vectors, limit) if system.exact and limit else None
    record["lone_us"] = [_short(second) for second in lone]
    record["batch_us"] = {size: [_short(s) for s in seconds] for size, seconds in calls.items()}
    return record


def _shares(record: Record, vectors: int, limit: float) -> dict[str, float]:
    """The vectors' bytes over the time of a call, as a share of what memory gives, by batch.

    A search that reads fewer bytes than all vectors have may pass 1.
    """
    rates = record["queries_per_second"]
    return {size: round(vectors * rate / int(size) / limit, 4) for size, rate in rates.items()}


def _peak(of: Record) -> int:
    """The most bytes that were ever resident while it was measured."""
    return int(max(of["memory"].get("VmHWM", 0), 0))


def _median(values: Sequence[float]) -> float:
    return round(float(np.median(values)), 5)


def _short(seconds: float) -> float:
    """Microseconds with four digits that count."""
    return float(f"{seconds * 1e6:.4g}")
