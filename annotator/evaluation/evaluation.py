"""Evaluation of a run: the official F1 with its interval, by concept and by group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annotator.errors import FormatError
from annotator.evaluation.hierarchical import Hierarchical, score_hierarchically
from annotator.evaluation.measures import Mean, average, average_by_group, read_groups
from annotator.evaluation.official_f1 import Scored, Scorer, mean, score, score_secondary
from annotator.tables.labels import Labels

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from annotator.concepts.hierarchy import Hierarchy


@dataclass(frozen=True)
class ConceptScore:
    """Counts of one concept over the scored images."""

    cui: str
    name: str
    truth: int
    run: int
    true_positives: int
    precision: float
    recall: float
    f1: float

    @property
    def missed(self) -> int:
        """Number of false negatives."""
        return self.truth - self.true_positives

    @property
    def invented(self) -> int:
        """Number of false positives."""
        return self.run - self.true_positives


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The evaluation of a run.

    Attributes:
        scorer: `current` or `legacy`.
        n_images: Number of scored images, n.
        f1: The official score, the mean over images of F1.
        interval: Its 95% interval, from a bootstrap over images.
        precision: Mean precision over images; two empty sets count as 1, as in the F1.
        recall: Mean recall over images, likewise.
        micro_precision: True positives over concepts in the run, all images together.
        micro_recall: True positives over concepts in the ground truth, all images together.
        macro_f1: Mean F1 over the concepts of the ground truth.
        secondary: The secondary score, or None where no manual ground truth was given.
        per_concept: Counts of all concepts of ground truth or run, the most frequent in the truth
            first.
        per_group: Score by group name, sorted; empty without groups.
        skipped: Ids that the current scorer skips because they contain the letters `ID`.
        left_out: Number of images without true concepts, which the legacy scorer skips.
        image_ids: Ids of the n scored images, in the order of the run.
        image_scores: float64[n], F1 of each image.
        notes: What is to be said of the ids of the groups, one line each.
        hierarchical: Scores with partial credit, or None without a hierarchy.
    """

    scorer: Scorer
    n_images: int
    f1: float
    interval: tuple[float, float]
    precision: float
    recall: float
    micro_precision: float
    micro_recall: float
    macro_f1: float
    secondary: Mean | None
    per_concept: tuple[ConceptScore, ...]
    per_group: dict[str, Mean]
    skipped: tuple[str, ...]
    left_out: int
    image_ids: tuple[str, ...]
    image_scores: npt.NDArray[np.float64]
    notes: tuple[str, ...] = ()
    hierarchical: Hierarchical | None = None

    @property
    def most_missed(self) -> tuple[ConceptScore, ...]:
        """Concepts with false negatives, most false negatives first."""
        missed = (concept for concept in self.per_concept if concept.missed)
        return tuple(sorted(missed, key=lambda concept: (-concept.missed, concept.cui)))

    @property
    def most_invented(self) -> tuple[ConceptScore, ...]:
        """Concepts with false positives, most false positives first."""
        invented = (concept for concept in self.per_concept if concept.invented)
        return tuple(sorted(invented, key=lambda concept: (-concept.invented, concept.cui)))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, with image scores by id."""
        return {
            "scorer": self.scorer,
            "n_images": self.n_images,
            "f1": self.f1,
            "interval": list(self.interval),
            "precision": self.precision,
            "recall": self.recall,
            "micro_precision": self.micro_precision,
            "micro_recall": self.micro_recall,
            "macro_f1": self.macro_f1,
            "secondary": self.secondary and _f1_to_dict(self.secondary),
            "hierarchical": self.hierarchical and self.hierarchical.to_dict(),
            "per_group": {group: _f1_to_dict(found) for group, found in self.per_group.items()},
            "per_concept": [asdict(concept) for concept in self.per_concept],
            "most_missed": [
                {"cui": c.cui, "name": c.name, "count": c.missed} for c in self.most_missed
            ],
            "most_invented": [
                {"cui": c.cui, "name": c.name, "count": c.invented} for c in self.most_invented
            ],
            "skipped": list(self.skipped),
            "left_out": self.left_out,
            "images": dict(zip(self.image_ids, self.image_scores.tolist(), strict=True)),
        }


def evaluate(
    run: Path | str,
    truth: Path | str | Labels,
    *,
    scorer: Scorer = "current",
    secondary: Path | str | None = None,
    by: str | None = None,
    ids: Collection[str] | None = None,
    names: Mapping[str, str] | None = None,
    hierarchy: Hierarchy | None = None,
) -> Evaluation:
    """Score a run against a ground truth with the official F1, by concept and by group.

    Args:
        run: Run, as text or in a zip, or annotations in JSON lines.
        truth: Ground truth, in the format of any year or another (see `score`).
        scorer: `current` (the evaluator of 2022 to 2026) or `legacy` (2017 to 2020).
        secondary: The manual ground truth, for the secondary score of 2025 and 2026.
        by: `FILE:COLUMN` with the group of each image (source, patient, ...); images missing from
            it form a group with an empty name.
        ids: Subset of images to score, such as the test side of a split; None for all.
        names: Name by CUI, where known.
        hierarchy: Ancestors of concepts, for hierarchical precision, recall and F1, too.

    Raises:
        FormatError: A file cannot be read, or the official evaluator would reject the run; the
            message names file and line.
    """
    scored = score(run, truth, scorer, ids)
    return evaluate_scored(
        scored,
        scorer=scorer,
        secondary=secondary,
        by=by,
        ids=ids,
        names=names,
        hierarchy=hierarchy,
    )


def evaluate_scored(
    scored: Scored,
    *,
    scorer: Scorer = "current",
    secondary: Path | str | None = None,
    by: str | None = None,
    ids: Collection[str] | None = None,
    names: Mapping[str, str] | None = None,
    hierarchy: Hierarchy | None = None,
) -> Evaluation:
    """Evaluate a run that `score` has scored; the arguments are those of `evaluate`.

    Raises:
        FormatError: As `evaluate`.
    """
    if secondary is not None and scorer != "current":
        raise FormatError("the legacy scorer has no secondary score", "Use the current scorer.")
    second = None
    if secondary is not None:
        second = average(score_secondary(scored, secondary, ids).scores)
    notes: list[str] = []
    groups = read_groups(by, scored.ids, notes)
    concepts = _count_concepts(scored, names or {})
    whole = average(scored.scores)
    true_positives = sum(concept.true_positives for concept in concepts)
    import numpy as np

    return Evaluation(
        scorer=scorer,
        n_images=whole.n,
        f1=scored.f1,
        interval=whole.interval,
        precision=mean([_ratio(len(t & r), len(r)) for t, r in _pairs(scored)]),
        recall=mean([_ratio(len(t & r), len(t)) for t, r in _pairs(scored)]),
        micro_precision=_ratio(true_positives, sum(concept.run for concept in concepts)),
        micro_recall=_ratio(true_positives, sum(concept.truth for concept in concepts)),
        macro_f1=mean([concept.f1 for concept in concepts if concept.truth] or [0.0]),
        secondary=second,
        per_concept=concepts,
        per_group={} if groups is None else average_by_group(scored.scores, groups),
        skipped=scored.skipped,
        left_out=scored.left_out,
        image_ids=scored.ids,
        image_scores=np.array(scored.scores, dtype=np.float64),
        notes=tuple(notes),
        hierarchical=None if hierarchy is None else score_hierarchically(scored, hierarchy, groups),
    )


def _f1_to_dict(found: Mean) -> dict[str, Any]:
    return {"n_images": found.n, "f1": found.mean, "interval": list(found.interval)}


def _pairs(scored: Scored) -> Iterable[tuple[frozenset[str], frozenset[str]]]:
    return zip(scored.truth, scored.run, strict=True)


def _count_concepts(scored: Scored, names: Mapping[str, str]) -> tuple[ConceptScore, ...]:
    truth: Counter[str] = Counter()
    run: Counter[str] = Counter()
    both: Counter[str] = Counter()
    for wanted, found in _pairs(scored):
        truth.update(wanted)
        run.update(found)
        both.update(wanted & found)
    cuis = sorted((truth.keys() | run.keys()) - {""}, key=lambda cui: (-truth[cui], cui))
    return tuple(
        ConceptScore(
            cui=cui,
            name=names.get(cui, ""),
            truth=truth[cui],
            run=run[cui],
            true_positives=both[cui],
            precision=_ratio(both[cui], run[cui]),
            recall=_ratio(both[cui], truth[cui]),
            f1=_ratio(2 * both[cui], truth[cui] + run[cui]),
        )
        for cui in cuis
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
