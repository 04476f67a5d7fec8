"""How fast, how large and how exact the kinds of index are, against other libraries, in one run.

    python -m benchmarks.index_latency --quick            minutes on two cores
    python -m benchmarks.index_latency                    10k, 100k, 1M rows; a night
    python -m benchmarks.index_latency --device cuda      on a GPU: 80k to 10M rows

Restrict it, and it takes that much less; a run that was stopped goes on where it was:

    python -m benchmarks.index_latency --only scan,faiss-flat --n 100000 --dim 512 --threads 2

Every cell (system, rows, dimensions, threads) is searched in processes of its own, one a repeat,
started with that many threads, from files that were read once before: the page cache holds them as
far as memory allows, and nothing is dropped from it. Builds use all cores. Vectors, indexes and
finished cells are kept in --work; results go
to benchmarks/results/index_latency*.{jsonl,md,png}. Systems that are not installed are named and
left out. The extra "bench" has all of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.index_latency.adapters import SYSTEMS
from benchmarks.index_latency.data import MOST_K
from benchmarks.index_latency.report import write_report
from benchmarks.index_latency.runner import Grid, measure, pooled
from benchmarks.records import RESULTS

QUICK = ("scan", "flat", "ivf", "faiss-flat", "hnswlib")
WORK = Path.home() / ".cache" / "annotator-index-latency"


def main(arguments: list[str] | None = None) -> None:
    """Measure what is not finished, and write the report after each cell."""
    options = _parse(arguments)
    grid = _grid(options)
    options.work.mkdir(parents=True, exist_ok=True)
    name = "-".join(filter(None, ["index_latency", options.name]))
    cells, text = [], ""
    try:
        for cell in measure(grid, options.work):
            cells.append(cell)
            text = write_report(pooled(cells), options.results, name)
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command goes on where it was.")
    if not cells:
        sys.exit("No cell could be measured.")
    print(text)


def _grid(options: argparse.Namespace) -> Grid:
    gpu, quick, cores = options.device == "cuda", options.quick, len(os.sched_getaffinity(0))
    systems = options.only or (QUICK if quick and not gpu else list(SYSTEMS))
    usable = [key for key in systems if SYSTEMS[key].device == options.device]
    for key in list(usable):
        if missing := SYSTEMS[key].missing():
            print(f"{key} is left out: {missing} is not installed", file=sys.stderr)
            usable.remove(key)
    sizes = (80_000, 1_000_000, 10_000_000) if gpu else (10_000, 100_000, 1_000_000)
    return Grid(
        systems=tuple(usable),
        n=tuple(options.n or (sizes[:2] if quick else sizes)),
        dims=tuple(options.dim or ((512,) if quick or gpu else (512, 1280))),
        threads=tuple(options.threads or ((cores,) if quick or gpu else (1, 2))),
        ks=tuple(options.k or ((MOST_K,) if quick else (10, MOST_K))),
        batches=tuple(options.batch or ((1, 32, 256, 1024, 4096) if gpu else (1, 32, 256))),
        repeats=options.repeats,
        lone=options.lone,
        batch_s=options.batch_s or (0.15 if quick else 1.0),
        build_s=options.build_s,
    )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="few sizes and systems")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--only", type=lambda text: text.split(","), help=f"systems: {', '.join(SYSTEMS)}")
    add("--n", type=_numbers, help="rows, such as 10000,100000")
    add("--dim", type=_numbers, help="numbers of a vector (default: 512,1280)")
    add("--k", type=_numbers, help=f"neighbours, {MOST_K} at most (default: 10,{MOST_K})")
    add("--batch", type=_numbers, help="queries of a call (default: 1,32,256)")
    add("--threads", type=_numbers, help="of the searches (default: 1,2; on a GPU all)")
    add("--repeats", type=int, default=3, help="processes a cell (default: 3)")
    add("--lone", type=int, default=1000, help="lone queries in all of them (default: 1000)")
    add("--batch-s", type=float, help="seconds of calls with each batch, a process")
    add("--build-s", type=float, help="give a build up after so many seconds (default: never)")
    add("--name", help="added to the names of the result files")
    add("--results", type=Path, default=RESULTS, help="folder of the result files")
    add("--work", type=Path, default=WORK, help=f"folder for what is kept (default: {WORK})")
    options = parser.parse_args(arguments)
    unknown = [key for key in options.only or () if key not in SYSTEMS]
    if unknown:
        parser.error(f"There is no system {unknown[0]!r}: {', '.join(SYSTEMS)}")
    if options.k and not all(1 <= k <= MOST_K for k in options.k):
        parser.error(f"--k takes 1 to {MOST_K}")
    return options


def _numbers(text: str) -> list[int]:
    return [int(part.replace("_", "")) for part in text.split(",")]


if __name__ == "__main__":
    main()
