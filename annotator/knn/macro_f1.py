"""Macro F1: the mean F1 over concepts, in which a rare concept counts as much as a frequent one.

The F1 of a concept is highest if it is given to the images where its probability is at least half
of the F1 that is reached so (Lipton, Elkan and Narayanaswamy 2014, "Optimal thresholding of
classifiers to maximize F1 measure"; macro F1 of several labels falls apart into these: Koyejo et
al. 2015, "Consistent multilabel classification"). A rare concept reaches little, so it needs few
votes. docs/rare.md has what was measured.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from annotator.knn.cross_validation import NeighborLists
from annotator.knn.decision import Decision
from annotator.knn.posterior import count_votes, weigh
from annotator.knn.voting import Voting, frequency_bands
from index import LabelTable

_IMAGES_AT_ONCE = 256
_DECIMALS = 6


def fit_thresholds(
    lists: NeighborLists, labels: LabelTable, voting: Voting
) -> tuple[float, float, float, float]:
    """Least share of the votes of a concept, by its frequency band, for `Voting.macro_thresholds`.

    The F1 that a concept reaches is what the vote itself expects on the images of the lists, whose
    concepts are not looked at: thresholds that were fitted to them would be those of the few images
    that have a rare concept. For the same reason concepts share the threshold of their band, half
    of the mean over its concepts with any vote. A band without any has the threshold of the next
    more frequent one, or else of the next rarer one.

    Args:
        lists: From `annotator.knn.cross_validation`.
        labels: Concepts of the index rows.
        voting: Voting parameters.
    """
    concepts, shares = _shares(lists, labels, voting)
    reached = best_expected_f1(concepts, shares, len(labels.cuis))
    bands = frequency_bands(labels.frequencies)
    half = [reached[(bands == band) & (reached > 0)] / 2 for band in range(4)]  # at most 1/2
    found: list[float | None] = [float(values.mean()) if len(values) else None for values in half]
    for band in (2, 1, 0):
        found[band] = found[band + 1] if found[band] is None else found[band]
    for band in (1, 2, 3):
        found[band] = found[band - 1] if found[band] is None else found[band]
    a, b, c, d = (0.5 if value is None else round(value, _DECIMALS) for value in found)
    return a, b, c, d


def best_expected_f1(
    concepts: NDArray[np.int64], shares: NDArray[np.float64], n: int
) -> NDArray[np.float64]:
    """The F1 that each concept reaches if shares of the votes are probabilities, float64[n].

    Given to the m images with the largest shares p, a concept has the F1 2 Σ p / (Σ p + m), with
    the first sum over these images and the second over all, where true positives and true images
    are replaced by their expected numbers.

    Args:
        concepts: int64[c], the concept of each pair of an image and a concept with a vote.
        shares: float64[c], its share of the image's votes.
        n: Number of concepts.

    Returns:
        The maximum over m; 0 for a concept without votes.
    """
    best = np.zeros(n)
    if len(concepts) == 0:
        return best
    order = np.lexsort((-shares, concepts))
    concepts, shares = concepts[order], shares[order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(concepts) > 0]))
    lengths = np.diff(np.concatenate([starts, [len(concepts)]]))
    sums = np.cumsum(shares)
    sums -= np.repeat(sums[starts] - shares[starts], lengths)
    number = np.arange(len(concepts)) - np.repeat(starts, lengths) + 1
    total = np.bincount(concepts, shares, n)
    np.maximum.at(best, concepts, 2 * sums / (total[concepts] + number))
    return best


def by_band(
    truth: Sequence[Collection[str]], decisions: Sequence[Decision], labels: LabelTable
) -> tuple[float, list[float | None]]:
    """Macro F1 over the concepts of some images, and the recall of each frequency band.

    Args:
        truth: Concepts of each image, of the vocabulary of `labels`.
        decisions: On the images.
        labels: Concepts of the index rows.

    Returns:
        Macro F1, 1 without a concept, and the recall of all occurrences of a band's concepts, None
        without any.
    """
    position = {cui: j for j, cui in enumerate(labels.cuis)}
    wanted, given, both = (np.zeros(len(position), np.int64) for _ in range(3))
    for concepts, decision in zip(truth, decisions, strict=True):
        for counts, some in (
            (wanted, set(concepts)),
            (given, set(decision.cuis)),
            (both, set(concepts) & set(decision.cuis)),
        ):
            counts[[position[cui] for cui in some]] += 1
    f1 = (2 * both / np.maximum(wanted + given, 1))[wanted > 0]
    bands = frequency_bands(labels.frequencies)
    sums = [(both[bands == band].sum(), wanted[bands == band].sum()) for band in range(4)]
    recall = [round(float(hit / all_), _DECIMALS) if all_ else None for hit, all_ in sums]
    return float(f1.mean()) if len(f1) else 1.0, recall


def _shares(
    lists: NeighborLists, labels: LabelTable, voting: Voting
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Concept and share of each pair of an image and a concept with a vote."""
    concepts, shares = [np.zeros(0, np.int64)], [np.zeros(0)]
    for start in range(0, len(lists.queries), _IMAGES_AT_ONCE):
        rows = np.arange(start, min(start + _IMAGES_AT_ONCE, len(lists.queries)))
        votes = count_votes(weigh(lists.found.take(rows), labels, voting))
        concepts.append(votes.candidate_cui)
        shares.append(votes.scores)
    return np.concatenate(concepts), np.concatenate(shares)
