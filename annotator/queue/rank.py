"""The queue: which images to review next so that F1 rises most.

Of new images, those are worth most of which the vote is least sure (1 - expected F1), and that
many other unsure ones are like: `spread.choose_spread` weighs both, and asks of near-copies only
once. Of the images of an index, those whose labels their neighbours contradict. docs/queue.md has
what was measured.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from annotator.audit.inputs import AuditLabels
from annotator.audit.labels import LabelIssue, describe_issue, find_label_issues
from annotator.errors import AnnotatorError
from annotator.knn.cross_validation import NeighborLists, stored_lists
from annotator.knn.incomplete import voters
from annotator.knn.neighbors import nearest_others
from annotator.knn.voting import Voting
from annotator.queue.spread import Likeness, choose_spread
from index import Neighbors, StoredIndex
from index.protocols import Index
from index.sampling import sample_rows

if TYPE_CHECKING:
    from annotator.encoders.local_runner import Embedded
    from annotator.pipeline import Annotator

Order = Literal["gain", "doubt"]
ORDERS: tuple[Order, ...] = get_args(Order)

LEAST_DOUBT = 0.05  # expected F1 to be gained of an image whose labels are worth a look
_SHARPNESS = 12.0  # of likeness: 0.55 at a similarity of 0.95, 0.30 at 0.9
_CLOSE = 0.5  # likeness from which an image is said to stand for another
_ANNOTATED_AT_ONCE = 256


@dataclass(frozen=True)
class QueueItem:
    """An image to review.

    Attributes:
        image_id: The image.
        gain: What its review is expected to gain: the doubt of the images that it stands for, as
            far as those before do not, squared.
        doubt: F1 that is expected to be gained of the image itself, 0..1.
        reason: Why, in words.
        concepts: Its concepts by the vote, with their share of it; best first.
    """

    image_id: str
    gain: float
    doubt: float
    reason: str
    concepts: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Queue:
    """Images to review, the first one first.

    Attributes:
        items: Those within the budget.
        total: Number of images that are worth a look.
        judged: Number of images that were looked at.
    """

    items: tuple[QueueItem, ...]
    total: int
    judged: int


@dataclass(frozen=True)
class Judgement:
    """What the neighbours of the images of an index say of their labels.

    Attributes:
        issues: What is doubtful, by row; from `LEAST_DOUBT` on.
        rows: int64[m], the rows that were judged.
    """

    issues: tuple[LabelIssue, ...]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, stored: StoredIndex, voting: Voting, *, most: int | None = None) -> Judgement:
        """Judge images with neighbour lists by these, which have not seen their labels.

        Others are judged by a search.

        Args:
            stored: Open index.
            voting: Voting parameters.
            most: As for `rank_indexed`.

        Raises:
            IndexProblem: A file was written over.
        """
        concepts = [stored.labels.row(row) for row in range(len(stored))]
        lists = stored_lists(stored)
        listed = np.zeros(len(stored), bool)
        issues: list[LabelIssue] = []
        if lists is not None and len(lists.queries):
            listed[lists.queries] = True
            by_lists, known = voters(lists, stored.labels, stored, voting)
            issues += find_label_issues(by_lists, known, concepts, voting, min_score=LEAST_DOUBT)
        others = np.flatnonzero(~listed)
        if most is not None:
            others = others[sample_rows(len(others), most)]
        if len(others):
            found = _searched(stored, others, voting.k)
            issues += find_label_issues(
                found, stored.labels, concepts, voting, min_score=LEAST_DOUBT
            )
        listed[others] = True
        return cls(tuple(sorted(issues, key=lambda issue: issue.row)), np.flatnonzero(listed))

    def doubts(self, n: int) -> NDArray[np.float64]:
        """F1 that is expected to be gained of each of the n images, float64[n].

        0 below `LEAST_DOUBT`, nan for images that were not judged.
        """
        doubts = np.full(n, np.nan)
        doubts[self.rows] = 0.0
        for issue in self.issues:
            doubts[issue.row] = issue.score
        return doubts


@dataclass(frozen=True)
class NewImages:
    """New images as an index sees them.

    Attributes:
        ids: Image id of each.
        vectors: float32[n, dim] of unit norm, in the space of the index.
        expected_f1: float64[n], of the concepts by the vote; calibrated where the index is.
        concepts: These, with their share of the vote; best first.
        unfamiliar: bool[n], whether an image resembles nothing in the index.
        in_index: Ids of images that are left out, since the index has the very same ones.
    """

    ids: Sequence[str]
    vectors: NDArray[np.float32]
    expected_f1: NDArray[np.float64]
    concepts: Sequence[tuple[tuple[str, float], ...]]
    unfamiliar: NDArray[np.bool_]
    in_index: Sequence[str] = ()

    @classmethod
    def of(cls, annotator: Annotator, embedded: Iterable[Embedded]) -> NewImages:
        """Annotate images; what is kept of each is its vector in the index and its concepts.

        Args:
            annotator: Over the index.
            embedded: The images, from a runner. Those that cannot be used are left out.
        """
        ids: list[str] = []
        vectors: list[NDArray[np.float32]] = []
        expected: list[float] = []
        concepts: list[tuple[tuple[str, float], ...]] = []
        unfamiliar: list[bool] = []
        in_index: list[str] = []
        usable = (one for one in embedded if one.vector is not None)
        while block := list(islice(usable, _ANNOTATED_AT_ONCE)):
            own = [one.ref.id for one in block]
            stacked = np.stack([one.vector for one in block if one.vector is not None])
            found = annotator.search(stacked)
            annotations = annotator.decide(own, found, with_neighbors=False, min_familiarity=0.0)
            kept = [i for i, one in enumerate(annotations) if one.same_image is None]
            in_index += [one.image_id for one in annotations if one.same_image is not None]
            vectors.append(annotator.project(stacked[kept]) if kept else stacked[:0])
            for one in (annotations[i] for i in kept):
                ids.append(one.image_id)
                expected.append(one.expected_f1)
                concepts.append(tuple(zip(one.cuis, map(float, one.scores), strict=True)))
                unfamiliar.append(one.is_unfamiliar)
        filled = [part for part in vectors if len(part)]
        return cls(
            ids,
            np.concatenate(filled) if filled else np.zeros((0, 1), np.float32),
            np.array(expected),
            concepts,
            np.array(unfamiliar, bool),
            in_index,
        )


def rank_new(images: NewImages, budget: int, *, order: Order = "gain") -> Queue:
    """Queue new images by what the index gains from their labels.

    Args:
        images: The images.
        budget: Number of images to choose.
        order: "gain" asks for those that stand for most of what is unsure; "doubt" for the least
            sure ones, whatever they are like, in the order of `annotator.queue.curve`.
    """
    doubts = 1.0 - images.expected_f1
    if order == "doubt":
        chosen = np.argsort(-doubts, kind="stable")[:budget]
        gains = doubts[chosen] ** 2
        like = np.zeros(len(doubts), np.int64)
    else:
        likeness = Likeness.of(images.vectors, _SHARPNESS)
        chosen, gains = choose_spread(doubts**2, likeness, budget)
        like = likeness.close_ones(_CLOSE)
    items = [
        QueueItem(
            images.ids[i],
            gain,
            float(doubts[i]),
            _why(float(images.expected_f1[i]), bool(images.unfamiliar[i]), int(like[i])),
            images.concepts[i],
        )
        for i, gain in zip(chosen.tolist(), gains.tolist(), strict=True)
    ]
    return Queue(tuple(items), len(doubts), len(doubts))


def rank_indexed(
    stored: Index,
    voting: Voting,
    budget: int,
    *,
    reviewed: Collection[str] = (),
    most: int | None = None,
) -> Queue:
    """Queue images of an index whose labels may be wrong, by what their neighbours say of them.

    Args:
        stored: Open index in a folder.
        voting: Voting parameters.
        budget: Number of images to choose.
        reviewed: Ids of images that are not asked about again.
        most: Number of images that are judged, about, of those that the index has no neighbour
            lists of: an even sample; None for all.

    Raises:
        AnnotatorError: The index is on a server, which does not list its images.
        IndexProblem: A file was written over.
    """
    if not isinstance(stored, StoredIndex):
        raise AnnotatorError(
            "An index on a server does not list its images, so nobody knows which to review.",
            "Queue new images by it (annotator queue IMAGES), or give an index in a folder.",
        )
    return rank_judged(stored, Judgement.of(stored, voting, most=most), budget, reviewed=reviewed)


def rank_judged(
    stored: StoredIndex, judgement: Judgement, budget: int, *, reviewed: Collection[str] = ()
) -> Queue:
    """`rank_indexed` of an index whose labels were judged.

    Args:
        stored: The index that was judged.
        judgement: Of its labels.
        budget: Number of images to choose.
        reviewed: Ids of images that are not asked about again.

    Raises:
        IndexProblem: A file was written over.
    """
    left_out = {row for id_ in reviewed if (row := stored.row_of.get(id_)) is not None}
    issues = [issue for issue in judgement.issues if issue.row not in left_out]
    doubts = np.array([issue.score for issue in issues], np.float64)
    likeness = Likeness.of(stored.vectors(np.array([i.row for i in issues], np.int64)), _SHARPNESS)
    # An image is stood for by its own doubt alone: nobody's labels are put right by another's.
    order, gains = choose_spread(doubts, likeness, budget, weights=doubts)
    named = AuditLabels(names=stored.names).named
    items = [
        QueueItem(
            stored.ids[issues[i].row],
            gain,
            issues[i].score,
            describe_issue(issues[i], named),
            issues[i].best,
        )
        for i, gain in zip(order.tolist(), gains.tolist(), strict=True)
    ]
    return Queue(tuple(items), len(issues), len(judgement.rows))


def _why(expected_f1: float, unfamiliar: bool, like: int) -> str:
    parts = [f"expected F1 {expected_f1:.2f}"]
    if unfamiliar:
        parts.append("unlike the images of the index")
    if like:
        parts.append(f"stands for {like} more")
    return "; ".join(parts)


def _searched(stored: StoredIndex, rows: NDArray[np.int64], k: int) -> NeighborLists:
    """Neighbours of rows in their index, of other groups."""
    ids = [stored.ids[row] for row in rows.tolist()]
    column: Sequence[str] | None = stored.columns.get("groups")
    groups = [""] * len(ids) if column is None else [column[row] for row in rows.tolist()]
    parts = [
        found.neighbors
        for found in nearest_others(stored.find, stored.vectors(rows), ids, groups, k)
    ]
    width = min(part.rows.shape[1] for part in parts)
    found = Neighbors(
        np.concatenate([part.rows[:, :width] for part in parts]),
        np.concatenate([part.similarities[:, :width] for part in parts]),
    )
    kept = np.flatnonzero(np.isfinite(found.similarities[:, :1]).any(axis=1))
    return NeighborLists(rows, found).take(kept)
