"""The images of a concept: its exemplars, and those whose labels their neighbours contradict.

An image is judged by other images of other groups: the share of their votes that a concept gets.
Where an image lacks a concept although most of the votes are for it, the concept may have been
forgotten; where it has one although hardly any vote is for it, the concept may be wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.knn.neighbors import Case, case_of, nearest_others
from annotator.knn.posterior import Posterior, weigh
from annotator.knn.voting import Voting
from index.cases import Rows, SearchResult
from index.protocols import Index

MOST_JUDGED = 2000
LEAST_MISSING = 0.5  # of the votes: a likely missing concept has more
MOST_WRONG = 0.1  # of what an image of the concept has on average: a likely wrong one has less
LEAST_SUPPORT = 0.2  # of the votes, on average: with less no image can be called wrong


@dataclass(frozen=True)
class OfConcept:
    """The images of a concept.

    Attributes:
        cui: Of the concept.
        images: How many of the index hold it.
        judged: How many of those were looked at.
        support: The share of the votes that the concept gets on average for one of those.
        exemplars: Images that hold it, the most typical first.
        missing: Images that lack it although their neighbours have it, the most likely error first.
        wrong: Images that hold it although their neighbours do not, the most likely error first.
    """

    cui: str
    images: int
    judged: int
    support: float
    exemplars: tuple[Case, ...]
    missing: tuple[Case, ...]
    wrong: tuple[Case, ...]

    @property
    def judges_wrong(self) -> bool:
        """Whether its images support each other enough to call one wrong."""
        return self.support >= LEAST_SUPPORT


def of_concept(
    stored: Index, voting: Voting, cui: str, *, k: int = 10, most: int = MOST_JUDGED
) -> OfConcept:
    """The images of a concept, k of each kind at most.

    Exemplars of equal shares are ordered by how near the neighbours are that hold the concept. What
    may lack it is looked for among the neighbours of those that hold it. None is called wrong where
    the images of the concept hardly support each other: it is too rare, or looks too different, for
    neighbours to speak for it.

    Args:
        stored: The index.
        voting: How neighbours vote.
        cui: The concept; one that the index does not have has no images.
        k: Images of each kind.
        most: Images that are judged at most: of those that hold the concept, and of those that may
            lack it; more are sampled evenly.

    Raises:
        IndexProblem: A server cannot be reached.
    """
    holding = stored.with_concept(cui, most)
    judged = _Judged(stored, voting, cui, holding)
    by_share = sorted(
        range(len(holding.ids)),
        key=lambda i: (-judged.shares[i], -judged.closeness[i], holding.ids[i]),
    )
    lacking = stored.with_ids(sorted(judged.lacking, key=judged.lacking.__getitem__)[-most:])
    others = _Judged(stored, voting, cui, lacking)
    missing = sorted(
        np.flatnonzero(others.shares > LEAST_MISSING).tolist(),
        key=lambda i: (-others.shares[i], -others.closeness[i], lacking.ids[i]),
    )
    support = float(judged.shares[judged.judged].mean()) if judged.judged.any() else 0.0
    least = MOST_WRONG * support if support >= LEAST_SUPPORT else 0.0
    wrong = [i for i in by_share[::-1] if judged.judged[i] and judged.shares[i] < least]
    return OfConcept(
        cui=cui,
        images=stored.concepts.get(cui, 0),
        judged=len(holding.ids),
        support=support,
        exemplars=tuple(judged.case(i) for i in by_share[:k]),
        missing=tuple(others.case(i) for i in missing[:k]),
        wrong=tuple(judged.case(i) for i in wrong[:k]),
    )


def shares_of(posterior: Posterior, cui: str) -> NDArray[np.float64]:
    """float64[q]: the share of the votes that one concept gets for each image, 0..1."""
    holds = np.zeros(len(posterior.labels), bool)
    holds[posterior.labels.holders(cui)] = True
    for_it: NDArray[np.float64] = np.where(holds[posterior.rows], posterior.weights, 0.0)
    shares: NDArray[np.float64] = np.minimum(for_it.sum(axis=1), 1.0)
    return shares


class _Judged:
    """Some images of an index, judged by others for one concept.

    Attributes:
        shares: float64[n], of the votes; 0 for those that no other image speaks about.
        closeness: float64[n], mean similarity of the neighbours that hold the concept, 0 without.
        judged: bool[n], whether other images speak about it.
        lacking: Of the neighbours, those that lack the concept: how near they are in all, by id.
    """

    def __init__(self, stored: Index, voting: Voting, cui: str, cases: Rows) -> None:
        n = len(cases.ids)
        self._cases = cases
        self.shares, self.closeness = np.zeros(n), np.zeros(n)
        self.judged = np.zeros(n, bool)
        self.lacking: dict[str, float] = {}
        done = 0
        for found in self._neighbors(stored, voting.k):
            neighbors, theirs = found.neighbors, found.cases
            usable = np.flatnonzero(np.isfinite(neighbors.similarities[:, :1]).any(axis=1))
            rows, block = done + usable, found.take(usable.tolist())
            done += len(neighbors.rows)
            if not len(usable):
                continue
            self.judged[rows] = True
            self.shares[rows] = shares_of(weigh(block.neighbors, theirs.labels, voting), cui)
            holds = np.zeros(len(theirs.labels), bool)
            holds[theirs.labels.holders(cui)] = True
            near = np.isfinite(block.neighbors.similarities)
            holding = holds[block.neighbors.rows] & near
            similarity = np.where(holding, block.neighbors.similarities, 0).sum(axis=1)
            self.closeness[rows] = similarity / np.maximum(holding.sum(axis=1), 1)
            for row, value in zip(
                block.neighbors.rows[near & ~holding].tolist(),
                block.neighbors.similarities[near & ~holding].tolist(),
                strict=True,
            ):
                id_ = theirs.ids[row]
                self.lacking[id_] = self.lacking.get(id_, 0.0) + 1.0 + value

    def case(self, i: int) -> Case:
        """One of them."""
        return case_of(self._cases, i, float(self.shares[i]))

    def _neighbors(self, stored: Index, k: int) -> Iterator[SearchResult]:
        ids = self._cases.ids
        if not ids:
            return iter(())
        groups = self._cases.columns.get("groups") or [""] * len(ids)
        vectors = self._cases.vectors(np.arange(len(ids)))
        return nearest_others(stored.find, vectors, ids, groups, k)
