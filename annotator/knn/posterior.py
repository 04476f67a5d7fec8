"""Neighbours to a posterior over label sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from index import LabelTable, Neighbors

Kernel = Literal["exponential", "inverse", "rank", "uniform"]

_LEAST_DISTANCE = 1e-3  # what float32 tells from 0
_MOST_LOG = 600.0  # more would overflow


@dataclass(frozen=True)
class Posterior:
    """For each image, a discrete distribution over its neighbours' label sets.

    Attributes:
        rows: int64[q, k], index rows of the neighbours, most similar first, then of the prior.
        weights: float64[q, k], non-negative, each row sums to 1 (all zero if there are none).
        labels: The label sets of the index rows.
    """

    rows: NDArray[np.int64]
    weights: NDArray[np.float64]
    labels: LabelTable

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Votes:
    """A posterior taken apart into single votes, and its candidate concepts.

    A candidate is a concept that at least one neighbour of an image holds. Candidates are sorted by
    image and then by concept; votes keep the neighbours' order.

    Attributes:
        candidate_image: int64[c], which image.
        candidate_cui: int64[c], which concept, as a position in the vocabulary.
        vote_candidate: int64[v], the candidate that a vote is for.
        vote_size: int64[v], how many concepts the voting neighbour holds.
        vote_weight: float64[v], the neighbour's weight.
        empty: float64[q], p0: the weight of the neighbours that hold no concept.
    """

    candidate_image: NDArray[np.int64]
    candidate_cui: NDArray[np.int64]
    vote_candidate: NDArray[np.int64]
    vote_size: NDArray[np.int64]
    vote_weight: NDArray[np.float64]
    empty: NDArray[np.float64]

    @property
    def scores(self) -> NDArray[np.float64]:
        """float64[c]: each candidate's share of the votes, its marginal probability."""
        shares = np.bincount(self.vote_candidate, self.vote_weight, len(self.candidate_cui))
        return shares.astype(np.float64, copy=False)  # int64 where there is no vote


def vote(
    neighbors: Neighbors,
    labels: LabelTable,
    *,
    k: int,
    beta: float,
    kernel: Kernel = "exponential",
    prior: float = 0.0,
    typical: float = 1.0,
) -> Posterior:
    """Weigh the k nearest neighbours by a kernel, normalised, and by the prior.

    With s the cosine similarity, d = sqrt(2 - 2s) the distance and r = 0, 1, ... the rank, a
    neighbour's weight is

    - "exponential": exp(beta * s) (Nadaraya-Watson on the unit sphere, von Mises-Fisher);
    - "inverse": d ** -beta (Dudani 1976 with beta 1);
    - "rank": (1 - r / k) ** beta;
    - "uniform": 1.

    With beta 0 every neighbour counts the same, with a large beta the nearest alone decides.

    An image that resembles nothing has neighbours that mean little. So the label sets of a fixed
    sample of the index (`LabelTable.sample`), which stands for the prior, get the share
    prior / (prior + W) of the vote, where W sums the neighbours' weights in units of that of a
    neighbour as similar as `typical`: `prior` is the weight of so many typical neighbours.

    Args:
        neighbors: At least k of them, or all that the index has; a similarity of -inf is no vote
            (at least one of an image must have one).
        labels: Label sets of the index rows.
        k: How many neighbours vote, at least 1.
        beta: Sharpness of the kernel, at least 0.
        kernel: Its kind.
        prior: Weight of the prior, at least 0.
        typical: Similarity of a typical image to its nearest neighbour.

    Raises:
        ValueError: A parameter is out of range.
    """
    if k < 1 or not 0 <= beta < np.inf or not 0 <= prior < np.inf:
        raise ValueError(
            f"k must be at least 1, beta and prior at least 0: {k=}, {beta=}, {prior=}"
        )
    rows = neighbors.rows[:, :k]
    similarities = neighbors.similarities[:, :k].astype(np.float64)
    if rows.shape[1] == 0:
        return Posterior(rows, similarities, labels)
    logs = _log_weights(similarities, kernel, beta, k)
    largest = logs.max(axis=1, keepdims=True)
    weights = np.exp(logs - largest)
    total = weights.sum(axis=1, keepdims=True)
    weights /= total
    if prior > 0:
        unit = _log_weights(np.array([[typical]]), kernel, beta, k)
        mass = np.exp(np.minimum(largest - unit, _MOST_LOG)) * total
        share = prior / (prior + mass)
        sample = labels.sample
        rows = np.hstack([rows, np.broadcast_to(sample, (len(rows), len(sample)))])
        added = np.broadcast_to(share / len(sample), (len(rows), len(sample)))
        weights = np.hstack([weights * (1 - share), added])
    return Posterior(rows, weights, labels)


def _log_weights(
    similarities: NDArray[np.float64], kernel: Kernel, beta: float, k: int
) -> NDArray[np.float64]:
    """float64[q, k]: the logarithm of each neighbour's weight, before anything is normalised."""
    if kernel == "exponential":
        logs = beta * np.maximum(similarities, -1.0)
    elif kernel == "inverse":
        distance = np.sqrt(np.maximum(2 - 2 * np.maximum(similarities, -1.0), 0.0))
        logs = -beta * np.log(np.maximum(distance, _LEAST_DISTANCE))
    elif kernel == "rank":
        logs = np.broadcast_to(
            beta * np.log1p(-np.arange(similarities.shape[1]) / k), similarities.shape
        )
    elif kernel == "uniform":
        logs = np.zeros_like(similarities)
    else:
        raise ValueError(f"unknown kernel {kernel!r}; one of {', '.join(get_args(Kernel))}")
    return np.where(np.isfinite(similarities), logs, -np.inf)


def cast(posterior: Posterior) -> Votes:
    """Take a posterior apart into single votes."""
    labels, (q, k) = posterior.labels, posterior.rows.shape
    rows, weights = posterior.rows.ravel(), posterior.weights.ravel()
    sizes = labels.sizes[rows]
    voter = np.repeat(np.arange(q * k), sizes)
    # Position of each vote within its neighbour's label set, then in the table.
    within = np.arange(len(voter)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    cui = labels.indices[labels.indptr[rows][voter] + within].astype(np.int64)
    image = voter // max(k, 1)
    candidates, vote_candidate = np.unique(
        image * max(len(labels.cuis), 1) + cui, return_inverse=True
    )
    empty = np.where(posterior.labels.sizes[posterior.rows] == 0, posterior.weights, 0.0)
    return Votes(
        candidate_image=candidates // max(len(labels.cuis), 1),
        candidate_cui=candidates % max(len(labels.cuis), 1),
        vote_candidate=vote_candidate,
        vote_size=sizes[voter],
        vote_weight=weights[voter],
        empty=empty.sum(axis=1) + (0.0 if k else 1.0),
    )
