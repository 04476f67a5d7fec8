"""Label sets as matrices, their F1 as the task computes it, thresholds, group-aware folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

from benchmarks.quality.data import LabelSet

THRESHOLDS = np.round(np.arange(0.02, 0.9801, 0.01), 2)
_FEW_THRESHOLDS = np.round(np.arange(0.1, 0.75, 0.05), 2)  # of a single concept


class Vocabulary:
    """The concepts of the training side as columns, the most frequent first, then by CUI.

    In this order a stable sort by score breaks ties as the product does.

    Attributes:
        cuis: c CUIs.
    """

    def __init__(self, labels: Sequence[LabelSet]) -> None:
        count = Counter(cui for row in labels for cui in row)
        self.cuis = tuple(sorted(count, key=lambda cui: (-count[cui], cui)))
        self._column = {cui: j for j, cui in enumerate(self.cuis)}

    def __len__(self) -> int:
        return len(self.cuis)

    def matrix(self, labels: Sequence[LabelSet]) -> Any:
        """Sparse float32[n, c] of zeros and ones."""
        columns = [[self._column[cui] for cui in row] for row in labels]
        indptr = np.cumsum([0, *(len(row) for row in columns)])
        indices = np.array([j for row in columns for j in row], np.int64)
        ones = np.ones(len(indices), np.float32)
        return csr_matrix((ones, indices, indptr), shape=(len(labels), len(self)))

    def sets(self, chosen: NDArray[np.bool_]) -> list[set[str]]:
        """The CUIs that bool[n, c] chooses for each image."""
        return [{self.cuis[j] for j in np.flatnonzero(row)} for row in chosen]


def f1_of_rows(truth: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """float64[n]: binary F1 of each row of two bool[n, c]; two empty rows agree (1).

    The same figures as `official_f1.image_f1` with the current scorer's empty sets, for the many
    thousand evaluations of a grid.
    """
    shared = (truth & chosen).sum(axis=1)
    total = truth.sum(axis=1) + chosen.sum(axis=1)
    f1: NDArray[np.float64] = np.where(total == 0, 1.0, 2.0 * shared / np.maximum(total, 1))
    return f1


def top(scores: NDArray[Any], size: NDArray[np.int64] | int) -> NDArray[np.bool_]:
    """bool[n, c]: the `size` highest of each row of scores[n, c]; of equal ones the leftmost."""
    order = np.argsort(-scores, axis=1, kind="stable")
    taken = np.arange(scores.shape[1]) < np.broadcast_to(size, len(scores))[:, None]
    chosen = np.zeros(scores.shape, bool)
    np.put_along_axis(chosen, order, taken, axis=1)
    return chosen


def best_threshold(truth: NDArray[np.bool_], probabilities: NDArray[np.floating]) -> float:
    """The threshold of 0.02, 0.03 ... 0.98 with the highest mean F1; the lowest of equal ones."""
    f1 = [f1_of_rows(truth, probabilities >= t).mean() for t in THRESHOLDS]
    return float(THRESHOLDS[int(np.argmax(np.round(f1, 9)))])


def best_thresholds(
    truth: NDArray[np.bool_], probabilities: NDArray[np.floating], sweeps: int = 2
) -> NDArray[np.float64]:
    """float64[c]: a threshold for each concept, by coordinate search for the highest mean F1.

    The search starts from the best one for all, takes the concepts one after the other, and leaves
    a threshold where no other one is better.
    """
    thresholds = np.full(truth.shape[1], best_threshold(truth, probabilities))
    chosen = probabilities >= thresholds
    shared, total = (truth & chosen).sum(axis=1), truth.sum(axis=1) + chosen.sum(axis=1)
    for _ in range(sweeps):
        for j, true in enumerate(truth.T):
            now = probabilities[:, j] >= thresholds[j]
            shared, total = shared - (true & now), total - now
            tried = probabilities[:, j] >= np.append(thresholds[j], _FEW_THRESHOLDS)[:, None]
            sizes = total + tried
            f1 = np.where(sizes == 0, 1.0, 2.0 * (shared + (true & tried)) / np.maximum(sizes, 1))
            best = int(np.argmax(np.round(f1.mean(axis=1), 9)))
            thresholds[j] = thresholds[j] if best == 0 else _FEW_THRESHOLDS[best - 1]
            shared, total = shared + (true & tried[best]), total + tried[best]
    return thresholds


def group_folds(
    groups: NDArray[np.int64], n: int = 5
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Training and held-out rows of each of n folds (or fewer); no group is on both sides."""
    from sklearn.model_selection import GroupKFold

    folds = GroupKFold(min(n, len(np.unique(groups))), shuffle=True, random_state=0)
    yield from folds.split(groups, groups=groups)


def sample_of_groups(groups: NDArray[np.int64], n: int, seed: int = 0) -> NDArray[np.int64]:
    """int64[m]: rows of whole groups, drawn until there are at least n (or all); ascending."""
    names, number = np.unique(groups, return_inverse=True)
    if n >= len(groups):
        return np.arange(len(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    sizes = np.bincount(number)[order]
    last = int(np.searchsorted(np.cumsum(sizes), n))
    return np.flatnonzero(np.isin(number, order[: last + 1]))
