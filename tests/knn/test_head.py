"""Evidence of heads on the label sets of neighbours, and the vote that listens to it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from annotator.encoders.fitted import Fitted
from annotator.knn.head import with_evidence
from annotator.knn.posterior import weigh
from annotator.knn.voting import Voting
from index import LabelTable, Neighbors

SETS = [("A",), ("A", "B"), ("C",), (), ("B", "D"), ("D",)]
LABELS = LabelTable.from_sets(SETS)
ROWS = np.array([[0, 1, 2, 3], [4, 5, 1, 0]])
SIMILARITIES = np.array([[0.9, 0.8, 0.5, 0.1], [0.7, 0.7, 0.2, -np.inf]], np.float32)


def fitted(seed: int = 0) -> Fitted:
    """Two branches that know the concepts B, D and A, of vectors with two general numbers."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(2, 3, 3)).astype(np.float32)
    biases = rng.normal(size=(2, 3)).astype(np.float32)
    contents = np.arange(64, dtype=np.uint8).reshape(4, 16)
    folds = np.array([0, 1, -1, 0], np.int16)
    return Fitted(((2, 5), (5, 8)), ("B", "D", "A"), weights, biases, contents, folds)


def odds(of: Fitted, vector: np.ndarray, branch: int) -> dict[str, float]:
    start, end = of.columns[branch]
    block = vector[start:end] / np.linalg.norm(vector[start:end])
    return dict(zip(of.concepts, block @ of.weights[branch] + of.biases[branch], strict=True))


def test_evidence_is_the_sum_of_log_odds_over_a_label_set() -> None:
    heads, vectors = fitted(), np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32)
    for branch in (0, 1, None):
        found = with_evidence(Neighbors(ROWS, SIMILARITIES), LABELS, heads, vectors, branch)
        assert found.evidence is not None and found.evidence.dtype == np.float32
        for i, vector in enumerate(vectors):
            of = [odds(heads, vector, b) for b in ((0, 1) if branch is None else (branch,))]
            for place, row in enumerate(ROWS[i].tolist()):
                wanted = sum(np.mean([o.get(cui, 0.0) for o in of]) for cui in SETS[row])
                assert abs(found.evidence[i, place] - wanted) < 1e-5


def test_no_queries_have_no_evidence() -> None:
    none = Neighbors(np.zeros((0, 4), np.int64), np.zeros((0, 4), np.float32))
    found = with_evidence(none, LABELS, fitted(), np.zeros((0, 8), np.float32))
    assert found.evidence is not None and found.evidence.shape == (0, 4)


@given(st.lists(st.floats(-30, 30, width=32), min_size=8, max_size=8), st.floats(0, 2))
def test_weights_are_those_of_bayes(values: list[float], head_weight: float) -> None:
    evidence = np.array(values, np.float32).reshape(2, 4)
    voting = Voting(k=4, beta=3.0, head_weight=head_weight)
    weights = weigh(Neighbors(ROWS, SIMILARITIES, evidence), LABELS, voting).weights
    prior = weigh(Neighbors(ROWS, SIMILARITIES), LABELS, voting).weights
    scaled = head_weight * evidence.astype(np.float64)
    wanted = prior * np.exp(scaled - scaled.max(axis=1, keepdims=True))
    wanted /= np.maximum(wanted.sum(axis=1, keepdims=True), 1e-300)
    voted = wanted.sum(axis=1) > 0.5  # where the best evidence is on a neighbour with a vote
    assert np.allclose(weights[voted], wanted[voted], atol=1e-9)
    assert np.allclose(weights.sum(axis=1), 1) and weights[1, 3] == 0


def test_the_prior_keeps_its_share() -> None:
    evidence = np.array([[5.0, 0, 0, 0], [0, 5.0, 0, 0]], np.float32)
    voting = Voting(k=4, prior=0.5, head_weight=1.0)
    neighbors = Neighbors(ROWS, SIMILARITIES)
    with_heads = weigh(Neighbors(ROWS, SIMILARITIES, evidence), LABELS, voting).weights
    assert np.allclose(with_heads[:, 4:], weigh(neighbors, LABELS, voting).weights[:, 4:])


def test_evidence_moves_with_its_neighbour() -> None:
    evidence = np.arange(8, dtype=np.float32).reshape(2, 4)
    neighbors = Neighbors(ROWS, SIMILARITIES, evidence)
    left = neighbors.without(ROWS == 0, 3)
    assert left.evidence is not None and left.evidence.tolist() == [[1, 2, 3], [4, 5, 6]]
    taken = neighbors.take([1])
    assert taken.evidence is not None and taken.evidence.tolist() == [[4, 5, 6, 7]]
