"""Which few concepts tell most about a map when each point has the colour of one of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.labels import LabelTable

_CROSSING = 0.1  # the share of the rarer of two concepts that may lie astray
_STARTS = 12


def telling(labels: LabelTable, most: int) -> list[str]:
    """The concepts by which the colours of the points have the greatest entropy.

    Points without a colour count for nothing, so concepts that cover the map are preferred; those
    on every point are left out. Any two concepts lie apart or one within the other, but for a tenth
    of the rarer one: colours of concepts that cross, such as a modality and "normal", would hide
    each other. Of the concepts that divide the points best, each begins a set that is completed
    greedily, and then each member gives way to what does better or is more specific; the best set
    is taken.

    Args:
        labels: The concepts of each point.
        most: How many are chosen at most.

    Returns:
        CUIs; none where no concept tells points apart.
    """
    choice = _Choice(labels)
    sets = [choice.refined(choice.completed(first, most)) for first in choice.starts()]
    best = max(sets, key=lambda chosen: round(choice.entropy(chosen), 12), default=[])
    return [labels.cuis[j] for j in best]


def rarest(labels: LabelTable, concepts: Sequence[int]) -> NDArray[np.int64]:
    """int64[n]: which of `concepts` (positions in the vocabulary) is a row's rarest, or -1.

    A concept of the position -1 is on no row.
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


class _Choice:
    """Sets of concepts, as positions in the vocabulary, and what their colours say."""

    def __init__(self, labels: LabelTable) -> None:
        self._labels = labels
        self._rank, self._row_of = _ranks(labels), _rows(labels)
        self._known: dict[int, NDArray[np.bool_]] = {}

    def entropy(self, chosen: Sequence[int]) -> float:
        """Of the colours that the rarest of the concepts gives each point, in nats."""
        colour = rarest(self._labels, chosen) + 1
        return float(_entropy(np.bincount(colour, minlength=1)[None], len(colour))[0])

    def gains(self, chosen: Sequence[int]) -> NDArray[np.float64]:
        """float64[cuis]: how much entropy each concept would bring to a set."""
        slots = sorted(chosen, key=lambda j: self._rank[j])
        slot = rarest(self._labels, slots) + 1  # 0: no colour yet
        vocabulary, width = len(self._labels.cuis), len(slots) + 1
        pairs = self._labels.indices.astype(np.int64) * width + slot[self._row_of]
        shared = np.bincount(pairs, minlength=vocabulary * width).reshape(vocabulary, width)
        # A concept takes its points from no colour, and from concepts that are more frequent.
        taken = shared * (np.array([-1, *self._rank[slots]]) < self._rank[:, None])
        now = np.bincount(slot, minlength=width)
        after = np.column_stack([now - taken, taken.sum(axis=1)])
        n = len(self._labels)
        return (_entropy(after, n) - _entropy(now[None], n)).round(12)

    def starts(self) -> list[int]:
        """The concepts that bring most on their own."""
        gains = self.gains([])
        order = np.lexsort((self._rank, -gains))[:_STARTS]
        return [int(j) for j in order if gains[j] > 0]

    def completed(self, first: int, most: int) -> list[int]:
        """A set that begins with a concept, completed by what brings most each time."""
        chosen = [first]
        while len(chosen) < most and (best := self._best_beside(chosen)) is not None:
            chosen.append(best)
        return chosen

    def refined(self, chosen: Sequence[int]) -> list[int]:
        """A set in which each concept is the best and rarest in its place."""
        result = list(chosen)
        for i in range(len(result)):
            best = self._best_beside(result[:i] + result[i + 1 :])
            result[i] = result[i] if best is None else best
        return result

    def _best_beside(self, chosen: Sequence[int]) -> int | None:
        """What brings most to a set, the rarest of equals, if anything does."""
        allowed = self._labels.frequencies < len(self._labels)
        for concept in chosen:
            allowed = allowed & self._beside(concept)
        gains = np.where(allowed, self.gains(chosen), 0)
        # Of equally rare ones the first of the vocabulary.
        best = int(np.lexsort((self._labels.frequencies, -gains))[0])
        return best if gains[best] > 0 else None

    def _beside(self, concept: int) -> NDArray[np.bool_]:
        """bool[cuis]: which others lie apart from a concept, within it, or around it."""
        if concept in self._known:
            return self._known[concept]
        has = np.zeros(len(self._labels), bool)
        has[self._row_of[self._labels.indices == concept]] = True
        both = np.bincount(
            self._labels.indices[has[self._row_of]], minlength=len(self._labels.cuis)
        )
        held = self._labels.frequencies
        common = both / np.minimum(held, held[concept])
        beside: NDArray[np.bool_] = (common <= _CROSSING) | (common >= 1 - _CROSSING)
        beside[concept] = False
        self._known[concept] = beside
        return beside


def _ranks(labels: LabelTable) -> NDArray[np.int64]:
    """int64[cuis]: 0 for the most frequent concept; equals in the order of the vocabulary."""
    rank = np.empty(len(labels.cuis), np.int64)
    rank[np.argsort(-labels.frequencies, kind="stable")] = np.arange(len(rank))
    return rank


def _rows(labels: LabelTable) -> NDArray[np.int64]:
    """int64[entries]: the row of each entry of the table."""
    return np.repeat(np.arange(len(labels)), labels.sizes)


def _entropy(counts: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """float64[m]: in nats, of int64[m, categories] of n points; the first has no colour."""
    shares = counts[:, 1:] / n
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    result: NDArray[np.float64] = -(shares * logs).sum(axis=1)
    return result
