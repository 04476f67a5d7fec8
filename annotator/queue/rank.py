"""The queue: which images to review next so that F1 rises most.

An image is worth reviewing by what its own review gains, and by the images that it stands for:
`spread.choose_spread` weighs both, and asks of near-copies only once. docs/queue.md has what was
measured.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

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
from index.rows import sample_rows

LEAST_DOUBT = 0.05  # expected F1 to be gained of an image whose labels are worth a look
_SHARPNESS = 12.0  # of likeness: 0.55 at a similarity of 0.95, 0.30 at 0.9


@dataclass(frozen=True)
class QueueItem:
    """An image to review.

    Attributes:
        image_id: The image.
        gain: F1 that its review is expected to gain, summed over the images that it stands for.
        doubt: F1 that is expected to be gained of the image itself, 0..1.
        reason: Why, in words.
    """

    image_id: str
    gain: float
    doubt: float
    reason: str


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
    issues, judged = _issues(stored, voting, most)
    left_out = {row for id_ in reviewed if (row := stored.row_of.get(id_)) is not None}
    issues = [issue for issue in issues if issue.row not in left_out]
    doubts = np.array([issue.score for issue in issues], np.float64)
    likeness = Likeness.of(stored.vectors(np.array([i.row for i in issues], np.int64)), _SHARPNESS)
    # An image is stood for by its own doubt alone: nobody's labels are put right by another's.
    order, gains = choose_spread(doubts, likeness, budget, weights=doubts)
    named = AuditLabels(names=stored.names).named
    items = [
        QueueItem(
            stored.ids[issues[i].row], gain, issues[i].score, describe_issue(issues[i], named)
        )
        for i, gain in zip(order.tolist(), gains.tolist(), strict=True)
    ]
    return Queue(tuple(items), len(issues), judged)


def _issues(stored: StoredIndex, voting: Voting, most: int | None) -> tuple[list[LabelIssue], int]:
    """What is doubtful about the labels of an index, by row; and how many images were judged.

    Images with neighbour lists are judged by these, which have not seen their labels; others by a
    search.
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
        issues += find_label_issues(found, stored.labels, concepts, voting, min_score=LEAST_DOUBT)
    return sorted(issues, key=lambda issue: issue.row), int(listed.sum()) + len(others)


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
