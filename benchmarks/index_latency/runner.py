"""Every cell (system, rows, dimensions, threads, repeat) measured once, in a process of its own."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.index_latency.adapters import SYSTEMS
from benchmarks.index_latency.data import Dataset, prepare
from benchmarks.index_latency.protocol import System
from benchmarks.index_latency.recall import recall, similarities
from benchmarks.records import Record, machine, now

_ROOT = Path(__file__).parents[2]


class WorkerFailed(RuntimeError):
    """A worker ended without a result; says why."""


@dataclass(frozen=True)
class Grid:
    """What is measured.

    Attributes:
        systems: Keys of `SYSTEMS`.
        n: Numbers of rows.
        dims: Lengths of vectors.
        threads: Of the searches.
        ks: Neighbours asked for.
        batches: Queries of a call, besides lone ones.
        repeats: Processes a cell.
        lone: Lone queries in all of them.
        batch_s: Seconds of calls with each batch, in each process.
        build_s: Seconds after which a build is given up; None for never.
    """

    systems: tuple[str, ...]
    n: tuple[int, ...]
    dims: tuple[int, ...]
    threads: tuple[int, ...]
    ks: tuple[int, ...]
    batches: tuple[int, ...]
    repeats: int = 3
    lone: int = 1000
    batch_s: float = 1.0
    build_s: float | None = None


def measure(grid: Grid, work: Path) -> Iterator[Record]:
    """The result of every cell that could be measured, from `work` where it is finished.

    Repeats of a cell are apart from each other, so that a bad minute spoils one of them.
    """
    here = machine()
    apart = ("systems", "n", "dims", "threads", "build_s")
    how = {k: v for k, v in asdict(grid).items() if k not in apart}
    sizes = sorted(itertools.product(grid.n, grid.dims), key=lambda size: size[0] * size[1])
    for n, dim in sizes:
        data = prepare(work, n, dim)
        for repeat, threads, key in itertools.product(
            range(grid.repeats), grid.threads, grid.systems
        ):
            system, name = SYSTEMS[key], f"{key}, {n:,} x {dim}, {threads} threads"
            about = [key, data.name, threads, repeat, how, here, _code(system)]
            path = work / "cells" / f"{_digest(*about)}.json"
            if not path.exists():
                try:
                    cell = _cell(grid, system, data, threads, repeat, work)
                except WorkerFailed as error:
                    print(f"{name}: failed, {error}", file=sys.stderr)
                    continue
                cell |= {"when": now(), "machine": here, "system": key, "n": n, "dim": dim}
                cell |= {"threads": threads, "repeat": repeat, "data": data.name}
                _write_json(path, cell)
                print(f"{name}, repeat {repeat + 1}", file=sys.stderr, flush=True)
            yield json.loads(path.read_text())


def _cell(
    grid: Grid, system: System, data: Dataset, threads: int, repeat: int, work: Path
) -> Record:
    folder = work / "built" / f"{system.key}-{data.name}{_code(system)}"
    built = _built(system, data, folder, grid.build_s)
    _read_through(data.vectors_path, folder)
    share = -(-grid.lone // grid.repeats)
    with tempfile.TemporaryDirectory(dir=work) as temporary:
        rows = Path(temporary) / "rows.npz"
        task = {
            "system": system.key, "vectors": str(data.vectors_path), "folder": str(folder),
            "queries": str(data.queries_path), "threads": threads, "points": built["points"],
            "ks": grid.ks, "batches": grid.batches, "batch_s": grid.batch_s, "lone": share,
            "from": share * repeat, "rows": None if repeat else str(rows),
        }  # fmt: skip
        cell = run_worker(task, threads) | {"build": built}
        if repeat == 0:
            with np.load(rows) as found:
                for measured in cell["measures"]:
                    of = found[f"{measured['point']}/{measured['k']}"]
                    exact = data.exact[:, : measured["k"]]
                    near = similarities(data.vectors, data.queries, of)
                    measured["recall"] = recall(of, near, exact)
                    of = found[f"{measured['point']}/{measured['k']}/lone"]
                    asked = np.arange(len(of)) % len(data.queries)
                    near = similarities(data.vectors, data.queries[asked], of)
                    measured["lone_recall"] = recall(of, near, exact[asked])
    return cell


def _built(system: System, data: Dataset, folder: Path, limit: float | None) -> Record:
    """What a build said, from its folder or from building now, with all cores.

    A build that was given up once is not tried again within the same limit.
    """
    done, given_up = folder / "build.json", folder.with_suffix(".given-up")
    if limit and given_up.exists() and float(given_up.read_text()) >= limit:
        raise WorkerFailed(f"its build was given up after {float(given_up.read_text()):g} s")
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _read_through(data.vectors_path, folder)
        cores = len(os.sched_getaffinity(0))
        task = {"system": system.key, "vectors": str(data.vectors_path), "folder": str(folder)}
        try:
            result = run_worker({**task, "threads": cores}, cores, limit) | {"threads": cores}
        except subprocess.TimeoutExpired:
            shutil.rmtree(folder)
            given_up.write_text(str(limit))
            raise WorkerFailed(f"its build was given up after {limit:g} s") from None
        result["bytes"] = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        if system.keeps_vectors:
            result["bytes"] += data.vectors_path.stat().st_size
        _write_json(done, result)
    built: Record = json.loads(done.read_text())
    return built


def run_worker(task: dict[str, Any], threads: int, limit: float | None = None) -> Record:
    """Let a process of its own do a task.

    Args:
        task: For `worker.main`, without "out".
        threads: That its libraries may use.
        limit: Seconds after which it is killed.

    Raises:
        WorkerFailed: It ended without a result.
        subprocess.TimeoutExpired: It was killed.
    """
    counts = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM")
    environment = os.environ | {f"{name}_NUM_THREADS": str(threads) for name in counts}
    paths = [str(_ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with tempfile.TemporaryDirectory() as folder:
        out, given = Path(folder) / "result.json", Path(folder) / "task.json"
        given.write_text(json.dumps({**task, "out": str(out)}))
        command = [sys.executable, "-P", "-m", "benchmarks.index_latency.worker", str(given)]
        pipe = subprocess.PIPE
        done = subprocess.run(command, env=environment, stderr=pipe, text=True, timeout=limit)
        if done.returncode == -9:
            raise WorkerFailed("it was killed, as the kernel does when memory is short")
        if done.returncode:
            raise WorkerFailed((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
        result: Record = json.loads(out.read_text())
    return result


def pooled(cells: Sequence[Record]) -> list[Record]:
    """One record for each system, size, threads, effort and k, the repeats pooled."""
    together = defaultdict(list)
    for cell in cells:
        for one in cell["measures"]:
            key = (cell["system"], cell["n"], cell["dim"], cell["threads"], one["point"], one["k"])
            together[key].append((cell, one))
    return [_pool(parts) for parts in together.values()]


def _pool(parts: Sequence[tuple[Record, Record]]) -> Record:
    (first, measured), build = parts[0], parts[0][0]["build"]
    system = SYSTEMS[first["system"]]
    seconds = {"1": [m["lone_s"] for _, m in parts]}
    seconds |= {size: [m["batch_s"][size] for _, m in parts] for size in measured["batch_s"]}
    point = next(p for p in build["points"] if p["name"] == measured["point"])
    lone = [value for own in seconds["1"] for value in own]
    record: Record = {
        **{name: first[name] for name in ("when", "machine", "system")},
        "label": system.label,
        **{name: first[name] for name in ("n", "dim", "threads", "data")},
        "device": system.device,
        "point": point["name"],
        "default": bool(point.get("default")),
        "params": {name: point[name] for name in ("params", "effort") if name in point},
        "k": measured["k"],
        "repeats": len(parts),
        "build_s": round(build["seconds"], 3),
        "build_threads": build["threads"],
        "build_peak_bytes": build["memory"].get("VmHWM", 0),
        "file_bytes": build["bytes"],
        "load_s": _median([cell["load_s"] for cell, _ in parts]),
        "cold_ms": _median([1000 * cell["cold_s"] for cell, _ in parts]),
        "peak_bytes": max(cell["memory"].get("VmHWM", 0) for cell, _ in parts),
        "anonymous_bytes": max(cell["memory"].get("RssAnon", 0) for cell, _ in parts),
        "mapped_bytes": max(cell["memory"].get("RssFile", 0) for cell, _ in parts),
        "device_bytes": first["memory"]["device"],
        "lone_queries": len(lone),
        # Of a repeat, queries / seconds; of the repeats, the median.
        "queries_per_second": {
            size: _median([int(size) * len(own) / sum(own) for own in repeats])
            for size, repeats in seconds.items()
        },
        # CPU milliseconds of all threads for a query, likewise.
        "cpu_ms": {size: _median([1000 * m["cpu_s"][size] for _, m in parts]) for size in seconds},
        "recall": next((round(m["recall"], 5) for _, m in parts if "recall" in m), None),
        "lone_recall": next(
            (round(m["lone_recall"], 5) for _, m in parts if "lone_recall" in m), None
        ),
    }
    for percent in (50, 95, 99):
        record[f"p{percent}_ms"] = round(float(np.percentile(lone, percent)) * 1000, 4)
    record["lone_us"] = [float(f"{second * 1e6:.4g}") for second in lone]
    return record


def _median(values: Sequence[float]) -> float:
    return round(float(np.median(values)), 5)


def _code(system: System) -> str:
    """Changes with the product's searches, for what is built and measured of them."""
    if not system.ours:
        return ""
    return _digest(*(p.read_text() for p in sorted((_ROOT / "index" / "search").glob("*.py"))))


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _write_json(path: Path, value: Any) -> None:
    """Write a file at once: a run that is stopped leaves no half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


def _read_through(*paths: Path) -> None:
    """Read files once, so that they are in the page cache as far as memory allows."""
    for path in paths:
        for file in path.rglob("*") if path.is_dir() else [path]:
            if file.is_file():
                with file.open("rb") as opened:
                    while opened.read(2**24):
                        pass
