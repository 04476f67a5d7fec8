"""What fitting and tuning cost, on made-up vectors of a large collection.

    python -m benchmarks.throughput.tuning --n 70000 --concepts 5000

Vectors lie around centres that share concepts, frequencies fall like those of a real vocabulary
(Zipf). The figures are of time alone: how good the choice is, is measured on real images
(benchmarks/quality).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.knn.cross_validation import cross_fitted, group_folds
from annotator.knn.fit import Fitter
from annotator.knn.grid_search import choose_voting
from benchmarks.records import save
from index import LabelTable

_ROWS_AT_ONCE = 4096


def main(arguments: list[str] | None = None) -> None:
    """Make a collection, and time fitting to it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--n", type=int, default=70_000, help="images")
    parser.add_argument("--dim", type=int, default=2768, help="numbers of a vector")
    parser.add_argument("--concepts", type=int, default=5000)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        vectors, labels = collection(options.n, options.dim, options.concepts, Path(folder))
        record = {"n": options.n, "dim": options.dim, "concepts": len(labels.cuis)}
        record |= measure(vectors, labels)
    path = save("tuning", [record])
    for name, value in record.items():
        print(f"{name:22s} {value}")
    print(f"raw figures: {path}")


def collection(
    n: int, dim: int, concepts: int, folder: Path
) -> tuple[NDArray[np.float32], LabelTable]:
    """Vectors mapped from disk, and one to eight concepts of each."""
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
    rows = []
    for centre in of_row:
        own = rng.choice(concepts, rng.integers(0, 3), p=frequency / frequency.sum())
        rows.append([f"C{j:07d}" for j in {*sets[centre].tolist(), *own.tolist()}])
    return vectors, LabelTable.from_sets(rows)


def measure(vectors: NDArray[np.float32], labels: LabelTable) -> dict[str, Any]:
    """Seconds on the clock."""
    groups = np.arange(len(vectors)) // 2  # two images of each patient
    folds = group_folds(groups)
    clock = [time.perf_counter()]
    fitter = Fitter(vectors, labels, (vectors.shape[1],), folds)
    fitter.projection(1.0)
    clock.append(time.perf_counter())
    lists = cross_fitted(partial(fitter.projection, 1.0), vectors, groups, folds)
    clock.append(time.perf_counter())
    tuned = choose_voting(lists, labels)
    clock.append(time.perf_counter())
    fit, search, choose = (round(float(s), 1) for s in np.diff(clock))
    return {
        "fit_s": fit,
        "neighbour_lists_s": search,
        "choose_voting_s": choose,
        "candidates": len(tuned.grid),
        "annotated": tuned.images,
    }


if __name__ == "__main__":
    main()
