"""Hierarchical precision, recall and F1: partial credit for concepts that are related.

To both sides the ancestors of their concepts are added, without the roots of the hierarchy. With T
the extended truth and R the extended run of an image,

    hP = Σ |T ∩ R| / Σ |R|    hR = Σ |T ∩ R| / Σ |T|    hF1 = 2 hP hR / (hP + hR)

where sums are over all images (micro average): Kiritchenko, Matwin, Famili 2005, "Functional
annotation of genes using hierarchical text categorization", BioLINK SIG; Kiritchenko, Matwin, Nock,
Famili 2006, "Learning and evaluation in the presence of class hierarchies", Canadian AI. The mean
over images of the same F1 is what compares with the official score: where concepts are unrelated
they are equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annotator.concept_ids import concept_id
from annotator.concepts.hierarchy import Hierarchy, read_hierarchy
from annotator.evaluation.measures import (
    Difference,
    Mean,
    average,
    average_by,
    bootstrap_means,
    compare,
    interval_of,
)
from annotator.evaluation.official_f1 import Scored, image_f1, mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Hierarchical:
    """Hierarchical scores of a run.

    Attributes:
        f1: Mean over images of hF1.
        precision: Mean over images of hP; two empty sets count as 1, as in the official score.
        recall: Mean over images of hR, likewise.
        micro_f1: hF1 of all images together, as in the paper.
        micro_precision: hP of all images together.
        micro_recall: hR of all images together.
        per_group: Mean over images of hF1 by what they are counted with; empty if by nothing.
        unknown: Concepts of ground truth or run that the hierarchy lacks, ascending. They stand for
            themselves, as roots do.
        labelled_roots: Roots of the hierarchy in ground truth or run, ascending.
        ids: Ids of the n scored images.
        truth: Extended truth of each image.
        scores: hF1 of each image.
        counts: float64[n, 3], |T ∩ R|, |R| and |T| of each image.
        groups: int64[n], what intervals draw together; None if they draw images.
    """

    f1: Mean
    precision: float
    recall: float
    micro_f1: Mean
    micro_precision: float
    micro_recall: float
    per_group: dict[str, Mean]
    unknown: tuple[str, ...]
    labelled_roots: tuple[str, ...]
    ids: tuple[str, ...]
    truth: tuple[frozenset[str], ...]
    scores: tuple[float, ...]
    counts: NDArray[np.float64]
    groups: NDArray[np.int64] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the scores of images."""
        return {
            "f1": self.f1.mean,
            "interval": list(self.f1.interval),
            "precision": self.precision,
            "recall": self.recall,
            "micro_f1": self.micro_f1.mean,
            "micro_interval": list(self.micro_f1.interval),
            "micro_precision": self.micro_precision,
            "micro_recall": self.micro_recall,
            "per_group": {group: found.to_dict() for group, found in self.per_group.items()},
            "unknown": list(self.unknown),
            "labelled_roots": list(self.labelled_roots),
        }

    def against(self, other: Hierarchical) -> tuple[Difference, Difference]:
        """Compare with another run on the same images: mean over images, and micro."""
        import numpy as np

        place = {id_: i for i, id_ in enumerate(other.ids)}
        order = [place[id_] for id_ in self.ids]
        by_image = compare(self.scores, [other.scores[i] for i in order], self.groups)
        both = np.hstack([self.counts, other.counts[order]])
        resampled = bootstrap_means(both, self.groups)
        micro = Difference(
            other.micro_f1.mean,
            self.micro_f1.mean - other.micro_f1.mean,
            interval_of(_micro_f1(resampled[:, :3]) - _micro_f1(resampled[:, 3:])),
            by_image.better,
            by_image.worse,
            by_image.n_groups,
        )
        return by_image, micro


def read_hierarchy_of(path: Path | str, scored: Iterable[Scored]) -> Hierarchy:
    """Read what `score_hierarchically` needs for some runs, as `read_hierarchy`."""
    return read_hierarchy(path, only={_id(c) for one in scored for c in one.concepts})


def score_hierarchically(
    scored: Scored,
    hierarchy: Hierarchy,
    by: Sequence[str] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Hierarchical:
    """Score images with partial credit.

    Args:
        scored: Images as the official scorer sees them; its empty concept is one here, too, so
            that two empty sets have F1 1, but does not count in the micro averages.
        hierarchy: The ancestors of concepts.
        by: As for `average_by`.
        groups: As for `average`.
    """
    import numpy as np

    concepts = scored.concepts
    id_of = {concept: _id_in(hierarchy, concept) for concept in concepts}
    closures = {c: hierarchy.closure([id_of[c]]) for c in concepts} | {"": frozenset([""])}

    def closed(label_set: Iterable[str]) -> frozenset[str]:
        return frozenset().union(*(closures[concept] for concept in label_set))

    truth, run = ([closed(s) for s in side] for side in (scored.truth, scored.run))
    pairs = list(zip(truth, run, strict=True))
    scores = tuple(image_f1(t, r) for t, r in pairs)
    counts = np.array(
        [[len((t & r) - {""}), len(r - {""}), len(t - {""})] for t, r in pairs], np.float64
    )
    shared, chosen, wanted = counts.sum(axis=0).tolist()
    interval = interval_of(_micro_f1(bootstrap_means(counts, groups)))
    f1 = average(scores, groups)
    return Hierarchical(
        f1=f1,
        precision=mean([len(t & r) / len(r) if r else 0.0 for t, r in pairs]),
        recall=mean([len(t & r) / len(t) if t else 0.0 for t, r in pairs]),
        micro_f1=Mean(len(pairs), float(_micro_f1(counts.sum(axis=0))), interval, f1.n_groups),
        micro_precision=shared / chosen if chosen else 0.0,
        micro_recall=shared / wanted if wanted else 0.0,
        per_group={} if by is None else average_by(scores, by, groups),
        unknown=tuple(concept for concept in concepts if id_of[concept] not in hierarchy),
        labelled_roots=tuple(sorted(set(hierarchy.roots).intersection(id_of.values()))),
        ids=scored.ids,
        truth=tuple(truth),
        scores=scores,
        counts=counts,
        groups=groups,
    )


def _id_in(hierarchy: Hierarchy, concept: str) -> str:
    """The id of a concept that is spelt as in a table; of an unknown one, its spelling."""
    return _id(concept) if _id(concept) in hierarchy else concept


def _id(concept: str) -> str:
    try:
        return concept_id(concept)
    except ValueError:  # no word is left of it
        return concept


def _micro_f1(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1 of sums or means of |T ∩ R|, |R| and |T|, float64[..., 3]; 0 without any concept."""
    import numpy as np

    total = counts[..., 1] + counts[..., 2]
    return np.divide(2 * counts[..., 0], total, out=np.zeros_like(total), where=total > 0)
