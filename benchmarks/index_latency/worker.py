"""One build, or one cell's searches, in a process of its own.

    python -m benchmarks.index_latency.worker TASK.json

What is measured is written to the file that the task names. The caller sets OMP_NUM_THREADS and the
like, which has to be done before anything is loaded.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.index_latency.adapters import SYSTEMS
from benchmarks.index_latency.protocol import Floats, Point, Rows, Search

_FIELDS = re.compile(r"^(VmHWM|RssAnon|RssFile):\s+(\d+) kB", re.M)
_WARM = 3  # queries before any is timed
_MOST_S = 200  # of lone queries with one effort


def main() -> None:
    """Do the task."""
    task = json.loads(Path(sys.argv[1]).read_text())
    for name in SYSTEMS[task["system"]].needs:
        importlib.import_module(name)
    result = (search if "points" in task else build)(task)
    Path(task["out"]).write_text(json.dumps(result))


def memory_now() -> dict[str, int]:
    """Bytes of this process by the names of /proc/PID/status.

    VmHWM is the most that was ever resident; RssAnon is what the process has for itself, RssFile
    what it has mapped from files, which the kernel takes back when memory is short.
    """
    text = Path("/proc/self/status").read_text()
    return {name: int(value) * 1024 for name, value in _FIELDS.findall(text)}


def build(task: dict[str, Any]) -> dict[str, Any]:
    """Build a system's files: seconds until the default is there, and the efforts to measure."""
    started = time.perf_counter()
    points = SYSTEMS[task["system"]].build(
        Path(task["vectors"]), Path(task["folder"]), task["threads"]
    )
    first = next(points)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "points": [first, *points], "memory": memory_now()}


def search(task: dict[str, Any]) -> dict[str, Any]:
    """Load a system, ask it a first time, then many times in every way; rows found go to a file."""
    system, points = SYSTEMS[task["system"]], task["points"]
    queries: Floats = np.load(task["queries"])
    started = time.perf_counter()
    ask = system.open(Path(task["vectors"]), Path(task["folder"]), task["threads"], points[0])
    loaded = time.perf_counter()
    ask(queries[:1], task["ks"][0], points[0])
    first = time.perf_counter()
    # Graphs keep k candidates at least, so an effort far below k is the same as the next one.
    ways = [
        (point, k)
        for point, k in product(points, task["ks"])
        if not point.get("graph") or 2 * point["effort"] > k
    ]
    measures, lone = [], {}
    for point, k in ways:
        measured, lone[f"{point['name']}/{k}/lone"] = _measure(ask, queries, k, point, task)
        measures.append({"point": point["name"], "k": k, **measured})
    memory = memory_now() | {"device": _device_memory() if system.device == "cuda" else None}
    if task["rows"]:
        step = 256
        found = {
            f"{point['name']}/{k}": np.concatenate(
                [ask(queries[i : i + step], k, point) for i in range(0, len(queries), step)]
            )
            for point, k in ways
        }
        np.savez(task["rows"], **found, **lone)  # type: ignore[arg-type]
    return {
        "load_s": loaded - started,
        "cold_s": first - loaded,
        "measures": measures,
        "memory": memory,
    }


def _measure(
    ask: Search, queries: Floats, k: int, point: Point, task: dict[str, Any]
) -> tuple[dict[str, Any], Rows]:
    """Seconds of each lone query and of each call with a batch; the rows of the lone queries.

    And the CPU seconds that all threads took for a query, by the size of the batch.
    """
    for i in range(_WARM):
        ask(queries[i : i + 1], k, point)
    lone: list[float] = []
    rows: list[Rows] = []
    until = time.perf_counter() + _MOST_S
    before = time.process_time()
    for i in range(task["lone"]):
        at = (task["from"] + i) % len(queries)
        query = queries[at : at + 1]
        started = time.perf_counter()
        rows.append(ask(query, k, point))
        ended = time.perf_counter()
        lone.append(ended - started)
        if ended > until:
            break
    cpu = {"1": (time.process_time() - before) / len(lone)}
    batches = {}
    for size in task["batches"]:
        if size > 1:
            calls = _calls(ask, queries, k, point, size, task["batch_s"])
            batches[str(size)], cpu[str(size)] = calls
    return {"lone_s": lone, "batch_s": batches, "cpu_s": cpu}, np.concatenate(rows)


def _calls(
    ask: Search, queries: Floats, k: int, point: Point, size: int, least: float
) -> tuple[list[float], float]:
    """Seconds of calls with `size` queries each, `least` in all; the first is to warm up.

    A first call that takes longer than all are to take stands alone. And the CPU seconds that all
    threads took for a query, the first call included.
    """
    repeated = np.concatenate([queries] * (size // len(queries) + 2))
    seconds: list[float] = []
    at = 0
    before = time.process_time()
    while True:
        batch = np.ascontiguousarray(repeated[at : at + size])
        at = (at + size) % len(queries)
        started = time.perf_counter()
        ask(batch, k, point)
        seconds.append(time.perf_counter() - started)
        alone = len(seconds) == 1 and seconds[0] > least
        if alone or (len(seconds) > 1 and sum(seconds[1:]) >= least):
            cpu = (time.process_time() - before) / (size * len(seconds))
            return seconds if alone else seconds[1:], cpu


def _device_memory() -> int:
    """Bytes in use on the GPU, whoever uses them."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return int(total - free)


if __name__ == "__main__":
    main()
