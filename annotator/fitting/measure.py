"""F1 on images that a branch has not seen: of the vote of its neighbours, and of its head."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from annotator.evaluation.official_f1 import image_score
from annotator.knn.decision import choose_concepts
from annotator.knn.posterior import weigh
from annotator.knn.voting import Voting
from index import FlatIndex, LabelTable


def vote_f1(
    features: NDArray[np.float32],
    labels: LabelTable,
    queries: NDArray[np.float32],
    truth: LabelTable,
    voting: Voting,
) -> float:
    """Mean F1 of the concepts that the nearest images vote for.

    Args:
        features: float32[n, length] of unit norm.
        labels: Concepts of these images.
        queries: float32[q, length] of unit norm, of images of other groups.
        truth: Their concepts.
        voting: The vote, with its k and its kernel.
    """
    found = FlatIndex(features).search(queries, min(voting.k, len(features)))
    decisions = choose_concepts(weigh(found, labels, voting), voting)
    scores = [image_score(set(truth.row(i)), decision.cuis) for i, decision in enumerate(decisions)]
    return float(np.mean(scores))


def head_f1(
    log_odds: NDArray[np.float32], labels: NDArray[np.bool_], sizes: NDArray[np.int64]
) -> float:
    """Mean F1 of the concepts that the head's probabilities choose.

    Of each image the m most probable concepts are chosen, with the m of the largest
    2 * (sum of their probabilities) / (m + sum of all): the expected F1 if the number of concepts
    were known to be its expectation.

    Args:
        log_odds: float32[q, c].
        labels: bool[q, c], the true ones among the head's concepts.
        sizes: int64[q], number of concepts of each image, also of those that the head lacks.
    """
    probabilities = 1 / (1 + np.exp(-log_odds.astype(np.float64)))
    order = np.argsort(-probabilities, axis=1, kind="stable")
    falling = np.take_along_axis(probabilities, order, axis=1).cumsum(axis=1)
    m = np.arange(1, log_odds.shape[1] + 1)
    most = (2 * falling / (m + falling[:, -1:])).argmax(axis=1)
    hits = np.take_along_axis(labels, order, axis=1).cumsum(axis=1)
    hit = np.take_along_axis(hits, most[:, None], axis=1)[:, 0]
    return float(np.mean(2 * hit / (most + 1 + sizes)))
