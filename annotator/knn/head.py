"""Evidence of a fitted encoder's heads on the label sets of neighbours.

With log-odds o_j of the concepts of an image, independent of each other, the log-likelihood of a
label set Y is the sum of o_j over Y, up to a constant of the image. So all that a classifier has
to say of a neighbour's labels is one number, which `annotator.knn.posterior.weigh` takes into the
vote: the answer stays a weighted list of cases.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.fitted import Fitted
from index import LabelTable, Neighbors


def with_evidence(
    neighbors: Neighbors,
    labels: LabelTable,
    fitted: Fitted,
    vectors: NDArray[np.float32],
    branch: int | None = None,
) -> Neighbors:
    """Neighbours with the evidence of the heads.

    Concepts that the heads do not know add nothing.

    Args:
        neighbors: Of q queries.
        labels: Label sets of the rows.
        fitted: Of the encoder.
        vectors: float32[q, dim], the queries, from the encoder.
        branch: The branch whose head is asked; None for the mean log-odds of all.
    """
    branches = range(len(fitted.columns)) if branch is None else [branch]
    odds = np.mean([fitted.log_odds(vectors, b) for b in branches], axis=0)
    known = {concept: j for j, concept in enumerate(fitted.concepts)}
    # The column of zeros at the end is for concepts that the heads do not know.
    padded = np.hstack([odds, np.zeros((len(vectors), 1))])
    column = np.array([known.get(cui, len(known)) for cui in labels.cuis], np.int64)
    rows = neighbors.rows.ravel()
    sizes = labels.sizes[rows]
    place = np.repeat(np.arange(len(rows)), sizes)
    query = place // max(neighbors.rows.shape[1], 1)
    of_label = padded[query, column[labels.indices[labels.entries(rows)]]]
    evidence = np.bincount(place, of_label, len(rows)).reshape(neighbors.rows.shape)
    return replace(neighbors, evidence=evidence.astype(np.float32))
