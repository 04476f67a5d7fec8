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
_LEAST_FITTED = 20  # images; too few to standardise otherwise
_RAW_BETA = 64.0  # for vectors that are not projected (docs/accuracy.md)


@dataclass(frozen=True)
class FittedModel:
    """The fitted projection and tuned voting parameters.

    Attributes:
        projection: Projection from the encoder's space to the index's; None for the identity.
        penalty: Penalty of the ridge regression; None without supervised components.
        f1_by_penalty: F1 of the compared penalties; "none" for no regression.
        voting: Tuned voting parameters, or the defaults for these vectors.
        lists: Out-of-sample neighbour lists; None with too few images.
        tuned: Result of tuning on the lists; None without tuning.
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

    No validation split is needed: images are annotated by images of other groups, with projections
    fitted without their concepts (cross-fitting).

    Args:
        vectors: float32[n, dim] of unit norm, from the encoder; may be memory-mapped.
        concepts: CUIs of each row.
        groups: Patient, study or figure of each row; each row with "" is a group of its own.
        blocks: See `Fitter`.
        adaptation: "auto" fits a projection, with supervised components if they help; "looks" fits
            unsupervised components only; "none" keeps the vectors. Always "none" with fewer than 20
            rows.
        tuning: Tune the voting parameters.
        voting: Starting point; None for the defaults for these vectors.
        fixed: Fields of `voting` set by the caller, which are not tuned. Without tuning, an empty
            `fixed` means that all fields of a given `voting` are.
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
