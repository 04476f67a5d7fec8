"""Posterior over the label sets of neighbours: weights, votes and expected F1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.knn.voting import Voting
from index import LabelTable, Neighbors

LEAST_DISTANCE = 1e-3  # resolution of float32 near 0
_MOST_LOG = 600.0  # avoids overflow


@dataclass(frozen=True)
class Posterior:
    """Discrete distribution over the label sets of the neighbours of each image.

    Attributes:
        rows: int64[q, k], index rows of the neighbours, most similar first, then of the prior.
        weights: float64[q, k], non-negative, each row sums to 1 (all zero without neighbours).
        labels: Label sets of the index rows.
    """

    rows: NDArray[np.int64]
    weights: NDArray[np.float64]
    labels: LabelTable

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Votes:
    """Single votes and candidate concepts of a posterior.

    A candidate is a concept of at least one neighbour of an image. Candidates are sorted by image
    and concept; votes are in the order of the neighbours.

    Attributes:
        candidate_image: int64[c], image of each candidate.
        candidate_cui: int64[c], concept of each candidate, as a position in the vocabulary.
        vote_candidate: int64[v], candidate of each vote.
        vote_size: int64[v], number of concepts of the voting neighbour.
        vote_weight: float64[v], weight of the voting neighbour.
        empty: float64[q], p0: the weight of neighbours without concepts.
    """

    candidate_image: NDArray[np.int64]
    candidate_cui: NDArray[np.int64]
    vote_candidate: NDArray[np.int64]
    vote_size: NDArray[np.int64]
    vote_weight: NDArray[np.float64]
    empty: NDArray[np.float64]

    @property
    def scores(self) -> NDArray[np.float64]:
        """Share of the votes (marginal probability) of each candidate, float64[c]."""
        shares = np.bincount(self.vote_candidate, self.vote_weight, len(self.candidate_cui))
        return shares.astype(np.float64, copy=False)  # int64 where there is no vote

    def expected_f1(
        self, chosen: NDArray[np.bool_], size: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Expected F1 of a set for each image, Σ_i w_i · F1(set, label set of neighbour i).

        Two empty sets have F1 1.

        Args:
            chosen: bool[c], candidates in the set of their image.
            size: int64[q], size of each set, including concepts of no neighbour.

        Returns:
            float64[q].
        """
        hit = chosen[self.vote_candidate]
        image = self.candidate_image[self.vote_candidate[hit]]
        gain = self.vote_weight[hit] * 2.0 / (self.vote_size[hit] + size[image])
        return np.where(size == 0, self.empty, np.bincount(image, gain, len(size)))


@dataclass(frozen=True)
class Ballots:
    """Single votes before they are weighed: the same for all weights of the same voters.

    Attributes:
        candidate_image: As of `Votes`.
        candidate_cui: As of `Votes`.
        vote_candidate: As of `Votes`.
        vote_size: As of `Votes`.
        voter: int64[v], the neighbour that casts each vote, as a position in its flattened weights.
        blank: bool[q, k], neighbours without concepts.
    """

    candidate_image: NDArray[np.int64]
    candidate_cui: NDArray[np.int64]
    vote_candidate: NDArray[np.int64]
    vote_size: NDArray[np.int64]
    voter: NDArray[np.int64]
    blank: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: NDArray[np.int64], labels: LabelTable) -> Ballots:
        """Ballots of the voters int64[q, k], rows of `labels`."""
        q, k = rows.shape
        sizes = labels.sizes[rows]
        voter = np.repeat(np.arange(q * k), sizes.ravel())
        cui = labels.indices[labels.entries(rows.ravel())].astype(np.int64)
        image = np.repeat(np.arange(q), sizes.sum(axis=1))
        # A table of images and of the concepts that are voted for: quicker than to sort the votes.
        voted = np.zeros(len(labels.cuis), bool)
        voted[cui] = True
        concepts = np.flatnonzero(voted)
        column = np.cumsum(voted) - 1
        cell = image * len(concepts) + column[cui]
        table = np.zeros(q * len(concepts), bool)
        table[cell] = True
        candidates = np.flatnonzero(table)
        place = np.empty(len(table), np.int64)
        place[candidates] = np.arange(len(candidates))
        candidate_image, candidate_column = np.divmod(candidates, max(len(concepts), 1))
        return cls(
            candidate_image=candidate_image,
            candidate_cui=concepts[candidate_column],
            vote_candidate=place[cell],
            vote_size=sizes.ravel()[voter],
            voter=voter,
            blank=sizes == 0,
        )

    def held_by(self, rows: NDArray[np.int64], labels: LabelTable) -> NDArray[np.bool_]:
        """Which candidates are concepts of their image's own row of `labels`, bool[c].

        Args:
            rows: int64[q], the row of each image.
            labels: Label sets of the rows, over the vocabulary of the ballots.
        """
        own = np.repeat(np.arange(len(rows)), labels.sizes[rows]) * len(labels.cuis)
        own += labels.indices[labels.entries(rows)]
        return np.isin(self.candidate_image * len(labels.cuis) + self.candidate_cui, own)

    def cast(self, weights: NDArray[np.float64]) -> Votes:
        """The votes under weights float64[q, k]."""
        empty = np.where(self.blank, weights, 0.0).sum(axis=1)
        return Votes(
            candidate_image=self.candidate_image,
            candidate_cui=self.candidate_cui,
            vote_candidate=self.vote_candidate,
            vote_size=self.vote_size,
            vote_weight=weights.ravel()[self.voter],
            empty=empty + (0.0 if weights.shape[1] else 1.0),
        )


def weigh(neighbors: Neighbors, labels: LabelTable, voting: Voting) -> Posterior:
    """Weight the k nearest neighbours by a normalised kernel, and add the prior.

    With s the cosine similarity, d = sqrt(2 - 2s) the distance and r = 0, 1, ... the rank, the
    weight of a neighbour is

    - "exponential": exp(beta * s) (Nadaraya-Watson on the unit sphere, von Mises-Fisher);
    - "inverse": d ** -beta (Dudani 1976 with beta 1);
    - "rank": (1 - r / k) ** beta;
    - "uniform": 1.

    With beta 0 all neighbours have equal weight; with a large beta the nearest one dominates.

    Where a classifier has given evidence, a log-likelihood, for the label set of each neighbour,
    each weight is multiplied by exp(head_weight * evidence): a product of experts (Hinton 2002) of
    the vote and the classifier, over the label sets of the neighbours. At weight 1 the vote is a
    prior of the label set, and the result Bayes's posterior.

    For an image unlike any other, neighbours are weak evidence. A prior, represented by the label
    sets of a fixed sample of the index (`LabelTable.sample`), therefore gets the share
    prior / (prior + W) of the vote, where W is the sum of the neighbours' weights in units of the
    weight at similarity `typical`: `prior` counts in typical neighbours.

    Evidence shifts weight among the neighbours; the share of the prior depends on similarity alone.

    Args:
        neighbors: At least k neighbours, or all rows of the index; a similarity of -inf is no vote.
        labels: Label sets of the index rows.
        voting: k, kernel, beta, head_weight, prior and typical similarity.
    """
    rows = neighbors.rows[:, : voting.k]
    similarities = neighbors.similarities[:, : voting.k].astype(np.float64)
    if rows.shape[1] == 0:
        return Posterior(rows, similarities, labels)
    logs = _log_weights(similarities, voting)
    largest = _largest(logs)
    weights = np.exp(logs - largest)
    total = weights.sum(axis=1, keepdims=True)
    if neighbors.evidence is None or voting.head_weight == 0:
        weights /= np.maximum(total, 1.0)  # the largest weight is 1, if there is any
    else:
        logs = logs + voting.head_weight * neighbors.evidence[:, : voting.k]
        weights = np.exp(logs - _largest(logs))
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1.0)
    if voting.prior > 0:
        unit = _log_weights(np.array([[voting.typical]]), voting)
        mass = np.exp(np.minimum(largest - unit, _MOST_LOG)) * total
        share = voting.prior / (voting.prior + mass)
        sample = labels.sample
        rows = np.hstack([rows, np.broadcast_to(sample, (len(rows), len(sample)))])
        added = np.broadcast_to(share / len(sample), (len(rows), len(sample)))
        weights = np.hstack([weights * (1 - share), added])
    return Posterior(rows, weights, labels)


def distances(similarities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances of unit vectors by their cosine similarities, sqrt(2 - 2s)."""
    return np.asarray(np.sqrt(np.maximum(2 - 2 * np.maximum(similarities, -1.0), 0.0)))


def _largest(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest of each image, float64[q, 1]; 0 where none has a vote."""
    largest = logs.max(axis=1, keepdims=True)
    return np.where(np.isfinite(largest), largest, 0.0)


def _log_weights(similarities: NDArray[np.float64], voting: Voting) -> NDArray[np.float64]:
    """Logarithm of the unnormalised weights, float64[q, k]."""
    if voting.kernel == "exponential":
        logs = voting.beta * np.maximum(similarities, -1.0)
    elif voting.kernel == "inverse":
        logs = -voting.beta * np.log(np.maximum(distances(similarities), LEAST_DISTANCE))
    elif voting.kernel == "rank":
        ranks = np.arange(similarities.shape[1])
        logs = np.broadcast_to(voting.beta * np.log1p(-ranks / voting.k), similarities.shape)
    else:
        logs = np.zeros_like(similarities)
    return np.where(np.isfinite(similarities), logs, -np.inf)


def count_votes(posterior: Posterior) -> Votes:
    """Split a posterior into single votes."""
    return Ballots.of(posterior.rows, posterior.labels).cast(posterior.weights)
