"""What the product's own search path costs beside the bare library call, as ratios in one run.

    python benchmarks/index_overhead.py --n 100000 --dim 512
    python benchmarks/index_overhead.py --only flat,scan --threads 1

The path is what an image goes through after it was embedded: checks, candidates, full comparison,
order, posterior, decision (`index.search`, `choose_concepts`). The bare call is FAISS's: for exact
kinds `IndexFlatIP.search`, for approximate ones their structure's own search with the same effort
and as many candidates. Both take turns, batch by batch, in one process; below 1 the path is quicker
than the bare call, which scan is meant to be on large collections.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from common import save
from index_latency_parts.data import QUERIES, Dataset, prepare
from numpy.typing import NDArray

from annotator.knn.decision import choose_concepts
from annotator.knn.posterior import weigh
from annotator.knn.voting import Voting
from index import LabelTable
from index.search.base import import_faiss
from index.search.build import ANN, KINDS, Kind, build_files, open_files
from index.search.ivf import candidates_for, set_nprobe

Floats = NDArray[np.float32]


def main(arguments: list[str] | None = None) -> None:
    """Parse, measure, print."""
    options = _parse(arguments)
    faiss = import_faiss()
    faiss.omp_set_num_threads(options.threads)
    data = prepare(options.work, options.n, options.dim, 0, None)
    labels, _ = data.label_table(np.arange(data.n)[:, None])
    records = []
    for kind in options.only:
        about = {"kind": kind, "n": data.n, "dim": data.dim, "k": options.k}
        about |= {"batch": options.batch, "threads": options.threads}
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            record = about | measure(kind, data, labels, Path(folder), options)
        records.append(record)
        print(
            f"{kind:10s} path / bare call {record['ratio']:.2f}   "
            f"search alone / bare call {record['ratio_of_search']:.2f}   "
            f"bare {record['bare_ms']:.2f} ms, search {record['search_ms']:.2f} ms, "
            f"decide {record['decide_ms']:.2f} ms for {options.batch} queries",
            flush=True,
        )
    print(f"raw figures: {save('index_overhead', records)}")


def measure(
    kind: Kind, data: Dataset, labels: LabelTable, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Medians of all batches, and of the ratio of each batch."""
    params = build_files(kind, data.vectors, folder)
    index = open_files(kind, data.vectors, folder, params)
    bare = _bare(kind, data.vectors, folder, params, options.k)
    voting = Voting(k=options.k)
    queries = data.queries[:QUERIES]
    seconds: list[list[float]] = []
    for turn in range(options.rounds + 1):
        for start in range(0, len(queries) - options.batch + 1, options.batch):
            batch = np.ascontiguousarray(queries[start : start + options.batch])
            clock = [time.perf_counter()]
            bare(batch)
            clock.append(time.perf_counter())
            found = index.search(batch, options.k)
            clock.append(time.perf_counter())
            choose_concepts(weigh(found, labels, voting), voting)
            clock.append(time.perf_counter())
            if turn:  # the first round is to warm up
                seconds.append(np.diff(clock).tolist())
    times = np.array(seconds)
    bare_s, search_s, decide_s = np.median(times, axis=0).tolist()
    return {
        "ratio": round(float(np.median((times[:, 1] + times[:, 2]) / times[:, 0])), 4),
        "ratio_of_search": round(float(np.median(times[:, 1] / times[:, 0])), 4),
        "bare_ms": round(1000 * bare_s, 4),
        "search_ms": round(1000 * search_s, 4),
        "decide_ms": round(1000 * decide_s, 4),
        "params": params,
        "batches": len(times),
        "bare_us": np.round(1e6 * times[:, 0]).astype(int).tolist(),
        "search_us": np.round(1e6 * times[:, 1]).astype(int).tolist(),
        "decide_us": np.round(1e6 * times[:, 2]).astype(int).tolist(),
    }


def _bare(
    kind: Kind, vectors: Floats, folder: Path, params: dict[str, Any], k: int
) -> Callable[[Floats], Any]:
    """The library call that finds as much: the candidates, or the neighbours themselves."""
    faiss = import_faiss()
    if kind in ("flat", "scan"):
        structure = faiss.IndexFlatIP(vectors.shape[1])
        structure.add(np.ascontiguousarray(vectors))
        return lambda queries: structure.search(queries, k)
    structure = faiss.read_index(str(folder / ANN))
    set_nprobe(structure, params["effort"])
    width = min(candidates_for(k, params["width"]), len(vectors))
    return lambda queries: structure.search(queries, width)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    cores = len(os.sched_getaffinity(0))
    work = Path.home() / ".cache" / "annotator-index-latency"
    add("--n", type=int, default=100_000, help="rows")
    add("--dim", type=int, default=512, help="numbers of a vector")
    add("--k", type=int, default=50, help="neighbours")
    add("--batch", type=int, default=32, help="queries of a call")
    add("--rounds", type=int, default=5, help=f"each of {QUERIES} queries")
    add("--threads", type=int, default=cores, help=f"of the searches (default: {cores})")
    add("--only", default="flat,scan,ivf", help=f"some of {', '.join(KINDS)}")
    add("--work", type=Path, default=work, help=f"folder for the vectors (default: {work})")
    options = parser.parse_args(arguments)
    options.only = [cast(Kind, kind) for kind in options.only.split(",")]
    if not set(options.only) <= set(KINDS):
        parser.error(f"--only takes some of {', '.join(KINDS)}")
    options.work.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    main()
