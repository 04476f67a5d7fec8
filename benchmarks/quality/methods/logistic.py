"""One-vs-rest logistic regression on the same embeddings, with two decision rules.

For each concept with at least one positive (and one negative) image, scikit-learn's objective,
||w||^2 / 2 + C * sum of log losses with a free intercept, for all concepts at once by SciPy's
L-BFGS: the objectives share nothing, so the minimum of their sum is the minimum of each, and one
matrix product serves all. C, and whether features are standardised, are tuned by five group-aware
folds on the training side; each rule takes what gives it the highest F1 out of fold. C ascends
until that F1 has fallen twice in a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.data import Data
from benchmarks.quality.labels import (
    Vocabulary,
    best_threshold,
    f1_of_rows,
    group_folds,
    sample_of_groups,
)
from benchmarks.quality.methods.expected_f1 import expected_f1_sets

# In units of features of variance 1 (on average, where they are not standardised one by one).
CS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_SAMPLED = 10_000  # training images that folds are made of, at most
_CONCEPTS_AT_ONCE = 256

Floats = NDArray[np.float32]


class Logistic:
    """One-vs-rest logistic regression.

    Args:
        expected_f1: Decide by expected F1 under independent marginals instead of one threshold for
            all concepts, which is tuned out of fold.

    Attributes:
        vocabulary: The concepts, in the order of the columns below.
        out_of_fold: float32[n, concepts], probabilities of the (at most 10,000) training images
            that folds are made of, after `fit`.
    """

    def __init__(self, expected_f1: bool) -> None:
        self.name = f"logistic regression, {'expected F1' if expected_f1 else 'tuned threshold'}"
        self.chosen: dict[str, Any] = {}
        self._expected_f1 = expected_f1

    def fit(self, train: Data) -> None:
        """Tune out of fold, then fit to the whole training side."""
        self.vocabulary = Vocabulary(train.labels)
        labels = self.vocabulary.matrix(train.labels)
        vectors = train.vectors()
        rows = sample_of_groups(train.groups, _SAMPLED)
        truth = labels[rows].toarray() > 0
        best = -1.0
        for standardise in (False, True):
            before, falls = -1.0, 0
            for c, chances in _out_of_fold(vectors[rows], truth, train.groups[rows], standardise):
                threshold = 0.0 if self._expected_f1 else best_threshold(truth, chances)
                f1 = float(f1_of_rows(truth, self._decide(chances, threshold)).mean())
                if f1 > best + 1e-9:
                    best, self.out_of_fold = f1, chances
                    self.chosen = {"standardise": standardise, "c": c, "threshold": threshold}
                falls = falls + 1 if f1 < before else 0
                if falls == 2:
                    break
                before = f1
        self.chosen["f1_on_training_side"] = round(best, 4)
        self._features = Features.of(vectors, self.chosen["standardise"])
        rotated = self._features.rotate(vectors)
        self._weights = solve(rotated, labels.toarray() > 0, self.chosen["c"])

    def predict(self, test: Data) -> list[set[str]]:
        """Probabilities, then sets."""
        found = self.probabilities(test)
        return self.vocabulary.sets(self._decide(found, self.chosen["threshold"]))

    def probabilities(self, data: Data) -> Floats:
        """float32[n, concepts]."""
        return probabilities(self._features.rotate(data.vectors()), self._weights)

    def _decide(self, chances: Floats, threshold: float) -> NDArray[np.bool_]:
        return expected_f1_sets(chances)[0] if self._expected_f1 else chances >= threshold


@dataclass(frozen=True)
class Features:
    """Vectors less their mean, over their deviation, turned to their principal components.

    A rotation changes neither the penalty nor the solution, but it makes the Hessian nearly
    diagonal.

    Attributes:
        mean: float32[dim].
        deviation: float32[dim], each feature's own, or the mean one of all.
        rotation: float32[dim, min(n, dim)].
    """

    mean: Floats
    deviation: Floats
    rotation: Floats

    @classmethod
    def of(cls, vectors: Floats, standardise: bool) -> Features:
        """Fitted to float32[n, dim]; features that do not vary are left at 0."""
        variance = vectors.var(axis=0, dtype=np.float64)
        if not standardise:
            variance = np.full_like(variance, variance.mean())
        deviation = np.where(variance > 1e-12, np.sqrt(variance), 1.0).astype(np.float32)
        mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        scaled = (vectors - mean) / deviation
        if len(scaled) < scaled.shape[1]:  # slopes lie in the span of the images
            rotation = np.linalg.svd(scaled, full_matrices=False)[2].T.astype(np.float32)
        else:
            rotation = np.linalg.eigh(scaled.T @ scaled)[1].astype(np.float32)
        return cls(mean, deviation, rotation)

    def rotate(self, vectors: Floats) -> Floats:
        """float32[n, min(n, dim)]."""
        scaled: Floats = ((vectors - self.mean) / self.deviation).astype(np.float32, copy=False)
        return scaled @ self.rotation


def probabilities(rotated: Floats, weights: Floats) -> Floats:
    """float32[n, c] of float32[n, dim] and the weights float32[dim + 1, c], intercepts last."""
    return _sigmoid(rotated @ weights[:-1] + weights[-1])


def _out_of_fold(
    vectors: Floats, truth: NDArray[np.bool_], groups: NDArray[np.int64], standardise: bool
) -> Iterator[tuple[float, Floats]]:
    """Each C, ascending, with float32[n, c]; no model has seen an image's group."""
    folds = list(group_folds(groups))
    features = [Features.of(vectors[fitted], standardise) for fitted, _ in folds]
    weights: list[Floats | None] = [None] * len(folds)
    for c in CS:
        found = np.zeros(truth.shape, np.float32)
        for i, (fitted, held) in enumerate(folds):
            # Each solution is where the next one starts.
            rotated = features[i].rotate(vectors[fitted])
            weights[i] = solved = solve(rotated, truth[fitted], c, weights[i])
            found[held] = probabilities(features[i].rotate(vectors[held]), solved)
        yield c, found


def solve(
    rotated: Floats,
    truth: NDArray[np.bool_],
    c: float,
    start: Floats | None = None,
    tolerance: float = 1e-4,
) -> Floats:
    """Fit one logistic regression for each column of `truth`: float32[dim + 1, c].

    A concept that every image has, or none, gets a constant probability of 1 or 0.

    Args:
        rotated: float32[n, dim].
        truth: bool[n, c].
        c: Weight of the loss against the penalty, as scikit-learn's C.
        start: Where to start from.
        tolerance: The largest gradient that is left, of the objective over C and n.
    """
    share = truth.mean(axis=0)
    weights = np.zeros((rotated.shape[1] + 1, truth.shape[1]), np.float32)
    weights[-1] = np.where(share > 0.5, 30.0, -30.0)
    varying = np.flatnonzero((share > 0) & (share < 1))
    for at in range(0, len(varying), _CONCEPTS_AT_ONCE):
        columns = varying[at : at + _CONCEPTS_AT_ONCE]
        first = np.zeros((len(weights), len(columns)), np.float32)
        first[-1] = np.log(share[columns] / (1 - share[columns]))
        if start is not None:
            first = start[:, columns]
        weights[:, columns] = _minimise(rotated, truth[:, columns], c, first, tolerance)
    return weights


def _minimise(
    rotated: Floats,
    truth: NDArray[np.bool_],
    c: float,
    first: NDArray[np.floating],
    tolerance: float,
) -> NDArray[np.float64]:
    """float64[dim + 1, c], intercepts last, that minimises the objective over C and n.

    The variables are scaled by the roots of the Hessian's diagonal where all slopes are 0, which in
    the rotated coordinates is the whole Hessian there: several times fewer steps.
    """
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    n = len(truth)
    sign = np.where(truth, np.float32(1), np.float32(-1))
    penalty = 1.0 / (c * n)
    share = truth.mean(axis=0)
    variances = (rotated.astype(np.float64) ** 2).mean(axis=0)
    curvature = np.append(variances, 1.0)[:, None] * (share * (1 - share))
    curvature[:-1] += penalty
    scale = np.sqrt(curvature)

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(scale.shape) / scale
        margins = rotated @ weights[:-1].astype(np.float32)
        margins = sign * (margins + weights[-1].astype(np.float32))
        wrong = _sigmoid(-margins)
        loss = -np.log1p(-np.minimum(wrong, np.float32(1 - 2**-24))).sum(dtype=np.float64) / n
        pull = -sign * wrong / np.float32(n)
        gradient = np.vstack([rotated.T @ pull, pull.sum(axis=0)]).astype(np.float64)
        gradient[:-1] += penalty * weights[:-1]
        value = loss + penalty / 2 * float((weights[:-1] ** 2).sum())
        return value, (gradient / scale).ravel()

    options = {"maxiter": 1000, "gtol": tolerance, "ftol": 1e-8, "maxcor": 10}
    result = minimize(
        objective, (first * scale).ravel(), jac=True, method="L-BFGS-B", options=options
    )
    found: NDArray[np.float64] = result.x.reshape(scale.shape) / scale
    return found


def _sigmoid(values: Floats) -> Floats:
    clipped = np.clip(values, -80.0, 80.0)
    return (1.0 / (1.0 + np.exp(-clipped))).astype(np.float32, copy=False)
