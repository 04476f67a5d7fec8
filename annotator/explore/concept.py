"""Review of a concept: exemplars and likely label errors.

An image is judged by the share of votes for the concept from its neighbours of other groups. An
image without the concept but a high share may lack the label; an image with the concept but a low
share may be labelled wrong.
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
LEAST_MISSING = 0.5  # vote share above which a label is likely missing
MOST_WRONG = 0.1  # vote share, relative to the support, below which a label is likely wrong
LEAST_SUPPORT = 0.2  # minimum support for calling labels wrong


@dataclass(frozen=True)
class ConceptReview:
    """Exemplars and likely label errors of a concept.

    Attributes:
        cui: CUI of the concept.
        images: Number of images with it in the index.
        judged: Number of judged images with it.
        support: Mean vote share of the concept over these.
        exemplars: Images with it, most typical first.
        missing: Images without it whose neighbours have it, most likely error first.
        wrong: Images with it whose neighbours do not have it, most likely error first.
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
        """True if the support suffices to call labels wrong."""
        return self.support >= LEAST_SUPPORT


def of_concept(
    stored: Index, voting: Voting, cui: str, *, k: int = 10, most: int = MOST_JUDGED
) -> ConceptReview:
    """Find exemplars and likely label errors of a concept.

    Exemplars with equal shares are ordered by the similarity of the neighbours with the concept.
    Candidates for missing labels are neighbours of images with the concept. No label is called
    wrong if the support is low: the concept is then too rare, or too diverse in appearance, for
    neighbours to be evidence.

    Args:
        stored: Open index.
        voting: Voting parameters.
        cui: The concept; an unknown one has no images.
        k: Maximum number of images per list.
        most: Maximum number of judged images with, and without, the concept (an even sample).

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
    """Vote share of one concept for each image, 0..1; float64[q]."""
    holds = np.zeros(len(posterior.labels), bool)
    holds[posterior.labels.holders(cui)] = True
    for_it: NDArray[np.float64] = np.where(holds[posterior.rows], posterior.weights, 0.0)
    shares: NDArray[np.float64] = np.minimum(for_it.sum(axis=1), 1.0)
    return shares


class _Judged:
    """Images of an index, judged by their neighbours for one concept.

    Attributes:
        shares: float64[n]: vote shares; 0 without neighbours.
        closeness: float64[n]: mean similarity of the neighbours with the concept, 0 without any.
        judged: bool[n]: True if there are neighbours.
        lacking: Neighbours without the concept, by id, with their summed closeness.
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
