"""Measures of any kind with their intervals, alone and against another run's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from annotator.evaluation.evaluation import bootstrap_interval
from annotator.evaluation.official_f1 import mean
from annotator.render.text_table import Row, columns, section


@dataclass(frozen=True)
class Mean:
    """A mean over n images or queries, with the 95% interval of its bootstrap."""

    n: int
    mean: float
    interval: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values for JSON."""
        return {"n": self.n, "mean": self.mean, "interval": list(self.interval)}


@dataclass(frozen=True)
class Difference:
    """A run less another one, image by image.

    Attributes:
        other: The other run's mean.
        difference: How much higher this run's mean is.
        interval: Its 95% interval, from a bootstrap over the images' differences.
        better: Number of images on which this run is better.
        worse: Number of images on which it is worse.
    """

    other: float
    difference: float
    interval: tuple[float, float]
    better: int
    worse: int

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values for JSON."""
        return {
            "other": self.other,
            "difference": self.difference,
            "interval": list(self.interval),
            "better": self.better,
            "worse": self.worse,
        }


@dataclass(frozen=True)
class Measure:
    """One measure of a run.

    Attributes:
        name: As people write it, such as `ROUGE-1`.
        scores: Of each image or query.
        whole: Their mean.
        per_group: The mean of each group by its name, sorted; empty without groups.
        against: Compared with another run, or None.
    """

    name: str
    scores: tuple[float, ...]
    whole: Mean
    per_group: Mapping[str, Mean]
    against: Difference | None

    def to_dict(self) -> dict[str, Any]:
        """All but the single scores as plain values for JSON."""
        return {
            "name": self.name,
            **self.whole.to_dict(),
            "per_group": {group: found.to_dict() for group, found in self.per_group.items()},
            "against": self.against and self.against.to_dict(),
        }


@dataclass(frozen=True)
class Measured:
    """What a run scores by several measures.

    Attributes:
        unit: What is scored: `images` or `queries`.
        ids: Theirs, in order.
        measures: By a name for programs, such as `rouge1`.
        notes: What else is to be known, one line each.
        facts: The same and more for programs.
    """

    unit: str
    ids: tuple[str, ...]
    measures: Mapping[str, Measure]
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values for JSON; the scores by id."""
        scores = {name: measure.scores for name, measure in self.measures.items()}
        return {
            f"n_{self.unit}": len(self.ids),
            "measures": {name: measure.to_dict() for name, measure in self.measures.items()},
            **self.facts,
            self.unit: {
                id_: {name: scores[name][i] for name in scores} for i, id_ in enumerate(self.ids)
            },
        }


def measure(
    name: str,
    scores: Sequence[float],
    *,
    groups: Sequence[str] | None = None,
    others: Sequence[float] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Measure:
    """Average scores, with intervals.

    Args:
        name: Of the measure.
        scores: One for each image, at least one.
        groups: The group of each image.
        others: The other run's score of each image.
        resamples: Number of bootstrap samples, at least 1.
        seed: Of the bootstrap; the same inputs and seed give the same intervals.
    """

    def average(values: Sequence[float]) -> Mean:
        return Mean(len(values), mean(values), bootstrap_interval(values, resamples, seed))

    members: dict[str, list[float]] = {}
    for group, score in zip(groups or (), scores, strict=groups is not None):
        members.setdefault(group, []).append(score)
    return Measure(
        name,
        tuple(scores),
        average(scores),
        {group: average(values) for group, values in sorted(members.items())},
        compare(scores, others, resamples, seed) if others is not None else None,
    )


def compare(
    scores: Sequence[float], others: Sequence[float], resamples: int = 2000, seed: int = 0
) -> Difference:
    """The paired difference of two runs on the same images, in the same order."""
    differences = [a - b for a, b in zip(scores, others, strict=True)]
    return Difference(
        mean(others),
        mean(differences),
        bootstrap_interval(differences, resamples, seed),
        sum(difference > 0 for difference in differences),
        sum(difference < 0 for difference in differences),
    )


def render_measured(measured: Measured) -> str:
    """As text for the terminal, without a line end after the last line."""
    lines = [
        f"{m.name} {m.whole.mean:.4f} "
        f"(95% interval {m.whole.interval[0]:.3f} to {m.whole.interval[1]:.3f}, "
        f"{m.whole.n:,} {measured.unit})"
        for m in measured.measures.values()
    ]
    for m in measured.measures.values():
        if m.against is not None:
            lines += section(f"{m.name} against the other run", render_difference(m.against))
    for m in measured.measures.values():
        if m.per_group:
            rows: list[Row] = [
                [group or "(none)", found.n, found.mean, *found.interval]
                for group, found in m.per_group.items()
            ]
            header = ["group", measured.unit, "mean", "95% low", "high"]
            lines += section(f"{m.name} by group", columns(header, rows))
    if measured.notes:
        lines += ["", *measured.notes]
    return "\n".join(lines)


def render_difference(found: Difference) -> list[str]:
    """A comparison in two lines."""
    low, high = found.interval
    return [
        f"the other {found.other:.4f}; this one higher by {found.difference:+.4f} "
        f"(paired 95% interval {low:+.4f} to {high:+.4f})",
        f"better on {found.better:,}, worse on {found.worse:,}",
    ]
