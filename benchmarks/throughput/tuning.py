"""What fitting, tuning and voting cost, on made-up vectors of a large collection.

    python -m benchmarks.throughput.tuning --n 70000 --concepts 5000
    python -m benchmarks.throughput.tuning --n 2000 --dim 512 --against ../another-checkout

Vectors lie around centres that share concepts, frequencies fall like those of a real vocabulary
(Zipf). The figures are of time alone: how good the choice is, is measured on real images
(benchmarks/quality).

A build makes neighbour lists for every penalty that it compares, of a sample of the images, and
compares them by a few votings: `compare_lists` is all of that and the lists of all images for the
best, `build` everything. With --against, another version is measured in turns with this one, which
is fair on a busy machine in CPU seconds, and has to choose the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.knn import model
from annotator.knn.cross_validation import NeighborLists, group_folds
from annotator.knn.decision import choose_concepts
from annotator.knn.grid_search import choose_voting
from annotator.knn.model import PENALTIES
from annotator.knn.posterior import weigh
from annotator.knn.voting import Voting
from benchmarks.records import save
from index import LabelTable

_ROWS_AT_ONCE = 4096
_VOTED = 1024  # images
_HERE = Path(__file__).parents[2]


def main(arguments: list[str] | None = None) -> None:
    """Make a collection, and time fitting to it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--n", type=int, default=70_000, help="images")
    parser.add_argument("--dim", type=int, default=2768, help="numbers of a vector")
    parser.add_argument("--concepts", type=int, default=5000)
    parser.add_argument("--against", type=Path, help="a checkout of another version")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).resolve()
        concepts = collection(options.n, options.dim, options.concepts, folder)
        record: dict[str, Any] = {"n": options.n, "dim": options.dim, "concepts": concepts}
        checkouts = [_HERE, *([options.against.resolve()] if options.against else [])]
        turns = [[in_process(c, folder) for c in checkouts] for _ in range(options.rounds)]
    here, *other = zip(*turns, strict=True)
    record |= medians(here)
    if other:
        record |= {"before": medians(other[0]), "rounds": options.rounds}
        if record["voting"] != record["before"]["voting"]:
            raise SystemExit("The two versions choose differently.")
    path = save("tuning" if not other else "tuning_before", [record])
    for name, value in record.items():
        print(f"{name:22s} {value}")
    print(f"raw figures: {path}")


def collection(n: int, dim: int, concepts: int, folder: Path) -> int:
    """Write vectors, and one to ten concepts of each, to `folder`; the number of concepts."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(500, dim)).astype(np.float32)
    frequency = 1 / np.arange(1, concepts + 1)
    sets = [
        rng.choice(concepts, rng.integers(1, 9), p=frequency / frequency.sum()) for _ in centres
    ]
    of_row = rng.integers(0, len(centres), n)
    vectors = np.lib.format.open_memmap(
        folder / "vectors.npy", mode="w+", dtype=np.float32, shape=(n, dim)
    )
    for start in range(0, n, _ROWS_AT_ONCE):
        part = centres[of_row[start : start + _ROWS_AT_ONCE]]
        part = part + 2 * rng.standard_normal(part.shape, np.float32)
        vectors[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    vectors.flush()
    rows = []
    for centre in of_row:
        own = rng.choice(concepts, rng.integers(0, 3), p=frequency / frequency.sum())
        rows.append([f"C{j:07d}" for j in {*sets[centre].tolist(), *own.tolist()}])
    (folder / "concepts.json").write_text(json.dumps(rows))
    return len({cui for row in rows for cui in row})


def in_process(checkout: Path, folder: Path) -> dict[str, Any]:
    """`measure` with the packages of a checkout, in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    said = subprocess.run(command, check=True, env=environment, cwd=checkout, capture_output=True)
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def medians(turns: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """The median of each number of some turns; what is no number, of the first turn."""
    return {
        name: round(median(turn[name] for turn in turns), 4) if isinstance(value, float) else value
        for name, value in turns[0].items()
    }


def measure(folder: Path) -> dict[str, Any]:
    """Seconds on the clock (_s) and of the CPU (_cpu_s), milliseconds of the CPU an image (_ms)."""
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    labels = LabelTable.from_sets(json.loads((folder / "concepts.json").read_text()))
    groups = np.arange(len(vectors)) // 2  # two images of each patient
    folds = group_folds(groups)
    found: dict[str, Any] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        clock, cpu = time.perf_counter(), time.process_time()
        result = work()
        found[f"{name}_s"] = time.perf_counter() - clock
        found[f"{name}_cpu_s"] = time.process_time() - cpu
        return result

    space = timed("fit", lambda: fitted(vectors, labels, folds))
    lists = timed("compare_lists", lambda: compared(space, groups, folds))
    tuned = timed("choose_voting", lambda: choose_voting(lists, labels))
    for unit in ("s", "cpu_s"):
        parts = ("fit", "compare_lists", "choose_voting")
        found[f"build_{unit}"] = sum(found[f"{part}_{unit}"] for part in parts)
    some = lists.found.take(np.arange(min(len(lists.queries), _VOTED)))
    for name, prior in (("vote", 0.0), ("vote_with_prior", 0.1)):
        voting = Voting(k=50, beta=16.0, prior=prior, typical=tuned.voting.typical)
        cpu = time.process_time()
        choose_concepts(weigh(some, labels, voting), voting)
        found[f"{name}_ms"] = 1000 * (time.process_time() - cpu) / len(some.rows)
    return {
        **found,
        "penalties": len(PENALTIES),
        "candidates": len(tuned.grid),
        "annotated": tuned.images,
        "voting": str(tuned.voting),
        "f1": str(round(tuned.f1, 9)),
    }


def compared(space: Any, groups: NDArray[np.int64], folds: NDArray[np.int64]) -> NeighborLists:
    """Compare the penalties as a build does; the lists of the best."""
    found = space.compare(groups, folds, [(penalty, model.SHARES[0]) for penalty in PENALTIES])
    best = max(found, key=lambda setting: found[setting].scores.mean())
    lists: NeighborLists | None = found[best].lists
    return space.lists(best, groups, folds) if lists is None else lists


def fitted(vectors: NDArray[np.float32], labels: LabelTable, folds: NDArray[np.int64]) -> Any:
    """Fit a projection; what it was fitted with."""
    space = model._Space(vectors, labels, (vectors.shape[1],), folds, None, None)
    space.projection(1.0, model.SHARES[0])
    return space


if __name__ == "__main__":
    if len(sys.argv) == 2 and (Path(sys.argv[1]) / "vectors.npy").is_file():
        print(json.dumps(measure(Path(sys.argv[1]))))
    else:
        main()
