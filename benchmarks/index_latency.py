"""How fast, how large and how exact the kinds of index are, against other libraries, in one run.

    python benchmarks/index_latency.py --quick            under five minutes on two cores
    python benchmarks/index_latency.py                    10k, 100k, 1M rows; a night
    python benchmarks/index_latency.py --large            6M rows as well
    python benchmarks/index_latency.py --device cuda      on a GPU: 80k to 10M rows

Restrict it, and it takes that much less; a run that was stopped goes on where it was:

    python benchmarks/index_latency.py --only scan,faiss-flat --n 100000 --dim 512 --threads 2

With a collection, its training side is planted among the synthetic rows and its test side is asked
about besides, so that the change in F1 is of real images with real concepts:

    python benchmarks/index_latency.py --images ../shared/data/radiology/images \\
        --concepts ../shared/data/radiology/concepts.csv \\
        --split ../shared/data/radiology/split.csv \\
        --groups ../shared/data/radiology/sources.csv:group

Every cell (system, rows, dimensions, threads) is searched in processes of its own, one a repeat,
started with that many threads, from files that were read once before: the page cache holds them as
far as memory allows, and nothing is dropped from it. Builds use all cores. Vectors, indexes and
finished cells are kept in --work; results go to benchmarks/results/index_latency*.{jsonl,md,png}.
Systems that are not installed are named and left out. The extra "bench" has all of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import cache
from pathlib import Path

from common import RESULTS
from index_latency_parts.collection import Real, read_real
from index_latency_parts.cuda import gpu_faiss
from index_latency_parts.data import MOST_K, Dataset, prepare
from index_latency_parts.records import pooled
from index_latency_parts.report import write_report
from index_latency_parts.runner import Grid, Runner, usable
from index_latency_parts.systems import SYSTEMS

from annotator.errors import AnnotatorError
from index.search.build import choose_kind

QUICK = ("auto", "flat", "scan", "ivf", "faiss-flat", "hnswlib")


def main(arguments: list[str] | None = None) -> None:
    """Parse, measure, report."""
    options = _parse(arguments)
    try:
        run(options)
    except AnnotatorError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command goes on where it was.")


def run(options: argparse.Namespace) -> None:
    """Measure what is not finished, and write the report after all of it."""
    grid = _grid(options)
    if not grid.systems:
        sys.exit("None of the systems is installed.")
    real = _real(options)

    @cache
    def dataset(n: int, dim: int) -> Dataset:
        _say(f"data: {n:,} x {dim}")
        return prepare(options.work, n, dim, options.seed, real)

    runner = Runner(
        grid, options.work, dataset, again=options.again or (), discard=options.discard, say=_say
    )
    bandwidths = runner.bandwidths()
    cells = list(runner.run())
    if not cells:
        sys.exit("No cell could be measured.")
    records = pooled(cells, bandwidths)
    print(write_report(records, options.results, _name(options)))


def _grid(options: argparse.Namespace) -> Grid:
    gpu, cores = options.device == "cuda", len(os.sched_getaffinity(0))
    if gpu:
        n: tuple[int, ...] = (80_000,) if options.quick else (80_000, 1_000_000, 10_000_000)
        batches: tuple[int, ...] = (1, 32, 256, 1024, 4096)
    else:
        n = (10_000, 100_000) if options.quick else (10_000, 100_000, 1_000_000)
        n = (*n, 6_000_000) if options.large else n
        batches = (1, 32, 256)
    dims = options.dim or ((512,) if options.quick or gpu else (512, 1280))
    wanted = options.only or (QUICK if options.quick and not gpu else ("auto", *SYSTEMS))
    sizes = options.n or n
    if "auto" in wanted and not gpu:
        wanted = [*wanted, *(choose_kind(rows, dim)[0] for rows in sizes for dim in dims)]
    chosen = [key for key in dict.fromkeys(wanted) if key != "auto"]
    kept = [key for key in chosen if SYSTEMS[key].on == options.device]
    if gpu and not gpu_faiss():
        _say("faiss-cuda is left out: FAISS is not installed, or not built for GPUs")
        kept = [key for key in kept if key not in ("faiss-cuda", "gpu-torch")]  # gpu is by torch
    return Grid(
        systems=usable(kept, _say),
        n=tuple(sizes),
        dims=tuple(dims),
        ks=tuple(options.k or ((MOST_K,) if options.quick else (10, MOST_K))),
        batches=tuple(options.batch or batches),
        threads=tuple(options.threads or ((cores,) if options.quick or gpu else (1, 2))),
        repeats=options.repeats,
        lone=options.lone,
        batch_s=options.batch_s or (0.15 if options.quick else 1.0),
        most_s=options.most_s,
    )


def _real(options: argparse.Namespace) -> Real | None:
    if options.images is None:
        return None
    options.work.mkdir(parents=True, exist_ok=True)
    return read_real(
        options.images,
        options.concepts,
        options.work,
        split=options.split,
        sides=(options.train, options.test),
        groups=options.groups,
    )


def _name(options: argparse.Namespace) -> str:
    parts = ["index_latency", *(["quick"] if options.quick else [])]
    parts += ["cuda"] if options.device == "cuda" else []
    return "-".join([*parts, *([options.name] if options.name else [])])


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="few sizes and systems")
    add("--large", action="store_true", help="6M rows as well")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--only", type=_words, help=f"systems: auto, {', '.join(SYSTEMS)}")
    add("--n", type=_numbers, help="rows, such as 10000,100000")
    add("--dim", type=_numbers, help="numbers of a vector (default: 512,1280)")
    add("--k", type=_numbers, help=f"neighbours, {MOST_K} at most (default: 10,{MOST_K})")
    add("--batch", type=_numbers, help="queries of a call (default: 1,32,256)")
    add("--threads", type=_numbers, help="of the searches (default: 1,2; on a GPU all)")
    add("--repeats", type=int, default=3, help="processes a cell (default: 3)")
    add("--lone", type=int, default=1000, help="lone queries in all of them (default: 1000)")
    add("--batch-s", type=float, help="seconds of calls with each batch, a process")
    add("--most-s", type=float, default=200, help="seconds of lone queries, a process, at most")
    add("--again", type=_words, help="systems to build and measure anew, finished or not")
    add("--discard", action="store_true", help="remove an index after its last cell")
    add("--seed", type=int, default=0, help="of the synthetic vectors")
    add("--images", help="a collection: folder, glob or Parquet files")
    add("--concepts", help="its ground truth")
    add("--split", help="FILE[:COLUMN] with each image's side")
    add("--groups", help="FILE[:COLUMN] with each image's patient")
    add("--train", default="train", help="the side that is planted")
    add("--test", default="test", help="the side that is asked about")
    add("--name", help="added to the names of the result files")
    add("--results", type=Path, default=RESULTS, help="folder of the result files")
    work = Path.home() / ".cache" / "annotator-index-latency"
    add("--work", type=Path, default=work, help=f"folder for what is kept (default: {work})")
    options = parser.parse_args(arguments)
    unknown = [key for key in options.only or () if key not in SYSTEMS and key != "auto"]
    if unknown:
        parser.error(f"There is no system {unknown[0]!r}: {', '.join(SYSTEMS)}")
    if options.k and not all(1 <= k <= MOST_K for k in options.k):
        parser.error(f"--k takes 1 to {MOST_K}")
    if options.images and not (options.concepts and options.split):
        parser.error("--images needs --concepts and --split")
    return options


def _numbers(text: str) -> list[int]:
    return [int(part.replace("_", "")) for part in text.split(",")]


def _words(text: str) -> list[str]:
    return text.split(",")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
