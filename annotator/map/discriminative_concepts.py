"""Choose the concepts that best separate the points of a map, as colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.labels import LabelTable

_CROSSING = 0.1  # share of the rarer of two concepts that may break "apart" or "within"
_STARTS = 12


def discriminative_concepts(labels: LabelTable, most: int) -> list[str]:
    """Choose the concepts that maximise the entropy of the colours of the points.

    Points without a colour contribute nothing, so concepts that cover the map are preferred;
    concepts of all points are excluded. Any two chosen concepts are disjoint or nested, up to a
    tenth of the rarer one: crossing concepts, such as a modality and "normal", would hide each
    other. Greedy search with several starts: each set starts from one of the concepts with the
    greatest gain and is completed greedily; then each member is replaced by a better or more
    specific one, if any. The best set is returned.

    Args:
        labels: Concepts of each point.
        most: Maximum number of concepts.

    Returns:
        CUIs; empty if no concept separates points.
    """
    search = _Search(labels)
    sets = [search.refine(search.complete(first, most)) for first in search.starts()]
    best = max(sets, key=lambda chosen: round(search.entropy(chosen), 12), default=[])
    return [labels.cuis[j] for j in best]


def rarest(labels: LabelTable, concepts: Sequence[int]) -> NDArray[np.int64]:
    """Index into `concepts` of the rarest one of each row, or -1; int64[n].

    Args:
        labels: Concepts of each row.
        concepts: Positions in the vocabulary; -1 for a concept on no row.
    """
    rank = _ranks(labels)
    order = sorted(
        (i for i, concept in enumerate(concepts) if concept >= 0), key=lambda i: rank[concepts[i]]
    )
    level = np.full(len(labels.cuis), -1, np.int64)  # 0 for the most frequent of them
    level[[concepts[i] for i in order]] = np.arange(len(order))
    highest = np.full(len(labels), -1, np.int64)
    np.maximum.at(highest, _rows(labels), level[labels.indices])
    return np.append(np.array(order, np.int64), -1)[highest]


class _Search:
    """Greedy search over sets of concepts, as positions in the vocabulary."""

    def __init__(self, labels: LabelTable) -> None:
        self._labels = labels
        self._rank, self._row_of = _ranks(labels), _rows(labels)
        self._known: dict[int, NDArray[np.bool_]] = {}

    def entropy(self, chosen: Sequence[int]) -> float:
        """Entropy in nats of the colours, with each point coloured by its rarest concept."""
        colour = rarest(self._labels, chosen) + 1
        return float(_entropy(np.bincount(colour, minlength=1)[None], len(colour))[0])

    def gains(self, chosen: Sequence[int]) -> NDArray[np.float64]:
        """Gain in entropy of a set by each concept of the vocabulary, float64[cuis]."""
        slots = sorted(chosen, key=lambda j: self._rank[j])
        slot = rarest(self._labels, slots) + 1  # 0: no colour yet
        vocabulary, width = len(self._labels.cuis), len(slots) + 1
        pairs = self._labels.indices.astype(np.int64) * width + slot[self._row_of]
        shared = np.bincount(pairs, minlength=vocabulary * width).reshape(vocabulary, width)
        # A concept takes points from uncoloured ones and from more frequent concepts.
        taken = shared * (np.array([-1, *self._rank[slots]]) < self._rank[:, None])
        now = np.bincount(slot, minlength=width)
        after = np.column_stack([now - taken, taken.sum(axis=1)])
        n = len(self._labels)
        return (_entropy(after, n) - _entropy(now[None], n)).round(12)

    def starts(self) -> list[int]:
        """The concepts with the greatest gain on their own."""
        gains = self.gains([])
        order = np.lexsort((self._rank, -gains))[:_STARTS]
        return [int(j) for j in order if gains[j] > 0]

    def complete(self, first: int, most: int) -> list[int]:
        """Grow a set from one concept, greedily by gain."""
        chosen = [first]
        while len(chosen) < most and (best := self._best_beside(chosen)) is not None:
            chosen.append(best)
        return chosen

    def refine(self, chosen: Sequence[int]) -> list[int]:
        """Replace each concept in turn by the best one given the others (rarest on ties)."""
        result = list(chosen)
        for i in range(len(result)):
            best = self._best_beside(result[:i] + result[i + 1 :])
            result[i] = result[i] if best is None else best
        return result

    def _best_beside(self, chosen: Sequence[int]) -> int | None:
        """Concept with the greatest gain for a set, rarest on ties; None without gain."""
        allowed = self._labels.frequencies < len(self._labels)
        for concept in chosen:
            allowed = allowed & self._compatible(concept)
        gains = np.where(allowed, self.gains(chosen), 0)
        # Remaining ties: the first of the vocabulary.
        best = int(np.lexsort((self._labels.frequencies, -gains))[0])
        return best if gains[best] > 0 else None

    def _compatible(self, concept: int) -> NDArray[np.bool_]:
        """Mask of other concepts disjoint from or nested with a concept, bool[cuis]."""
        if concept in self._known:
            return self._known[concept]
        has = np.zeros(len(self._labels), bool)
        has[self._row_of[self._labels.indices == concept]] = True
        both = np.bincount(
            self._labels.indices[has[self._row_of]], minlength=len(self._labels.cuis)
        )
        held = self._labels.frequencies
        common = both / np.minimum(held, held[concept])
        compatible: NDArray[np.bool_] = (common <= _CROSSING) | (common >= 1 - _CROSSING)
        compatible[concept] = False
        self._known[concept] = compatible
        return compatible


def _ranks(labels: LabelTable) -> NDArray[np.int64]:
    """Rank by frequency, 0 for the most frequent; ties in vocabulary order. int64[cuis]."""
    rank = np.empty(len(labels.cuis), np.int64)
    rank[np.argsort(-labels.frequencies, kind="stable")] = np.arange(len(rank))
    return rank


def _rows(labels: LabelTable) -> NDArray[np.int64]:
    """Row of each entry of the table, int64[entries]."""
    return np.repeat(np.arange(len(labels)), labels.sizes)


def _entropy(counts: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Entropy in nats of m colourings of n points, float64[m]; the first column has no colour."""
    shares = counts[:, 1:] / n
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    result: NDArray[np.float64] = -(shares * logs).sum(axis=1)
    return result
