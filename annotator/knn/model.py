"""Fit the nearest-neighbour model of a collection: a projection and voting parameters."""

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
from index import LabelTable

Adaptation = Literal["auto", "looks", "none"]

PENALTIES = (0.3, 1.0, 3.0, 10.0)
_DEFAULT_PENALTY = 1.0
_LEAST_FITTED = 20  # images; with fewer there is nothing to standardise by
_RAW_BETA = 64.0  # for vectors that are not projected (docs/accuracy.md)


@dataclass(frozen=True)
class FittedModel:
    """The fitted projection and tuned voting parameters.

    Attributes:
        projection: From the encoder's vectors to the index's; None where they are the same.
        penalty: Of its regression; None where there is none.
        f1_by_penalty: As far as penalties were compared; "none" for no regression.
        voting: As tuned, or what suits the vectors if nothing was.
        lists: Out-of-sample neighbour lists; None with too few images.
        tuned: The result of tuning on them; None if there was none.
    """

    projection: Projection | None
    penalty: float | None
    f1_by_penalty: Mapping[str, float]
    voting: Voting
    lists: NeighborLists | None
    tuned: Tuned | None


def fit_model(
    vectors: NDArray[np.float32],
    concepts: Sequence[Sequence[str]],
    groups: Sequence[str],
    *,
    blocks: Sequence[int],
    adaptation: Adaptation = "auto",
    tuning: bool = True,
    voting: Voting | None = None,
    fixed: Sequence[str] = (),
) -> FittedModel:
    """Fit a projection to a collection and tune the voting parameters.

    No validation split is needed: images are annotated by those of other groups, through
    projections that have not seen their concepts. A missing group never merges rows.

    Args:
        vectors: float32[n, dim] of unit norm, as the encoder made them; may be mapped from disk.
        concepts: CUIs of each row.
        groups: Patient, study or figure of each row; an empty one is a group of its own.
        blocks: As for `Fitter`.
        adaptation: "auto" fits a projection, with supervised components if they help; "looks" one
            of unsupervised components alone; "none" leaves the vectors as they are. With fewer than
            20 rows always "none".
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
        return FittedModel(None, None, {}, voting, None, None)
    tuning = tuning and len(vectors) >= LEAST_IMAGES
    projection: Projection | None = None
    penalty: float | None = None
    f1_by_penalty: dict[str, float] = {}
    lists: NeighborLists | None = None
    if adaptation == "none" and tuning:
        lists = leave_one_group_out(vectors, numbers)
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
                f1_by_penalty[_name(candidate)] = quick_f1(found, labels)
            if compared:
                penalty = max(compared, key=lambda candidate: f1_by_penalty[_name(candidate)])
                lists = compared[penalty]
        projection = fitter.projection(penalty)
    if lists is None or len(lists.queries) < LEAST_IMAGES:
        return FittedModel(projection, penalty, f1_by_penalty, voting, None, None)
    tuned = choose_voting(lists, labels, start=voting, fixed=fixed)
    return FittedModel(projection, penalty, f1_by_penalty, tuned.voting, lists, tuned)


def _name(penalty: float | None) -> str:
    return "none" if penalty is None else f"{penalty:g}"
