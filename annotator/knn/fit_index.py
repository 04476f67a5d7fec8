"""From the encoder's vectors to a projection, neighbour lists and voting parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from annotator.knn.cross_validation import (
    LEAST_IMAGES,
    NeighborLists,
    cross_fitted,
    group_folds,
    group_numbers,
    leave_one_group_out,
)
from annotator.knn.fit import Fitter
from annotator.knn.grid_search import Tuned, choose_voting, quick_f1
from annotator.knn.projection import Projection
from annotator.knn.voting import Voting
from index import FlatIndex, LabelTable

Adaptation = Literal["auto", "looks", "none"]

PENALTIES = (0.3, 1.0, 3.0, 10.0)
_DEFAULT_PENALTY = 1.0
_LEAST_FITTED = 20  # images; with fewer there is nothing to standardise by
_RAW_BETA = 64.0  # for vectors that are not projected (docs/accuracy.md)


@dataclass(frozen=True)
class Choice:
    """How a collection is best searched, and how its neighbours are best heard.

    Attributes:
        projection: What the vectors go through, or None for nothing.
        penalty: Of its regression; None where there is none.
        penalties: F1 by penalty ("none" for the looks alone), as far as they were compared.
        voting: What was chosen, or what suits the vectors if nothing was.
        lists: Neighbour lists of images that the index does not hold; None with too few images.
        tuned: What was chosen on them; None if nothing was.
    """

    projection: Projection | None
    penalty: float | None
    penalties: Mapping[str, float]
    voting: Voting
    lists: NeighborLists | None
    tuned: Tuned | None


def choose(
    vectors: NDArray[np.float32],
    concepts: Sequence[Sequence[str]],
    groups: Sequence[str],
    *,
    blocks: Sequence[int],
    adaptation: Adaptation = "auto",
    tuning: bool = True,
    voting: Voting | None = None,
    fixed: Sequence[str] = (),
) -> Choice:
    """Fit and choose everything that depends on the collection.

    No validation split is needed: images are annotated by those of other groups, through
    projections that have not seen their concepts. A missing group never merges rows.

    Args:
        vectors: float32[n, dim] of unit norm, as the encoder made them; may be mapped from disk.
        concepts: CUIs of each row.
        groups: Patient, study or figure of each row; an empty one is a group of its own.
        blocks: As for `Fitter`.
        adaptation: "auto" fits a projection, and a regression if it helps; "looks" one that knows
            no concepts; "none" leaves the vectors as they are. With fewer than 20 rows always
            "none".
        tuning: Choose voting parameters; otherwise they stay as they are.
        voting: Where to start from; None for what suits the vectors.
        fixed: Fields of `voting` that were chosen on purpose: tuning leaves them as they are. With
            none, all of a given `voting` was, as long as nothing is tuned.
    """
    labels = LabelTable.from_sets(concepts)
    numbers = group_numbers(groups)
    unprojected = len(vectors) < _LEAST_FITTED or adaptation == "none"
    beta_is_open = voting is None or (fixed and "beta" not in fixed)
    voting = voting or Voting()
    if unprojected and beta_is_open:
        voting = replace(voting, beta=_RAW_BETA)
    if len(vectors) < _LEAST_FITTED:
        return Choice(None, None, {}, voting, None, None)
    tuning = tuning and len(vectors) >= LEAST_IMAGES
    projection: Projection | None = None
    penalty: float | None = None
    penalties: dict[str, float] = {}
    lists: NeighborLists | None = None
    if adaptation == "none" and tuning:
        lists = leave_one_group_out(FlatIndex(vectors), vectors, numbers)
    elif adaptation != "none":
        folds = group_folds(numbers) if tuning else None
        fitter = Fitter(vectors, labels, blocks, folds)
        penalty = _DEFAULT_PENALTY if adaptation == "auto" else None
        if folds is not None:
            compared: dict[float | None, NeighborLists] = {}
            for candidate in (None, *PENALTIES) if adaptation == "auto" else (None,):
                found = cross_fitted(fitter, vectors, numbers, folds, candidate)
                if len(found.queries) < LEAST_IMAGES:
                    break
                compared[candidate] = found
                penalties[_name(candidate)] = quick_f1(found, labels)
            if compared:
                penalty = max(compared, key=lambda candidate: penalties[_name(candidate)])
                lists = compared[penalty]
        projection = fitter.projection(penalty)
    if lists is None or len(lists.queries) < LEAST_IMAGES:
        return Choice(projection, penalty, penalties, voting, None, None)
    tuned = choose_voting(lists, labels, start=voting, fixed=fixed)
    return Choice(projection, penalty, penalties, tuned.voting, lists, tuned)


def _name(penalty: float | None) -> str:
    return "none" if penalty is None else f"{penalty:g}"
