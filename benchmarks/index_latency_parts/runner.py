"""Which cells there are, in which order, and each of them measured once."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import machine

from index_latency_parts.cuda import describe_gpu
from index_latency_parts.data import Dataset
from index_latency_parts.evaluate import evaluate
from index_latency_parts.files import digest, read_through, size_of, write_json
from index_latency_parts.process import WorkerFailed, run_worker
from index_latency_parts.systems import SYSTEMS, System

_SHARE_OF_MEMORY = 0.85  # that a cell may need, or it is left out
_SOURCES = Path(__file__).parents[2] / "index" / "backends"


@dataclass(frozen=True)
class Grid:
    """What is measured.

    Attributes:
        systems: Keys of `SYSTEMS`.
        n: Numbers of rows.
        dims: Numbers of a vector.
        ks: Neighbours asked for.
        batches: Queries of a call, besides lone ones.
        threads: Of the searches.
        repeats: Processes a cell.
        lone: Lone queries in all of them.
        batch_s: Seconds of calls with each batch, in each process.
        most_s: Seconds of lone queries, in each process, after which it stops short.
    """

    systems: tuple[str, ...]
    n: tuple[int, ...]
    dims: tuple[int, ...]
    ks: tuple[int, ...]
    batches: tuple[int, ...]
    threads: tuple[int, ...]
    repeats: int = 3
    lone: int = 1000
    batch_s: float = 1.0
    most_s: float = 200.0


@dataclass(frozen=True)
class Cell:
    """One process that searches."""

    system: System
    n: int
    dim: int
    threads: int
    repeat: int

    def __str__(self) -> str:
        size = f"{self.n:,} x {self.dim}"
        return f"{self.system.key}, {size}, {self.threads} threads, repeat {self.repeat + 1}"


def cells_of(grid: Grid) -> list[Cell]:
    """All cells, cheapest first; repeats of one apart, so that a bad minute spoils one of them."""
    combined = itertools.product(grid.systems, grid.n, grid.dims, grid.threads, range(grid.repeats))
    cells = [Cell(SYSTEMS[key], *rest) for key, *rest in combined]
    return sorted(cells, key=lambda c: (c.n * c.dim, c.repeat, c.system.cost, c.threads))


def usable(systems: Sequence[str], say: Callable[[str], None]) -> tuple[str, ...]:
    """Those of the systems whose packages are installed; says which are not."""
    kept = []
    for key in systems:
        if missing := SYSTEMS[key].missing():
            say(f"{key} is left out: {missing} is not installed")
        else:
            kept.append(key)
    return tuple(kept)


def here() -> dict[str, Any]:
    """The machine, with its GPU if it has one."""
    return machine() | {"gpu": describe_gpu()}


class Runner:
    """Measures cells that are not finished, and keeps what is.

    Args:
        grid: What is measured.
        work: Where everything is kept.
        dataset: Makes the data of n rows of dim numbers.
        again: Systems whose finished cells and built indexes are thrown away.
        discard: Whether to remove a built index after its last cell.
        say: Told what goes on.
    """

    def __init__(
        self,
        grid: Grid,
        work: Path,
        dataset: Callable[[int, int], Dataset],
        *,
        again: Sequence[str] = (),
        discard: bool = False,
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
    ) -> None:
        self._grid, self._work, self._dataset = grid, work, dataset
        self._again, self._discard, self._say = set(again), discard, say
        self._here = here()
        self._exact_f1: dict[Any, float] = {}
        self._rebuilt: set[Path] = set()

    def run(self) -> Iterator[dict[str, Any]]:
        """The result of every cell that could be measured."""
        cells = cells_of(self._grid)
        last = {(c.system.key, c.n, c.dim): i for i, c in enumerate(cells)}
        for number, cell in enumerate(cells):
            if (needed := self._too_large(cell)) is not None:
                self._say(f"{cell}: left out, needs about {needed / 2**30:.0f} GiB")
                continue
            data = self._dataset(cell.n, cell.dim)
            path = self._path(cell, data)
            if path.exists() and cell.system.key not in self._again:
                yield json.loads(path.read_text())
            else:
                started = time.perf_counter()
                try:
                    result = self._measured(cell, data)
                except WorkerFailed as error:
                    self._say(f"{cell}: failed, {error}")
                    continue
                write_json(path, result)
                spent = time.perf_counter() - started
                self._say(f"[{number + 1}/{len(cells)}] {cell}: {spent:.0f} s")
                yield result
            if self._discard and last[cell.system.key, cell.n, cell.dim] == number:
                shutil.rmtree(self._folder(cell.system, data), ignore_errors=True)

    def bandwidths(self) -> dict[str, float]:
        """Bytes a second that are read from memory, by threads (or "cuda"), measured now."""
        result = {}
        on = {SYSTEMS[key].on for key in self._grid.systems}
        for threads in self._grid.threads if "cpu" in on else ():
            task = {"stage": "bandwidth", "device": "cpu", "threads": threads}
            result[str(threads)] = run_worker(task, 1)["bytes_per_second"]
        if "cuda" in on:
            task = {"stage": "bandwidth", "device": "cuda", "threads": 1}
            result["cuda"] = run_worker(task, 1)["bytes_per_second"]
        return result

    def _measured(self, cell: Cell, data: Dataset) -> dict[str, Any]:
        built = self._built(cell.system, data)
        folder = self._folder(cell.system, data)
        read_through([data.vectors_path, *(p for p in folder.iterdir() if p.is_file())])
        grid = self._grid
        share = -(-grid.lone // grid.repeats)
        out = self._work / "running" / f"{os.getpid()}.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        task = {
            "stage": "search", "system": cell.system.key, "vectors": str(data.vectors_path),
            "queries": str(data.queries_path), "folder": str(folder), "threads": cell.threads,
            "points": built["points"], "ks": grid.ks, "batches": grid.batches, "lone": share,
            "from": share * cell.repeat, "batch_s": grid.batch_s, "most_s": grid.most_s,
            "keep_rows": cell.repeat == 0, "out": str(out),
        }  # fmt: skip
        try:
            result = run_worker(task, cell.threads)
            if cell.repeat == 0:
                with np.load(out.with_suffix(".npz")) as found:
                    for measure in result["measures"]:
                        rows = found[f"{measure['point']}/{measure['k']}"]
                        measure |= evaluate(data, rows, self._exact_f1)
        finally:
            out.unlink(missing_ok=True)
            out.with_suffix(".npz").unlink(missing_ok=True)
        when = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        return {
            "when": when, "machine": self._here, "system": cell.system.key, "n": cell.n,
            "dim": cell.dim, "threads": cell.threads, "repeat": cell.repeat, "data": data.name,
            "build": built, "sources": sources(), **result,
        }  # fmt: skip

    def _built(self, system: System, data: Dataset) -> dict[str, Any]:
        """What a build said, from its folder or from building now, with all cores."""
        folder = self._folder(system, data)
        done = folder / "build.json"
        if system.key in self._again and folder not in self._rebuilt:
            shutil.rmtree(folder, ignore_errors=True)
            self._rebuilt.add(folder)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            cores = len(os.sched_getaffinity(0))
            read_through([data.vectors_path])
            task = {
                "stage": "build", "system": system.key, "vectors": str(data.vectors_path),
                "folder": str(folder), "threads": cores,
            }  # fmt: skip
            result = run_worker(task, cores) | {"threads": cores, "bytes": size_of(folder)}
            result["vectors_too"] = system.ours or result["bytes"] == 0
            write_json(done, result)
            self._say(f"{system.key}, {data.n:,} x {data.dim}: built in {result['seconds']:.0f} s")
        loaded: dict[str, Any] = json.loads(done.read_text())
        return loaded

    def _folder(self, system: System, data: Dataset) -> Path:
        return self._work / "built" / f"{system.key}-{data.name}"

    def _path(self, cell: Cell, data: Dataset) -> Path:
        grid = asdict(self._grid)
        for name in ("systems", "n", "dims", "threads"):
            del grid[name]
        about = [cell.system.key, data.name, cell.threads, cell.repeat, grid, self._here]
        return self._work / "cells" / f"{digest(about)}.json"

    def _too_large(self, cell: Cell) -> float | None:
        """Bytes that a cell needs, where the machine has too few."""
        if cell.system.on != "cpu":
            return None  # whether it fits on the GPU shows when it is tried
        needed = 4 * cell.n * cell.dim * cell.system.memory
        memory = _SHARE_OF_MEMORY * self._here["memory_gib"] * 2**30
        return needed if needed > memory else None


def sources() -> str:
    """Changes with the code of the product's kinds of index."""
    return digest([path.read_text() for path in sorted(_SOURCES.glob("*.py"))])
