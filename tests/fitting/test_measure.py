"""Held-out F1 of the vote and of the head."""

from __future__ import annotations

import numpy as np
import pytest

from annotator.fitting.measure import head_f1, vote_f1
from annotator.knn.voting import Voting
from index import LabelTable


def test_the_vote_is_that_of_the_nearest() -> None:
    features = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 2]]
    labels = LabelTable.from_sets([["A"], ["A"], ["B", "C"], ["B", "C"], []])
    truth = LabelTable.from_sets([["A"], ["B", "D"], []])
    found = vote_f1(features, labels, features[[0, 2, 4]], truth, Voting(k=50, beta=50))
    assert found == pytest.approx((1 + 2 * 1 / 4 + 1) / 3)


def test_the_head_chooses_by_expected_size() -> None:
    rng = np.random.default_rng(0)
    log_odds = rng.normal(-1, 2, (30, 6)).astype(np.float32)
    labels = rng.random((30, 6)) < 0.4
    sizes = labels.sum(1) + rng.integers(0, 3, 30)  # some have concepts that the head lacks
    scores = []
    for odds, true, size in zip(log_odds, labels, sizes.tolist(), strict=True):
        p = 1 / (1 + np.exp(-odds.astype(float)))
        order = np.argsort(-p)
        values = [2 * p[order[:m]].sum() / (m + p.sum()) for m in range(1, 7)]
        chosen = order[: int(np.argmax(values)) + 1]
        scores.append(2 * true[chosen].sum() / (len(chosen) + size))
    assert head_f1(log_odds, labels, sizes) == pytest.approx(np.mean(scores))
