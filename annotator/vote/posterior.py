"""Neighbours to a posterior over label sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index import LabelTable, Neighbors


@dataclass(frozen=True)
class Posterior:
    """For each image, a discrete distribution over its neighbours' label sets.

    Attributes:
        rows: int64[q, k], index rows of the neighbours, most similar first.
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


def vote(neighbors: Neighbors, labels: LabelTable, *, k: int, beta: float) -> Posterior:
    """Weigh the k nearest neighbours by exp(beta * similarity), normalised.

    The kernel is that of a Nadaraya-Watson estimate on the unit sphere (von Mises-Fisher): with
    beta 0 every neighbour counts the same, with a large beta the nearest alone decides.

    Args:
        neighbors: At least k of them, or all that the index has.
        labels: Label sets of the index rows.
        k: How many neighbours vote, at least 1.
        beta: Sharpness of the kernel, per unit of cosine similarity, at least 0.

    Raises:
        ValueError: k or beta out of range.
    """
    if k < 1 or not 0 <= beta < np.inf:
        raise ValueError(f"k must be at least 1 and beta finite and not negative: {k=}, {beta=}")
    rows = neighbors.rows[:, :k]
    similarities = neighbors.similarities[:, :k].astype(np.float64)
    if rows.shape[1] == 0:
        return Posterior(rows, similarities, labels)
    weights = np.exp(beta * (similarities - similarities.max(axis=1, keepdims=True)))
    return Posterior(rows, weights / weights.sum(axis=1, keepdims=True), labels)


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
