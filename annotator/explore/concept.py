"""The images of a concept: its exemplars, and those whose labels their neighbours contradict.

An image is judged by its neighbours of other groups: by the share of their votes for a concept. An
image without the concept but with most of the votes for it may lack the label; an image with the
concept but hardly any vote for it may be labelled wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.knn.neighbors import Case, case_of, nearest_others
from annotator.knn.posterior import Posterior, weigh
from annotator.knn.voting import Voting
from index.protocols import Index
from index.rows import Rows, SearchResult

MOST_JUDGED = 2000
LEAST_MISSING = 0.5  # share of the votes above which a concept is likely missing
MOST_WRONG = 0.1  # of the concept's support: a label with a smaller share is likely wrong
LEAST_SUPPORT = 0.2  # support below which no label is called wrong


@dataclass(frozen=True)
class ConceptReview:
    """Exemplars and likely label errors of a concept.

    Attributes:
        cui: Of the concept.
        images: Number of images with it in the index.
        judged: Number of those that were judged.
        support: Mean share of the votes that the concept gets for those.
        exemplars: Images with it, the most typical first.
        missing: Images without it whose neighbours have it, the most likely error first.
        wrong: Images with it whose neighbours do not have it, the most likely error first.
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
        """Whether its images support each other enough to call a label wrong."""
        return self.support >= LEAST_SUPPORT


def of_concept(
    stored: Index, voting: Voting, cui: str, *, k: int = 10, most: int = MOST_JUDGED
) -> ConceptReview:
    """Find exemplars and likely label errors of a concept.

    Exemplars of equal shares are ordered by the similarity of the neighbours with the concept.
    Missing labels are sought among the neighbours of the images with the concept. No label is
    called wrong where those images hardly support each other: the concept is then too rare, or
    looks too different, for its neighbours to be evidence.

    Args:
        stored: The index.
        voting: Parameters of the vote.
        cui: The concept; an unknown one has no images.
        k: Most images of each kind.
        most: Most images judged, with the concept and without it; of more an even sample.

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
    return ConceptReview(
        cui=cui,
        images=stored.concepts.get(cui, 0),
        judged=len(holding.ids),
        support=support,
        exemplars=tuple(judged.case(i) for i in by_share[:k]),
        missing=tuple(others.case(i) for i in missing[:k]),
        wrong=tuple(judged.case(i) for i in wrong[:k]),
    )


def shares_of(posterior: Posterior, cui: str) -> NDArray[np.float64]:
    """Share of the votes that one concept gets for each image, 0..1; float64[q]."""
    holds = np.zeros(len(posterior.labels), bool)
    holds[posterior.labels.holders(cui)] = True
    for_it: NDArray[np.float64] = np.where(holds[posterior.rows], posterior.weights, 0.0)
    shares: NDArray[np.float64] = np.minimum(for_it.sum(axis=1), 1.0)
    return shares


class _Judged:
    """Some images of an index, judged by their neighbours for one concept.

    Attributes:
        shares: float64[n]: of the votes; 0 without neighbours.
        closeness: float64[n]: mean similarity of the neighbours with the concept, 0 without any.
        judged: bool[n]: whether there are neighbours.
        lacking: The neighbours without the concept by id, with the sum of their closeness.
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
        return case_of(self._cases, i, float(self.shares[i]))

    def _neighbors(self, stored: Index, k: int) -> Iterator[SearchResult]:
        ids = self._cases.ids
        if not ids:
            return iter(())
        groups = self._cases.columns.get("groups") or [""] * len(ids)
        vectors = self._cases.vectors(np.arange(len(ids)))
        return nearest_others(stored.find, vectors, ids, groups, k)
