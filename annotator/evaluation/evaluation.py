"""The evaluation of a run: the official F1 with its interval, and where it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annotator.errors import FormatError
from annotator.evaluation.official_f1 import Scored, Scorer, mean, score, score_secondary
from annotator.tables.formats import read_column

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_DRAWN_AT_ONCE = 4_000_000  # counts of a bootstrap, 32 MB


@dataclass(frozen=True)
class Score:
    """A mean F1 over images, with the 95% interval of its bootstrap."""

    n_images: int
    f1: float
    interval: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values for JSON."""
        return {"n_images": self.n_images, "f1": self.f1, "interval": list(self.interval)}


@dataclass(frozen=True)
class ConceptScore:
    """One concept over the scored images: how often it is true, found, and both."""

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
        """Images that have the concept and did not get it."""
        return self.truth - self.true_positives

    @property
    def invented(self) -> int:
        """Images that got the concept and do not have it."""
        return self.run - self.true_positives


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a run scores.

    Attributes:
        scorer: `current` or `legacy`.
        n_images: Number of scored images, n.
        f1: The official score, the mean over images of F1.
        interval: Its 95% interval, from a bootstrap over images.
        precision: Mean over images; a set met by the same empty set counts as 1, as in the F1.
        recall: Likewise.
        micro_precision: True positives over concepts in the run, all images together.
        micro_recall: True positives over concepts in the ground truth, all images together.
        macro_f1: The mean over the concepts of the ground truth of each one's F1.
        secondary: The secondary score, or None where no manual ground truth was given.
        per_concept: Each concept of ground truth or run, the most frequent in the truth first.
        per_group: The score of each group by its name, sorted; empty without groups.
        skipped: Ids that the current scorer skips because they contain the letters `ID`.
        left_out: Number of images that the legacy scorer leaves out for want of true concepts.
        image_ids: The scored images, n of them, in the run's order.
        image_scores: float64[n], the F1 of each.
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
    secondary: Score | None
    per_concept: tuple[ConceptScore, ...]
    per_group: dict[str, Score]
    skipped: tuple[str, ...]
    left_out: int
    image_ids: tuple[str, ...]
    image_scores: npt.NDArray[np.float64]

    @property
    def most_missed(self) -> tuple[ConceptScore, ...]:
        """The concepts that were missed, most often missed first."""
        missed = (concept for concept in self.per_concept if concept.missed)
        return tuple(sorted(missed, key=lambda concept: (-concept.missed, concept.cui)))

    @property
    def most_invented(self) -> tuple[ConceptScore, ...]:
        """The concepts that were invented, most often invented first."""
        invented = (concept for concept in self.per_concept if concept.invented)
        return tuple(sorted(invented, key=lambda concept: (-concept.invented, concept.cui)))

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values for JSON; the images' scores by id."""
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
            "secondary": self.secondary and self.secondary.to_dict(),
            "per_group": {group: score.to_dict() for group, score in self.per_group.items()},
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
    truth: Path | str,
    *,
    scorer: Scorer = "current",
    secondary: Path | str | None = None,
    by: str | None = None,
    ids: Collection[str] | None = None,
    names: Mapping[str, str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Score a run against a ground truth as the task does, and say where the score comes from.

    Args:
        run: The run, text or a zip that holds it.
        truth: The ground truth, in the format of any year.
        scorer: `current` (the evaluator of 2022 to 2026) or `legacy` (2017 to 2020).
        secondary: The manual ground truth, for the secondary score of 2025 and 2026.
        by: `FILE:COLUMN`, the column that groups the images (by source, patient, ...); images that
            it lacks are a group of their own with an empty name.
        ids: Score these images of the ground truth alone, such as the test side of a split.
        names: Names of CUIs; those without are shown without.
        resamples: Number of bootstrap samples, at least 1.
        seed: Of the bootstrap; the same inputs and seed give the same evaluation.

    Raises:
        FormatError: A file cannot be read, or the official evaluator would reject the run; the
            message names file and line.
    """
    if secondary is not None and scorer != "current":
        raise FormatError("the legacy scorer has no secondary score", "Use the current scorer.")
    scored = score(run, truth, scorer, ids)
    second = None
    if secondary is not None:
        second = _score(score_secondary(scored, secondary, ids).scores, resamples, seed)
    groups = _group(scored, read_column(by)) if by is not None else {}
    concepts = _count_concepts(scored, names or {})
    whole = _score(scored.scores, resamples, seed)
    true_positives = sum(concept.true_positives for concept in concepts)
    import numpy as np

    return Evaluation(
        scorer=scorer,
        n_images=whole.n_images,
        f1=scored.f1,
        interval=whole.interval,
        precision=mean([_ratio(len(t & r), len(r)) for t, r in _pairs(scored)]),
        recall=mean([_ratio(len(t & r), len(t)) for t, r in _pairs(scored)]),
        micro_precision=_ratio(true_positives, sum(concept.run for concept in concepts)),
        micro_recall=_ratio(true_positives, sum(concept.truth for concept in concepts)),
        macro_f1=mean([concept.f1 for concept in concepts if concept.truth] or [0.0]),
        secondary=second,
        per_concept=concepts,
        per_group={
            group: _score(scores, resamples, seed) for group, scores in sorted(groups.items())
        },
        skipped=scored.skipped,
        left_out=scored.left_out,
        image_ids=scored.ids,
        image_scores=np.array(scored.scores, dtype=np.float64),
    )


def bootstrap_interval(
    scores: Sequence[float], resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of a mean (Efron and Tibshirani 1993, chapter 13).

    Drawing n images with replacement draws the number of times that each distinct score is met from
    a multinomial distribution, so that is what is drawn: F1 takes few distinct values.

    Args:
        scores: One score for each image, at least one.
        resamples: Number of bootstrap samples, at least 1.
        seed: Of the random generator.
    """
    import numpy as np

    values, counts = np.unique(np.asarray(scores, dtype=np.float64), return_counts=True)
    n = len(scores)
    generator = np.random.default_rng(seed)
    at_once = max(_DRAWN_AT_ONCE // len(values), 1)
    means = [
        generator.multinomial(n, counts / n, size=min(at_once, resamples - done)) @ values / n
        for done in range(0, resamples, at_once)
    ]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def _score(scores: Sequence[float], resamples: int, seed: int) -> Score:
    return Score(len(scores), mean(scores), bootstrap_interval(scores, resamples, seed))


def _group(scored: Scored, group_of: Mapping[str, str]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for image_id, f1 in zip(scored.ids, scored.scores, strict=True):
        groups.setdefault(group_of.get(image_id, ""), []).append(f1)
    return groups


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
