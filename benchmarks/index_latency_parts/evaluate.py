"""What found rows are worth: recall by distance, and F1 through the product's own voting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.evaluation.official_f1 import image_f1
from annotator.knn.decision import choose_concepts
from annotator.knn.posterior import weigh
from annotator.knn.voting import Voting
from index.search.base import Neighbors
from index_latency_parts.data import QUERIES, Dataset
from index_latency_parts.truth import recall, similarities

Rows = NDArray[np.int64]


def evaluate(data: Dataset, rows: Rows, known: dict[Any, float]) -> dict[str, float]:
    """Recall, F1 and its change against exact search.

    Args:
        data: What was searched.
        rows: int64[q, k], found for each query.
        known: F1 of exact search, kept between calls.

    Returns:
        "recall", "f1", "f1_change"; with a collection the same of its test side, "real_...".
    """
    k = rows.shape[1]
    found = similarities(data.vectors, data.queries, rows)
    result: dict[str, float] = {}
    for name, some in (("", slice(0, QUERIES)), ("real_", slice(QUERIES, None))):
        if len(rows[some]) == 0:
            continue
        exact = data.exact[some, :k]
        result[f"{name}recall"] = recall(rows[some], found[some], exact)
        key = (data.name, name, k)
        if key not in known:
            known[key] = f1(data, data.rows[some, :k], exact, some.start)
        result[f"{name}f1"] = f1(data, rows[some], found[some], some.start)
        result[f"{name}f1_change"] = result[f"{name}f1"] - known[key]
    return result


def f1(data: Dataset, rows: Rows, found: NDArray[np.float64], first: int) -> float:
    """Mean F1 of what the product's voting makes of neighbours.

    Args:
        data: Knows the labels.
        rows: int64[q, k]; where nothing was found (-1), that neighbour has no vote.
        found: float64[q, k], their similarities.
        first: Number of the first query.
    """
    voting = Voting(k=rows.shape[1])
    scores: list[float] = []
    for some in _alike(rows):
        kept = np.argsort(-found[some], axis=1, kind="stable")[:, : (rows[some[0]] >= 0).sum()]
        if kept.shape[1] == 0:
            scores += [0.0] * len(some)
            continue
        table, positions = data.label_table(np.take_along_axis(rows[some], kept, 1))
        near = np.take_along_axis(found[some], kept, 1).astype(np.float32)
        posterior = weigh(Neighbors(positions, near), table, voting)
        decisions = choose_concepts(posterior, voting)
        for query, decision in zip(some.tolist(), decisions, strict=True):
            scores.append(image_f1(data.truth(first + query), decision.cuis))
    return float(np.mean(scores))


def _alike(rows: Rows) -> Sequence[NDArray[np.intp]]:
    """Numbers of the queries for which equally many rows were found, together."""
    counts = (rows >= 0).sum(axis=1)
    return [np.flatnonzero(counts == count) for count in np.unique(counts)]
