"""Fit the nearest-neighbour model of a collection: a projection and voting parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.fitted import NEW, Fitted, common_folds
from annotator.evaluation.measures import group_numbers
from annotator.knn.cross_validation import (
    LEAST_IMAGES,
    NeighborLists,
    cross_fitted,
    group_folds,
    leave_one_group_out,
    projected_rows,
)
from annotator.knn.fit import Fitter, OwnRows, fit_unsupervised
from annotator.knn.grid_search import (
    GRID_IMAGES,
    Tuned,
    choose_voting,
    quick_scores,
    sample_lists,
    simplest,
)
from annotator.knn.head import with_evidence
from annotator.knn.incomplete import infer_labels, with_filled_in
from annotator.knn.joint_projection import JointProjection
from annotator.knn.projection import Projection
from annotator.knn.voting import Voting
from index import LabelTable, Neighbors

Adaptation = Literal["auto", "looks", "none"]

_DEFAULT_PENALTY = 1.0
PENALTIES = (_DEFAULT_PENALTY, None, 0.3, 3.0, 10.0)  # None: no regression
SHARES = (0.0, 0.15, 0.3, 0.5, 0.7)  # of a fitted encoder's branches in the similarity
_DEFAULT_SHARE = 0.15
_FOLDS_AT_ONCE = 2  # bounds the memory of the folds' indexes
_BRANCH_COMPONENTS = 128  # of each branch
_LEAST_FITTED = 20  # images; too few to standardise otherwise
_RAW_BETA = 64.0  # for vectors that are not projected (docs/accuracy.md)


@dataclass(frozen=True)
class FittedModel:
    """The fitted projection and tuned voting parameters.

    Attributes:
        projection: Projection from the encoder's space to the index's; None for the identity.
        penalty: Penalty of the ridge regression; None without supervised components.
        f1_by_penalty: F1 of the compared penalties; "none" for no regression.
        share: Share of a fitted encoder's branches in the similarity; None for other encoders.
        f1_by_share: F1 of the compared shares.
        voting: Tuned voting parameters, or the defaults for these vectors.
        lists: Out-of-sample neighbour lists; None with too few images.
        tuned: Result of tuning on the lists; None without tuning.
        inferred: What is filled in for each row (`annotator.knn.incomplete`); None if labels are
            taken to be complete, or without tuning.
    """

    projection: Projection | JointProjection | None
    penalty: float | None
    f1_by_penalty: Mapping[str, float]
    voting: Voting
    lists: NeighborLists | None
    tuned: Tuned | None
    share: float | None = None
    f1_by_share: Mapping[str, float] = field(default_factory=dict)
    inferred: Sequence[str] | None = None


@dataclass(frozen=True)
class Branches:
    """The branches of a fitted encoder, and what they have seen of a collection.

    Attributes:
        fitted: Of the encoder.
        folds: int64[n], the branch that has seen nothing of each row's group; -1 if there is none.
    """

    fitted: Fitted
    folds: NDArray[np.int64]

    @classmethod
    def of(
        cls, fitted: Fitted, contents: NDArray[np.uint8], groups: Sequence[str], seed: int = 0
    ) -> Branches:
        """Find the branch of each row.

        The images of a group share a branch. Groups of which no branch has seen an image are
        distributed evenly; of which all have, or which the fit did not know as groups, get none.

        Args:
            fitted: Of the encoder.
            contents: uint8[n, 32], sha256 of each row's file.
            groups: As for `fit_model`.
            seed: Of the distribution.
        """
        numbers, own = group_numbers(groups), fitted.folds_of(contents).astype(np.int64)
        folds = group_folds(numbers, len(fitted.columns), seed)
        of_group = common_folds(numbers, own)[numbers]
        return cls(fitted, np.where(of_group != NEW, of_group, folds))


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
    branches: Branches | None = None,
    incomplete: NDArray[np.int64] | None = None,
    folder: Path | None = None,
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
        branches: Of a fitted encoder. Its images are annotated by the branch that has not seen
            them; without a projection it is not tuned, since all branches are in every similarity.
        incomplete: Assume that labels are incomplete, and fill them in: int64[n], the fold of each
            row, from `folds_of`. None to take them as they are. Not together with `branches`.
        folder: As for `Fitter`.

    Raises:
        OSError: The disk is full.
    """
    labels = LabelTable.from_sets(concepts)
    numbers = group_numbers(groups)
    projected = len(vectors) >= _LEAST_FITTED and adaptation != "none"
    voting = default_voting(voting, fixed, projected=projected)
    if len(vectors) < _LEAST_FITTED:
        return FittedModel(None, None, {}, voting, None, None)
    tuning = tuning and len(vectors) >= LEAST_IMAGES
    projection: Projection | JointProjection | None = None
    penalty: float | None = None
    share: float | None = None
    f1_by_penalty: dict[str, float] = {}
    f1_by_share: dict[str, float] = {}
    lists: NeighborLists | None = None
    head_weight: float | None = None
    if adaptation == "none":
        if tuning and branches is None:
            lists = leave_one_group_out(vectors, numbers)
    else:
        folds = None
        if tuning:
            folds = group_folds(numbers) if branches is None else branches.folds
        space = _Space(vectors, labels, blocks, folds, branches, folder)
        penalty = _DEFAULT_PENALTY if adaptation == "auto" else None
        share = None if branches is None else _DEFAULT_SHARE
        if folds is not None:
            penalties = PENALTIES if adaptation == "auto" else (None,)
            compared = space.compare(numbers, folds, [(one, SHARES[0]) for one in penalties])
            if compared:
                f1_by_penalty = {_name(one[0]): found.f1 for one, found in compared.items()}
                chosen = _simplest(compared, errors=0)
                penalty = chosen[0]
                if branches is not None:
                    rows, more = compared[chosen].rows, [(penalty, one) for one in SHARES[1:]]
                    of_share = space.compare(numbers, folds, more, rows)
                    compared = {chosen: compared[chosen], **of_share}
                    f1_by_share = {f"{one[1]:g}": found.f1 for one, found in compared.items()}
                    chosen = _simplest(compared, errors=1)
                    share = chosen[1]
                head_weight = compared[chosen].voting.head_weight
                lists = compared[chosen].lists
                if lists is None:
                    lists = space.lists(chosen, numbers, folds)
        projection = space.projection(penalty, share or 0.0)
    model = FittedModel(projection, penalty, f1_by_penalty, voting, None, None, share, f1_by_share)
    if lists is None or len(lists.queries) < LEAST_IMAGES:
        return model
    if incomplete is None:
        tuned = choose_voting(lists, labels, start=voting, fixed=fixed, head_weight=head_weight)
        return replace(model, voting=tuned.voting, lists=lists, tuned=tuned)
    in_index = partial(projected_rows, vectors, projection)
    inferred = infer_labels(in_index, labels, numbers, incomplete, filling(projected=projected))
    tuned = choose_voting(
        *with_filled_in(lists, labels, inferred, incomplete),
        start=replace(voting, assume_incomplete=True),
        fixed=fixed,
    )
    return replace(model, voting=tuned.voting, lists=lists, tuned=tuned, inferred=inferred)


def default_voting(voting: Voting | None, fixed: Sequence[str], *, projected: bool) -> Voting:
    """The defaults for projected or other vectors, with what the caller has set.

    Args:
        voting: As for `fit_model`.
        fixed: As for `fit_model`.
        projected: Whether the vectors are.
    """
    beta_is_open = voting is None or (fixed and "beta" not in fixed)
    voting = voting or Voting()
    return voting if projected or not beta_is_open else replace(voting, beta=_RAW_BETA)


def filling(*, projected: bool) -> Voting:
    """The vote that fills in labels: the default one, so that it is the same for later rows."""
    return default_voting(None, (), projected=projected)


_Setting = tuple[float | None, float]  # penalty; share of the branches, if there are any


@dataclass(frozen=True)
class _Compared:
    """A sample of the neighbour lists under one setting, with the voting that is best for it.

    Attributes:
        lists: All lists; None if only the sample was searched.
        rows: int64[n], the queries of the sample.
        voting: Of `quick_scores`.
        scores: F1 of the sample under it, float64[n].
        groups: Of the sample.
    """

    lists: NeighborLists | None
    rows: NDArray[np.int64]
    voting: Voting
    scores: NDArray[np.float64]
    groups: NDArray[np.int64] | None

    @property
    def f1(self) -> float:
        return round(float(self.scores.mean()), 6)


class _Space:
    """Fits projections of one collection, of a fitted encoder or of another."""

    def __init__(
        self,
        vectors: NDArray[np.float32],
        labels: LabelTable,
        blocks: Sequence[int],
        folds: NDArray[np.int64] | None,
        branches: Branches | None,
        folder: Path | None,
    ) -> None:
        self._vectors, self._labels, self._branches = vectors, labels, branches
        if branches is None:
            self._fitter = Fitter(vectors, labels, blocks, folds, folder)
            return
        # Rows that every branch has seen are in a fold of their own, which is never held out.
        last = len(branches.fitted.columns)
        held = None if folds is None else np.where(folds < 0, last, folds)
        own, general_blocks = branches.fitted.general(blocks)
        self._columns = [own]
        self._fitter = Fitter(vectors[:, _as_slice(own)], labels, general_blocks, held, folder)
        self._features = []
        for start, end in branches.fitted.columns:
            self._columns.append(np.arange(start, end))
            own_block = vectors[:, start:end]
            self._features.append(fit_unsupervised(own_block, [end - start], _BRANCH_COMPONENTS))

    def projection(
        self, penalty: float | None, share: float, without: int | None = None
    ) -> Projection | JointProjection:
        """Fit a projection.

        Args:
            penalty: As for `Fitter.projection`.
            share: Of the branches, if the encoder has any.
            without: Fold that is held out, and whose branch is the only one.
        """
        general = self._fitter.projection(penalty, without)
        if self._branches is None:
            return general
        number = len(self._features)
        used = [] if not share else list(range(number)) if without is None else [without]
        return JointProjection(
            self._vectors.shape[1],
            tuple(self._columns[i] for i in (0, *(branch + 1 for branch in used))),
            (general, *(self._features[branch] for branch in used)),
            (1 - share, *(share / len(used) for _ in used)),
        )

    def compare(
        self,
        groups: NDArray[np.int64],
        folds: NDArray[np.int64],
        settings: Sequence[_Setting],
        rows: NDArray[np.int64] | None = None,
    ) -> dict[_Setting, _Compared]:
        """Compare settings on the same images; none with too few images for tuning.

        Args:
            groups: As for `cross_fitted`.
            folds: As for `cross_fitted`.
            settings: To compare.
            rows: The queries of an earlier comparison. None to make all lists of the first setting,
                which is the default and often the best, and take a sample of them.
        """
        compared: dict[_Setting, _Compared] = {}
        for setting in settings:
            found = self.lists(setting, groups, folds, rows)
            if len(found.queries) < LEAST_IMAGES:
                break
            some = sample_lists(found)
            # Fewer than the most in a sample are all that there are.
            is_all = rows is None or len(rows) < GRID_IMAGES
            rows = some.queries
            scored = quick_scores(some, self._labels)
            compared[setting] = _Compared(found if is_all else None, rows, *scored, some.groups)
        return compared

    def lists(
        self,
        setting: _Setting,
        groups: NDArray[np.int64],
        folds: NDArray[np.int64],
        rows: NDArray[np.int64] | None = None,
    ) -> NeighborLists:
        """Neighbour lists of the queries `rows` by `cross_fitted`, of all by default."""
        return cross_fitted(
            partial(self._cross_fitted, *setting),
            self._vectors,
            groups,
            folds,
            queries=rows,
            evidence=None if self._branches is None else self._evidence,
            at_once=_FOLDS_AT_ONCE,
        )

    def _cross_fitted(
        self, penalty: float | None, share: float, without: int
    ) -> OwnRows | JointProjection | Projection:
        """As `projection`, for the rows of the collection."""
        if self._branches is None:
            return self._fitter.own_rows(penalty, without)
        return self.projection(penalty, share, without)

    def _evidence(self, found: Neighbors, rows: NDArray[np.int64], fold: int) -> Neighbors:
        assert self._branches is not None
        vectors = np.array(self._vectors[rows])
        return with_evidence(found, self._labels, self._branches.fitted, vectors, fold)


def _as_slice(columns: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """The columns as a slice if they adjoin: it copies nothing of a memory-mapped table."""
    start, end = int(columns[0]), int(columns[-1]) + 1
    return slice(start, end) if len(columns) == end - start else columns


def _simplest(compared: Mapping[_Setting, _Compared], errors: int) -> _Setting:
    """The setting that `simplest` chooses; they are sorted from simple to complex."""
    settings, found = list(compared), list(compared.values())
    return settings[simplest([one.scores for one in found], found[0].groups, errors)]


def _name(penalty: float | None) -> str:
    return "none" if penalty is None else f"{penalty:g}"
