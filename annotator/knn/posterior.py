"""Neighbours to a posterior over label sets, and what follows from it for a set of concepts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.knn.voting import Voting
from index import LabelTable, Neighbors

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

    def expected_f1(
        self, chosen: NDArray[np.bool_], size: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """float64[q]: Σ_i w_i · F1(set, label set of neighbour i), of a set given for each image.

        Two empty sets agree.

        Args:
            chosen: bool[c], the candidates in their image's set.
            size: int64[q], how many concepts the set has, those that no neighbour holds among them.
        """
        hit = chosen[self.vote_candidate]
        image = self.candidate_image[self.vote_candidate[hit]]
        gain = self.vote_weight[hit] * 2.0 / (self.vote_size[hit] + size[image])
        return np.where(size == 0, self.empty, np.bincount(image, gain, len(size)))


def weigh(neighbors: Neighbors, labels: LabelTable, voting: Voting) -> Posterior:
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
        voting: Its k, kernel, beta, prior and typical similarity.
    """
    rows = neighbors.rows[:, : voting.k]
    similarities = neighbors.similarities[:, : voting.k].astype(np.float64)
    if rows.shape[1] == 0:
        return Posterior(rows, similarities, labels)
    logs = _log_weights(similarities, voting)
    largest = logs.max(axis=1, keepdims=True)
    weights = np.exp(logs - largest)
    total = weights.sum(axis=1, keepdims=True)
    weights /= total
    if voting.prior > 0:
        unit = _log_weights(np.array([[voting.typical]]), voting)
        mass = np.exp(np.minimum(largest - unit, _MOST_LOG)) * total
        share = voting.prior / (voting.prior + mass)
        sample = labels.sample
        rows = np.hstack([rows, np.broadcast_to(sample, (len(rows), len(sample)))])
        added = np.broadcast_to(share / len(sample), (len(rows), len(sample)))
        weights = np.hstack([weights * (1 - share), added])
    return Posterior(rows, weights, labels)


def _log_weights(similarities: NDArray[np.float64], voting: Voting) -> NDArray[np.float64]:
    """float64[q, k]: the logarithm of each neighbour's weight, before anything is normalised."""
    if voting.kernel == "exponential":
        logs = voting.beta * np.maximum(similarities, -1.0)
    elif voting.kernel == "inverse":
        distance = np.sqrt(np.maximum(2 - 2 * np.maximum(similarities, -1.0), 0.0))
        logs = -voting.beta * np.log(np.maximum(distance, _LEAST_DISTANCE))
    elif voting.kernel == "rank":
        ranks = np.arange(similarities.shape[1])
        logs = np.broadcast_to(voting.beta * np.log1p(-ranks / voting.k), similarities.shape)
    else:
        logs = np.zeros_like(similarities)
    return np.where(np.isfinite(similarities), logs, -np.inf)


def count_votes(posterior: Posterior) -> Votes:
    """Take a posterior apart into single votes."""
    labels, (q, k) = posterior.labels, posterior.rows.shape
    rows, weights = posterior.rows.ravel(), posterior.weights.ravel()
    sizes = labels.sizes[rows]
    voter = np.repeat(np.arange(q * k), sizes)
    # Position of each vote within its neighbour's label set, then in the table.
    within = np.arange(len(voter)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    cui = labels.indices[labels.indptr[rows][voter] + within].astype(np.int64)
    image = voter // max(k, 1)
    vocabulary = max(len(labels.cuis), 1)
    candidates, vote_candidate = np.unique(image * vocabulary + cui, return_inverse=True)
    empty = np.where(labels.sizes[posterior.rows] == 0, posterior.weights, 0.0)
    return Votes(
        candidate_image=candidates // vocabulary,
        candidate_cui=candidates % vocabulary,
        vote_candidate=vote_candidate,
        vote_size=sizes[voter],
        vote_weight=weights[voter],
        empty=empty.sum(axis=1) + (0.0 if k else 1.0),
    )
