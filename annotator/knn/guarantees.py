"""Guarantees: sets of concepts that miss, or invent, no more than a wanted share on average.

Conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster 2022, "Conformal risk control",
theorem 1). The sets of an image are nested: C(t) has the concepts with a share of the vote of at
least t, at most 100, the best ones. On the neighbour lists of an index, whose concepts are known,
each patient has a loss L(t), the mean of the losses of its images:

- "missed": the share of an image's true concepts that are not in C(t); 0 without any;
- "invented": the share of the concepts of C(t) that are not true, 0 for an empty set. That is not
  monotone in t, so it is the supremum over all thresholds of at least t, which bounds it.

Both are monotone in t and at most 1. Let R(t) be the mean loss of n patients. At the threshold with
the fewest (missed) or most (invented) concepts for which

    (n R(t) + 1) / (n + 1) <= rate

the expected loss of another patient is at most the rate, if the n + 1 patients are exchangeable.
What that takes, and where it fails, is in docs/guarantees.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from annotator.errors import AnnotatorError
from annotator.evaluation.official_f1 import image_score
from annotator.knn.calibration import Calibration, calibrate
from annotator.knn.cross_validation import (
    LEAST_IMAGES,
    MOST_NEIGHBORS,
    NeighborLists,
    stored_lists,
)
from annotator.knn.decision import Decision, choose_concepts
from annotator.knn.incomplete import voters
from annotator.knn.posterior import Posterior, weigh
from annotator.knn.voting import Voting
from index import LabelTable, StoredIndex
from index.protocols import Index

Kind = Literal["missed", "invented"]
RATES = (0.05, 0.1, 0.2)  # of which `annotator tune` tells the cost

_LEAST_SHARE = 1e-9  # of the vote, that is no rounding error
_SLACK = 1e-12  # rounding error of a risk
_DECIMALS = 12  # of shares; smaller differences are ties


@dataclass(frozen=True)
class Guarantee:
    """What is asked for.

    Attributes:
        kind: "missed" bounds the share of an image's true concepts that are not chosen, "invented"
            that of the chosen concepts that are not true.
        rate: Its bound on average, above 0 and below 1.

    Raises:
        ValueError: It is not such a guarantee.
    """

    kind: Kind
    rate: float

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or not 0 < self.rate < 1:
            raise ValueError(
                f"{self} is no guarantee: it is missed=RATE or invented=RATE, "
                "with a rate above 0 and below 1, such as missed=0.1"
            )

    def __str__(self) -> str:
        return f"{self.kind}={self.rate:g}"

    @classmethod
    def parse(cls, text: str) -> Guarantee:
        """Parse "missed=0.1".

        Raises:
            ValueError: It is not a guarantee.
        """
        kind, _, rate = text.partition("=")
        try:
            number = float(rate)
        except ValueError:
            number = math.nan
        if math.isnan(number):
            raise ValueError(f"{text!r} is no guarantee, such as missed=0.1 or invented=0.1")
        return cls(kind.strip(), number)  # type: ignore[arg-type]  # checked there


@dataclass(frozen=True)
class Guaranteed:
    """A guarantee, and the vote that keeps it.

    Attributes:
        guarantee: What was asked for.
        voting: The vote: its threshold makes the sets.
        images: Number of images that it was calibrated on.
        groups: Number of their groups (patients).
        by: What they have in common, such as their source; "" for all images of the index.
    """

    guarantee: Guarantee
    voting: Voting
    images: int
    groups: int
    by: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for the row of an image."""
        return {
            self.guarantee.kind: self.guarantee.rate,
            **({"by": self.by} if self.by else {}),
            "threshold": self.voting.threshold,
            "groups": self.groups,
        }


@dataclass(frozen=True)
class Ranked:
    """Candidates of the images of neighbour lists, and which of them are true.

    Attributes:
        scores: float64[q, m], share of the vote of each candidate, best first, at most 100;
            padded with 0.
        right: bool[q, m], whether it is a true concept.
        true: int64[q], number of true concepts.
        groups: int64[q], group of each image.
    """

    scores: NDArray[np.float64]
    right: NDArray[np.bool_]
    true: NDArray[np.int64]
    groups: NDArray[np.int64]

    @classmethod
    def of(cls, posterior: Posterior, lists: NeighborLists, voting: Voting) -> Ranked:
        """Rank the candidates of a posterior of the lists, whatever the decider of the vote."""
        decisions = choose_concepts(posterior, _at(voting, _LEAST_SHARE))
        m = max((len(decision.cuis) for decision in decisions), default=0)
        scores, right = np.zeros((len(decisions), m)), np.zeros((len(decisions), m), bool)
        for i, (row, decision) in enumerate(zip(lists.queries.tolist(), decisions, strict=True)):
            truth = set(posterior.labels.row(row))
            scores[i, : len(decision.cuis)] = np.round(decision.scores, _DECIMALS)
            right[i, : len(decision.cuis)] = [cui in truth for cui in decision.cuis]
        return cls(scores, right, posterior.labels.sizes[lists.queries], lists.group_of_each)

    @property
    def weights(self) -> NDArray[np.float64]:
        """As `group_weights`, float64[q]."""
        return group_weights(self.groups)


@dataclass(frozen=True)
class RiskCurve:
    """Mean loss over groups at each threshold where it can change.

    Attributes:
        kind: Of the loss; "invented" is the monotone one.
        thresholds: float64[m], ascending, m at least 1.
        risks: float64[m], ascending if missed, descending if invented.
        groups: Number of groups.
    """

    kind: Kind
    thresholds: NDArray[np.float64]
    risks: NDArray[np.float64]
    groups: int

    @classmethod
    def of(cls, kind: Kind, ranked: Ranked) -> RiskCurve:
        """The curve of at least one image."""
        scores, weights = ranked.scores, ranked.weights[:, None]
        if kind == "missed":
            # Above the share of a true concept, the concept is lost.
            jumps = ranked.right * weights / np.maximum(ranked.true, 1)[:, None]
        else:
            # At the share where a set reaches a new maximum of its false part, the loss does.
            size = np.arange(1, scores.shape[1] + 1)
            false = np.cumsum(~ranked.right, axis=1) / size
            ends = scores > np.hstack([scores[:, 1:], np.zeros((len(scores), 1))])
            highest = np.maximum.accumulate(np.where(ends, false, 0.0), axis=1)
            jumps = weights * np.diff(highest, axis=1, prepend=0.0)
        voted = scores > 0
        # Nobody has more than all votes; and there may be no candidates at all.
        thresholds, place = np.unique(np.append(scores[voted], 1.0), return_inverse=True)
        sums = np.bincount(place, np.append(jumps[voted], 0.0)).astype(np.float64, copy=False)
        above = np.cumsum(sums[::-1])[::-1]
        all_missed = float(ranked.weights[ranked.true > 0].sum())
        risks = all_missed - above if kind == "missed" else above
        return cls(kind, thresholds, risks, len(np.unique(ranked.groups)))

    @property
    def bounds(self) -> NDArray[np.float64]:
        """Bound on the expected loss of another group at each threshold, float64[m]."""
        return risk_bounds(self.risks, self.groups)

    @property
    def least(self) -> float:
        """The lowest rate that can be guaranteed."""
        return float(self.bounds.min())

    def threshold(self, rate: float) -> float | None:
        """The threshold that keeps a rate: with the fewest concepts if missed, with the most if
        invented. None if none does.
        """
        kept = self.thresholds[self.bounds <= rate + _SLACK]
        if not len(kept):
            return None
        return float(kept[-1] if self.kind == "missed" else kept[0])


def group_weights(groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weight of each image in a mean over groups of the mean of their images, float64[q]."""
    _, number, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return 1.0 / counts[number] / max(len(counts), 1)


def risk_bounds(risks: NDArray[np.float64], groups: int) -> NDArray[np.float64]:
    """Bounds on the expected loss of another group, float64 in the shape of `risks`.

    Args:
        risks: Mean losses over groups, 0..1.
        groups: Their number.
    """
    return (groups * risks + 1.0) / (groups + 1.0)


def keep_guarantee(
    guarantee: Guarantee, lists: NeighborLists, labels: LabelTable, voting: Voting, by: str = ""
) -> Guaranteed:
    """Find the vote that keeps a guarantee.

    Args:
        guarantee: What is asked for.
        lists: Neighbour lists of at least one image: no image is annotated by its own group.
        labels: Concepts of the index rows.
        voting: How neighbours are weighted; its decider and `min_score` give way to the threshold.
        by: What the images of the lists have in common; "" for all images of the index.

    Raises:
        AnnotatorError: No threshold keeps it.
    """
    ranked = Ranked.of(posterior_of_others(lists, labels, voting), lists, voting)
    curve = RiskCurve.of(guarantee.kind, ranked)
    threshold = curve.threshold(guarantee.rate)
    if threshold is None:
        raise _out_of_reach(guarantee, curve, by)
    return Guaranteed(guarantee, _at(voting, threshold), len(ranked.true), curve.groups, by)


class Promises:
    """Keeps a guarantee for the images of an index, or for each part of them.

    Args:
        guarantee: What is asked for.
        stored: Open index.
        labels: Labels of its rows, as given, or some of their concepts.
        voting: As for `keep_guarantee`.
        by: What each image is counted with, such as its source, by id: of the images of the index
            and of new ones. None for all images together.

    Raises:
        AnnotatorError: The index has no neighbour lists, or more neighbours vote than these have;
            or it lies on a server, which does not list its images, and `by` is given.
    """

    def __init__(
        self,
        guarantee: Guarantee,
        stored: Index,
        labels: LabelTable,
        voting: Voting,
        by: Mapping[str, str] | None = None,
    ) -> None:
        lists = stored_lists(stored)
        if lists is None:
            raise AnnotatorError(
                f"{guarantee} cannot be guaranteed: the index has no neighbour lists, on which "
                "guarantees are calibrated.",
                f"It was built with --no-tune or from fewer than {LEAST_IMAGES} images: build it "
                "again.",
            )
        if voting.k > MOST_NEIGHBORS:
            raise AnnotatorError(
                f"{guarantee} cannot be guaranteed with {voting.k} voting neighbours: the index "
                f"keeps {MOST_NEIGHBORS} of each image, on which guarantees are calibrated.",
                f"Give --k {MOST_NEIGHBORS} or less.",
            )
        lists, labels = voters(lists, labels, stored, voting)
        self._guarantee, self._labels, self._voting, self._by = guarantee, labels, voting, by
        self._lists = {"": lists} if by is None else _parts(lists, stored, by)
        self._kept: dict[str, tuple[Guaranteed, Calibration | None]] = {}

    def of(self, image_id: str) -> Guaranteed:
        """How the guarantee is kept for an image.

        Raises:
            AnnotatorError: It cannot be, for images like this one.
        """
        return self._of(image_id)[0]

    def calibration_for(self, image_id: str) -> Calibration | None:
        """What the numbers of that vote are worth; None with too few images."""
        return self._of(image_id)[1]

    def _of(self, image_id: str) -> tuple[Guaranteed, Calibration | None]:
        name = "" if self._by is None else self._by.get(image_id, "")
        if name not in self._kept:
            lists = self._lists.get(name)
            if lists is None:
                what = f"belongs to {name}, of which the index has none" if name else "has no group"
                raise AnnotatorError(
                    f"{self._guarantee} cannot be guaranteed for {image_id}: it {what}.",
                    "Guarantees hold for images like those of the index. Give its group in the "
                    "table, or leave it out.",
                )
            kept = keep_guarantee(self._guarantee, lists, self._labels, self._voting, name)
            self._kept[name] = kept, calibrate(lists, self._labels, kept.voting)
        return self._kept[name]


def ids_of(stored: Index) -> Sequence[str]:
    """Ids of the images of an index, for guarantees by group.

    Raises:
        AnnotatorError: It lies on a server.
    """
    if not isinstance(stored, StoredIndex):
        raise AnnotatorError(
            "An index on a server does not list its images, so nobody knows which belong where.",
            "Guarantees by group are given by an index in a folder.",
        )
    return stored.ids


def _parts(lists: NeighborLists, stored: Index, by: Mapping[str, str]) -> dict[str, NeighborLists]:
    """The lists of the images that are counted together, by name."""
    ids = ids_of(stored)
    names = np.array([by.get(ids[row], "") for row in lists.queries.tolist()])
    found = np.unique(names[names != ""]).tolist()
    return {name: lists.take(np.flatnonzero(names == name)) for name in found}


def choose_by_image(posterior: Posterior, votings: Sequence[Voting]) -> list[Decision]:
    """Choose the concepts of each image by a vote of its own.

    Args:
        posterior: Posterior of q images, of which the votes differ in what follows alone.
        votings: q votes.
    """
    decisions: dict[int, Decision] = {}
    for voting in dict.fromkeys(votings):
        own = [i for i, other in enumerate(votings) if other == voting]
        part = replace(posterior, rows=posterior.rows[own], weights=posterior.weights[own])
        decisions.update(zip(own, choose_concepts(part, voting), strict=True))
    return [decisions[i] for i in range(len(votings))]


@dataclass(frozen=True)
class Cost:
    """What sets of concepts are like on the images of neighbour lists.

    Attributes:
        guarantee: Of the sets, as text; "" for those of the vote itself.
        least: The lowest rate of its kind that can be guaranteed; 0 without a guarantee.
        threshold: Share of the vote that keeps it; None without a guarantee, or if none keeps it.
        concepts: Mean number of concepts of an image; None if the guarantee cannot be given, as the
            rest.
        f1: Mean F1 of an image.
        missed: Mean share of missed concepts: over groups, of the mean of their images.
        invented: Mean share of invented concepts, likewise.
    """

    guarantee: str
    least: float = 0.0
    threshold: float | None = None
    concepts: float | None = None
    f1: float | None = None
    missed: float | None = None
    invented: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for the manifest of the index."""
        return asdict(self)


def costs(lists: NeighborLists, labels: LabelTable, voting: Voting) -> list[Cost]:
    """What the vote itself gives, and what the sets of some guarantees do; nothing if more
    neighbours vote than the lists have.

    Args:
        lists: Neighbour lists of at least one image.
        labels: Concepts of the index rows.
        voting: Voting parameters.
    """
    if voting.k > MOST_NEIGHBORS:
        return []
    posterior = posterior_of_others(lists, labels, voting)
    truth = [set(labels.row(row)) for row in lists.queries.tolist()]
    ranked = Ranked.of(posterior, lists, voting)

    def measured(cost: Cost, voting: Voting) -> Cost:
        sets = [decision.cuis for decision in choose_concepts(posterior, voting)]
        pairs = list(zip(truth, sets, strict=True))
        missed = [len(true.difference(chosen)) / max(len(true), 1) for true, chosen in pairs]
        invented = [len(set(chosen) - true) / max(len(chosen), 1) for true, chosen in pairs]
        return replace(
            cost,
            concepts=round(float(np.mean([len(chosen) for chosen in sets])), 6),
            f1=round(float(np.mean([image_score(true, chosen) for true, chosen in pairs])), 6),
            missed=round(float(ranked.weights @ missed), 6),
            invented=round(float(ranked.weights @ invented), 6),
        )

    found = [measured(Cost(""), voting)]
    for kind in get_args(Kind):
        curve = RiskCurve.of(kind, ranked)
        for rate in RATES:
            threshold = curve.threshold(rate)
            cost = Cost(str(Guarantee(kind, rate)), round(curve.least, 6), threshold)
            found.append(cost if threshold is None else measured(cost, _at(voting, threshold)))
    return found


def _at(voting: Voting, threshold: float) -> Voting:
    """The vote with the sets of a threshold."""
    return replace(voting, decider="threshold", threshold=threshold, min_score=0.0)


def posterior_of_others(lists: NeighborLists, labels: LabelTable, voting: Voting) -> Posterior:
    """The posterior of the lists, of which the prior, too, has no rows of the image's own group:
    a new patient is not in the sample that makes up the prior.

    Args:
        lists: Neighbour lists.
        labels: Concepts of the index rows.
        voting: Voting parameters.
    """
    posterior = weigh(lists.found, labels, voting)
    group_of = np.full(len(labels), -1)
    group_of[lists.queries] = lists.group_of_each
    weights = np.where(
        group_of[posterior.rows] == lists.group_of_each[:, None], 0.0, posterior.weights
    )
    total = weights.sum(axis=1, keepdims=True)
    return replace(posterior, weights=weights / np.where(total > 0, total, 1.0))


def _out_of_reach(guarantee: Guarantee, curve: RiskCurve, by: str) -> AnnotatorError:
    least = _up(curve.least)
    what = f"{guarantee} cannot be guaranteed{f' for {by}' if by else ''}: {least} is the least"
    ask = f"Ask for {guarantee.kind}={least} or more"
    if 1 / (curve.groups + 1) > guarantee.rate:
        enough = math.ceil(1 / guarantee.rate) - 1
        return AnnotatorError(
            f"{what}, with images of {curve.groups:,} groups (patients) to calibrate on.",
            f"It takes {enough:,} groups or more.{f' {ask}.' if curve.least < 1 else ''}",
        )
    if guarantee.kind == "missed":
        return AnnotatorError(
            f"{what}. {curve.risks[0]:.1%} of an image's concepts have no vote, so that even the "
            "largest sets miss them.",
            f"{ask}, let more neighbours vote (--k), or add cases of rare concepts.",
        )
    return AnnotatorError(
        f"{what}. Even of the sets of concepts that all neighbours have, {curve.risks[-1]:.1%} is "
        "wrong.",
        f"{ask}; `annotator audit` finds doubtful labels.",
    )


def _up(rate: float) -> str:
    """A rate, rounded up to three decimals."""
    return f"{math.ceil(rate * 1000 - 1e-9) / 1000:g}"
