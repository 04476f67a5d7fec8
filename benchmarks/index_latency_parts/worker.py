"""One build, or one cell's searches, in a process of its own.

    python -m index_latency_parts.worker TASK.json

What is measured is written to the file that the task names. How the task came to its threads is
the caller's affair: OMP_NUM_THREADS and the like have to be set before anything is loaded.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_latency_parts.cuda import device_memory, read_bandwidth
from index_latency_parts.files import write_json
from index_latency_parts.process import memory_now
from index_latency_parts.systems import SYSTEMS, Point, Searcher

Floats = NDArray[np.float32]

_WARM = 3  # queries before any is timed


def main() -> None:
    """Do the task."""
    task = json.loads(Path(sys.argv[1]).read_text())
    stages: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "build": build,
        "search": search,
        "bandwidth": bandwidth,
    }
    result = stages[task["stage"]](task)
    write_json(Path(task["out"]), result)


def build(task: dict[str, Any]) -> dict[str, Any]:
    """Build a system's files; how long it took, and the efforts to measure."""
    system = SYSTEMS[task["system"]]
    for name in system.needs:
        importlib.import_module(name)
    started = time.perf_counter()
    points = system.build(Path(task["vectors"]), Path(task["folder"]), task["threads"])
    return {"seconds": time.perf_counter() - started, "points": points, "memory": memory_now()}


def search(task: dict[str, Any]) -> dict[str, Any]:
    """Load a system, ask it a first time, then many times in every way; rows found go to a file."""
    system, points = SYSTEMS[task["system"]], task["points"]
    queries: Floats = np.load(task["queries"])
    for name in system.needs:
        importlib.import_module(name)
    before = memory_now()
    started = time.perf_counter()
    searcher = system.open(Path(task["vectors"]), Path(task["folder"]), task["threads"], points[0])
    loaded = time.perf_counter()
    searcher.search(queries[:1], task["ks"][0])
    first = time.perf_counter()
    found: dict[str, NDArray[np.int64]] = {}
    measures = []
    for point in points:
        searcher.use(point)
        for k in filter(partial(_differs, point), task["ks"]):
            measured = _measure(searcher, queries, k, task)
            measures.append({"point": point["name"], "k": k, **measured})
    after = memory_now() | {"device": device_memory() if system.on == "cuda" else None}
    if task["keep_rows"]:
        for point in points:
            searcher.use(point)
            for k in filter(partial(_differs, point), task["ks"]):
                found[f"{point['name']}/{k}"] = _all(searcher, queries, k)
        np.savez(Path(task["out"]).with_suffix(".npz"), **found)  # type: ignore[arg-type]
    return {
        "load_s": loaded - started,
        "cold_s": first - loaded,
        "measures": measures,
        "memory_before": before,
        "memory": after,
    }


def bandwidth(task: dict[str, Any]) -> dict[str, Any]:
    """Bytes a second that this machine reads from memory, with the task's threads."""
    if task["device"] == "cuda":
        return {"bytes_per_second": read_bandwidth()}
    from concurrent.futures import ThreadPoolExecutor

    threads, size = task["threads"], 2**28
    parts = [np.ones(size // threads, np.float32) for _ in range(threads)]
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(8):
            started = time.perf_counter()
            list(pool.map(lambda part: float(part @ part), parts))
            seconds = time.perf_counter() - started
            best = max(best, 4 * sum(map(len, parts)) / seconds)
    return {"bytes_per_second": best}


def _differs(point: Point, k: int) -> bool:
    """Whether an effort is another one than the next: graphs keep k candidates at least."""
    return not point.get("graph") or 2 * point["effort"] > k


def _measure(
    searcher: Searcher, queries: Floats, k: int, task: dict[str, Any]
) -> dict[str, list[float] | dict[str, list[float]]]:
    """Seconds of each lone query, and of each call with a batch."""
    for i in range(_WARM):
        searcher.search(queries[i : i + 1], k)
    lone: list[float] = []
    until = time.perf_counter() + task["most_s"]
    for i in range(task["lone"]):
        at = (task["from"] + i) % len(queries)
        query = queries[at : at + 1]
        started = time.perf_counter()
        searcher.search(query, k)
        ended = time.perf_counter()
        lone.append(ended - started)
        if ended > until:
            break
    batches = {
        str(size): _calls(searcher, queries, k, size, task["batch_s"])
        for size in task["batches"]
        if size > 1
    }
    return {"lone_s": lone, "batch_s": batches}


def _calls(searcher: Searcher, queries: Floats, k: int, size: int, least: float) -> list[float]:
    """Seconds of calls with `size` queries each, `least` in all; the first is to warm up.

    A first call that takes longer than all are to take stands alone.
    """
    repeated = np.concatenate([queries] * (size // len(queries) + 2))
    seconds: list[float] = []
    at, spent = 0, 0.0
    while True:
        batch = np.ascontiguousarray(repeated[at : at + size])
        at = (at + size) % len(queries)
        started = time.perf_counter()
        searcher.search(batch, k)
        seconds.append(time.perf_counter() - started)
        if len(seconds) == 1 and seconds[0] > least:
            return seconds
        spent += seconds[-1] if len(seconds) > 1 else 0.0
        if spent >= least:
            return seconds[1:]


def _all(searcher: Searcher, queries: Floats, k: int) -> NDArray[np.int64]:
    step = 256
    parts = [searcher.search(queries[i : i + step], k) for i in range(0, len(queries), step)]
    return np.concatenate(parts)


if __name__ == "__main__":
    main()
