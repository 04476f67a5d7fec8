"""One-vs-rest logistic regression on the same embeddings, with two deciders.

For each concept with at least one positive (and one negative) image, scikit-learn's objective,
||w||^2 / 2 + C * sum of log losses with a free intercept, for all concepts at once by SciPy's
L-BFGS: the objectives share nothing, so the minimum of their sum is the minimum of each, and one
matrix product serves all. C, and whether features are standardised, are tuned by five group-aware
folds on the training side; each decider takes what gives it the highest F1 out of fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quality_rows.data import Data
from quality_rows.decoders import best_threshold, expected_f1_sets
from quality_rows.labels import Vocabulary, f1_of_rows, group_folds, sample_of_groups

# In units of features of variance 1 (on average, where they are not standardised one by one).
CS = (0.001, 0.003, 0.01, 0.03, 0.1)
_SAMPLED = 10_000  # training images that folds are made of, at most
_CONCEPTS_AT_ONCE = 256


@dataclass(frozen=True)
class Scaling:
    """Features less their mean, over their deviation: each one's own, or the mean one of all."""

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @classmethod
    def of(cls, vectors: NDArray[np.float32], standardise: bool) -> Scaling:
        """Fitted to float32[n, dim]; features that do not vary are left at 0."""
        variance = vectors.var(axis=0, dtype=np.float64)
        if not standardise:
            variance = np.full_like(variance, variance.mean())
        deviation = np.where(variance > 1e-12, np.sqrt(variance), 1.0).astype(np.float32)
        return cls(vectors.mean(axis=0, dtype=np.float64).astype(np.float32), deviation)

    def apply(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale float32[n, dim]."""
        return (vectors - self.mean) / self.deviation


@dataclass(frozen=True)
class Features:
    """Scaled features in the coordinates of their principal components, as many as there can be.

    A rotation changes neither the penalty nor the solution, but it makes the Hessian nearly
    diagonal.

    Attributes:
        rotated: float32[n, r], r = min(n, dim).
        rotation: float32[dim, r].
        variances: float64[r], mean squares of the columns of `rotated`.
    """

    rotated: NDArray[np.float32]
    rotation: NDArray[np.float32]
    variances: NDArray[np.float64]

    @classmethod
    def of(cls, features: NDArray[np.float32]) -> Features:
        """Of float32[n, dim]."""
        n, dim = features.shape
        if n < dim:  # slopes lie in the span of the images: the penalty leaves no others
            rotation = np.linalg.svd(features, full_matrices=False)[2].T.astype(np.float32)
        else:
            rotation = np.linalg.eigh(features.T @ features)[1].astype(np.float32)
        rotated = features @ rotation
        return cls(rotated, rotation, (rotated.astype(np.float64) ** 2).mean(axis=0))


@dataclass(frozen=True)
class Weights:
    """float32[dim, c], in rotated coordinates, and float32[c]."""

    slopes: NDArray[np.float32]
    intercepts: NDArray[np.float32]

    def probabilities(self, rotated: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[n, c]."""
        return _sigmoid(rotated @ self.slopes + self.intercepts)


class Logistic:
    """One-vs-rest logistic regression.

    Args:
        expected_f1: Decide by expected F1 under independent marginals instead of one threshold for
            all concepts, which is tuned out of fold.
    """

    def __init__(self, expected_f1: bool) -> None:
        self.name = f"logistic regression, {'expected F1' if expected_f1 else 'tuned threshold'}"
        self.chosen: dict[str, Any] = {}
        self._expected_f1 = expected_f1

    def fit(self, train: Data) -> None:
        """Tune out of fold, then fit to the whole training side."""
        self._vocabulary = Vocabulary(train.labels)
        labels = self._vocabulary.matrix(train.labels)
        vectors = train.vectors()
        rows = sample_of_groups(train.groups, _SAMPLED)
        truth = labels[rows].toarray() > 0
        out_of_fold = train.remember(
            "logistic out of fold",
            lambda: _out_of_fold(vectors[rows], truth, train.groups[rows]),
        )
        best = -1.0
        for (standardise, c), probabilities in out_of_fold.items():
            threshold = 0.0 if self._expected_f1 else best_threshold(truth, probabilities)
            f1 = float(f1_of_rows(truth, self._decide(probabilities, threshold)).mean())
            if f1 > best + 1e-9:
                best = f1
                self.chosen = {"standardise": standardise, "c": c}
                if not self._expected_f1:
                    self.chosen["threshold"] = threshold
        self.chosen["f1_on_training_side"] = round(best, 4)
        self._scaling = Scaling.of(vectors, self.chosen["standardise"])
        features = Features.of(self._scaling.apply(vectors))
        self._weights = solve(features, labels.toarray() > 0, self.chosen["c"])
        self._rotation = features.rotation

    def predict(self, test: Data) -> list[set[str]]:
        """Probabilities, then sets."""
        rotated = self._scaling.apply(test.vectors()) @ self._rotation
        probabilities = self._weights.probabilities(rotated)
        return self._vocabulary.sets(self._decide(probabilities, self.chosen.get("threshold", 0.0)))

    def _decide(self, probabilities: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
        if self._expected_f1:
            return expected_f1_sets(probabilities)[0]
        return probabilities >= threshold


def _out_of_fold(
    vectors: NDArray[np.float32], truth: NDArray[np.bool_], groups: NDArray[np.int64]
) -> dict[tuple[bool, float], NDArray[np.float32]]:
    """float32[n, c] for each way of scaling and each C; no model has seen an image's group."""
    found = {
        (standardise, c): np.zeros(truth.shape, np.float32)
        for standardise in (False, True)
        for c in CS
    }
    for fitted, held in group_folds(groups):
        for standardise in (False, True):
            scaling = Scaling.of(vectors[fitted], standardise)
            features = Features.of(scaling.apply(vectors[fitted]))
            other = scaling.apply(vectors[held]) @ features.rotation
            weights = None
            for c in CS:  # ascending: each solution is where the next one starts
                weights = solve(features, truth[fitted], c, weights)
                found[standardise, c][held] = weights.probabilities(other)
    return found


def solve(
    features: Features,
    truth: NDArray[np.bool_],
    c: float,
    start: Weights | None = None,
    tolerance: float = 1e-4,
) -> Weights:
    """Fit one logistic regression for each column of `truth`.

    A concept that every image has, or none, gets a constant probability of 1 or 0.

    Args:
        features: Of n images.
        truth: bool[n, c].
        c: Weight of the loss against the penalty, as scikit-learn's C.
        start: Where to start from.
        tolerance: The largest gradient that is left, of the objective over C and n.
    """
    share = truth.mean(axis=0)
    slopes = np.zeros((features.rotated.shape[1], truth.shape[1]), np.float32)
    intercepts = np.where(share > 0.5, 30.0, -30.0).astype(np.float32)
    varying = np.flatnonzero((share > 0) & (share < 1))
    for at in range(0, len(varying), _CONCEPTS_AT_ONCE):
        columns = varying[at : at + _CONCEPTS_AT_ONCE]
        first = np.zeros((len(slopes) + 1, len(columns)))
        first[-1] = np.log(share[columns] / (1 - share[columns]))
        if start is not None:
            first = np.vstack([start.slopes[:, columns], start.intercepts[columns]])
        found = _minimise(features, truth[:, columns], c, first, tolerance)
        slopes[:, columns], intercepts[columns] = found[:-1], found[-1]
    return Weights(slopes, intercepts)


def _minimise(
    features: Features,
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
    curvature = np.append(features.variances, 1.0)[:, None] * (share * (1 - share))
    curvature[:-1] += penalty
    scale = np.sqrt(curvature)

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(scale.shape) / scale
        margins = features.rotated @ weights[:-1].astype(np.float32)
        margins = sign * (margins + weights[-1].astype(np.float32))
        wrong = _sigmoid(-margins)
        loss = -np.log1p(-np.minimum(wrong, np.float32(1 - 2**-24))).sum(dtype=np.float64) / n
        pull = -sign * wrong / np.float32(n)
        gradient = np.vstack([features.rotated.T @ pull, pull.sum(axis=0)]).astype(np.float64)
        gradient[:-1] += penalty * weights[:-1]
        value = loss + penalty / 2 * float((weights[:-1] ** 2).sum())
        return value, (gradient / scale).ravel()

    options = {"maxiter": 1000, "gtol": tolerance, "ftol": 1e-8, "maxcor": 10}
    result = minimize(
        objective, (first * scale).ravel(), jac=True, method="L-BFGS-B", options=options
    )
    found: NDArray[np.float64] = result.x.reshape(scale.shape) / scale
    return found


def _sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    clipped = np.clip(values, -80.0, 80.0)
    return (1.0 / (1.0 + np.exp(-clipped))).astype(np.float32, copy=False)
