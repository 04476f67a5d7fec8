"""What opening, adding to, removing from and compacting an index cost, against building it.

    python benchmarks/index_changes.py                     70,000 rows of 1,280 numbers
    python benchmarks/index_changes.py --n 1000000 --dim 512 --index-type ivf

Rows are made up (index_latency_parts/synthetic.py); building them leaves out embedding, which costs
a real build most of its time, so the shares are larger here than with images. Opening is timed in
fresh processes whose files are in the page cache: from the call to the answer of a first query.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import save
from index_latency_parts.synthetic import Synthetic
from numpy.typing import NDArray

from index import LabelTable, VersionWriter, open_index
from index.folder.location import FolderLocation
from index.segments import CONTENT, Segment

CONCEPTS = [[f"C{j:07d}" for j in range(i, i + 5)] for i in range(1000)]

OPEN = """
import sys, time
from pathlib import Path
import numpy as np
from index import open_index
from index.search.base import import_faiss
import_faiss()
query = np.load(sys.argv[2])
start = time.perf_counter()
stored = open_index(Path(sys.argv[1]), whole=sys.argv[3] == "whole")
opened = time.perf_counter()
stored.index.search(query, 50)
print(opened - start, time.perf_counter() - start)
"""


def main() -> None:
    """Parse, measure, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--n", type=int, default=70_000, help="rows")
    parser.add_argument("--dim", type=int, default=1280, help="numbers of a vector")
    parser.add_argument("--added", type=int, default=1000, help="rows that are added at once")
    parser.add_argument("--index-type", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        record = measure(options, Path(folder))
    for name in ("open_s", "first_answer_s", "add_s", "remove_s", "compact_s"):
        middle = statistics.median(record[name])
        print(f"{name:16s} {middle:8.3f} s, {middle / record['build_s']:6.1%} of the build")
    print(f"{'build_s':16s} {record['build_s']:8.3f} s ({record['index_type']})")
    print(f"raw figures: {save('index_changes', [record])}")


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds of everything; the index lies in `folder`."""
    synthetic = Synthetic(options.dim, options.n)
    index = folder / "index"
    np.save(folder / "query.npy", next(synthetic.chunks(1, stream=1))[0])
    seconds = 0.0
    with VersionWriter(index) as writer:
        for rows, _ in synthetic.chunks(options.n):
            seconds += timed(partial(writer.add, rows))
        contents = np.zeros((options.n, 32), np.uint8)
        seconds += timed(
            lambda: writer.publish(
                [f"image-{i:08d}" for i in range(options.n)],
                [CONCEPTS[i % 1000] for i in range(options.n)],
                names={},
                columns={"captions": [f"caption {i}" for i in range(options.n)]},
                about={},
                arrays={CONTENT: contents},
                index_type=options.index_type,
            )
        )
    kind = open_index(index).manifest.index_type
    record: dict[str, Any] = {
        "n": options.n, "dim": options.dim, "added": options.added, "index_type": kind,
        "build_s": seconds, "open_s": [], "first_answer_s": [], "first_answer_whole_s": [],
        "add_s": [], "remove_s": [], "compact_s": [],
    }  # fmt: skip
    for _ in range(options.rounds):
        for how, name in (("quick", "first_answer_s"), ("whole", "first_answer_whole_s")):
            opened, answered = opening(index, folder / "query.npy", how)
            record[name].append(answered)
            if how == "quick":
                record["open_s"].append(opened)
    place = FolderLocation(index)
    for number in range(options.rounds):
        vectors, _ = next(synthetic.chunks(options.added, stream=2 + number))
        new = segment(vectors, number)
        version = open_index(index).version
        record["add_s"].append(timed(partial(place.add_rows, new, of=version)))
        record["remove_s"].append(timed(partial(place.remove_rows, [new.ids[0]])))
    record["compact_s"].append(timed(partial(place.compact, of=place.manifest().version)))
    return record


def opening(index: Path, query: Path, how: str) -> tuple[float, float]:
    """Seconds to open the index, and to its first answer, in a process of its own."""
    command = [sys.executable, "-c", OPEN, str(index), str(query), how]
    opened, answered = map(float, subprocess.check_output(command, text=True).split())
    return opened, answered


def segment(vectors: NDArray[np.float32], number: int) -> Segment:
    """Rows to add."""
    n = len(vectors)
    return Segment(
        vectors=vectors,
        ids=[f"added-{number}-{i}" for i in range(n)],
        labels=LabelTable.from_sets([CONCEPTS[i % 1000] for i in range(n)]),
        names={},
        columns={"captions": ["new"] * n},
        arrays={CONTENT: np.zeros((n, 32), np.uint8)},
    )


def timed(work: Callable[[], object]) -> float:
    """Seconds of a piece of work."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
