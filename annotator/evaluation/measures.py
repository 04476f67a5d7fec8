"""Means with bootstrap intervals: of a run, of its groups, and paired against another run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from annotator.evaluation.official_f1 import mean
from annotator.render.text_table import Row, columns, section
from annotator.tables.formats import read_column

_DRAWN_AT_ONCE = 4_000_000  # counts of a bootstrap, 32 MB


@dataclass(frozen=True)
class Mean:
    """A mean over n images or queries, with its 95% bootstrap interval."""

    n: int
    mean: float
    interval: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {**asdict(self), "interval": list(self.interval)}


@dataclass(frozen=True)
class Difference:
    """A run compared with another one on the same images.

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
        """As plain values for JSON."""
        return {**asdict(self), "interval": list(self.interval)}


@dataclass(frozen=True)
class Measure:
    """One measure of a run.

    Attributes:
        name: As printed, such as `ROUGE-1`.
        scores: One for each image or query.
        whole: Their mean.
        per_group: Mean of each group by its name, sorted; empty without groups.
        against: Comparison with another run, or None.
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
        ids: Their ids, in order.
        measures: By key, such as `rouge1`.
        notes: Remarks for people, one line each.
        facts: Further values for JSON.
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


def bootstrap_interval(
    scores: Sequence[float], resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of a mean (Efron and Tibshirani 1993, chapter 13).

    Scores such as F1 take few distinct values. How often each of them is among n images drawn with
    replacement has a multinomial distribution, so these counts are drawn instead of images.

    Args:
        scores: One score for each image, at least one.
        resamples: Number of bootstrap samples, at least 1.
        seed: Seed of the random generator.
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


def average(scores: Sequence[float]) -> Mean:
    """The mean of at least one score, with its interval."""
    return Mean(len(scores), mean(scores), bootstrap_interval(scores))


def average_by_group(scores: Sequence[float], groups: Sequence[str]) -> dict[str, Mean]:
    """The mean of each group's scores, by the groups' names, sorted."""
    members: dict[str, list[float]] = {}
    for group, score in zip(groups, scores, strict=True):
        members.setdefault(group, []).append(score)
    return {group: average(values) for group, values in sorted(members.items())}


def read_groups(by: str | None, ids: Sequence[str]) -> list[str] | None:
    """The group of each id by a table's column, `FILE:COLUMN`; "" where it lacks the id.

    Raises:
        FormatError: As `read_column`.
    """
    if by is None:
        return None
    group_of = read_column(by)
    return [group_of.get(id_, "") for id_ in ids]


def compare(scores: Sequence[float], others: Sequence[float]) -> Difference:
    """The paired difference of two runs on the same images, in the same order."""
    differences = [a - b for a, b in zip(scores, others, strict=True)]
    return Difference(
        mean(others),
        mean(differences),
        bootstrap_interval(differences),
        sum(difference > 0 for difference in differences),
        sum(difference < 0 for difference in differences),
    )


def measure(
    name: str,
    scores: Sequence[float],
    *,
    groups: Sequence[str] | None = None,
    others: Sequence[float] | None = None,
) -> Measure:
    """Average scores as a whole, by group, and against another run.

    Args:
        name: Name of the measure, as printed.
        scores: One for each image, at least one.
        groups: The group of each image.
        others: The other run's score of each image.
    """
    return Measure(
        name,
        tuple(scores),
        average(scores),
        {} if groups is None else average_by_group(scores, groups),
        None if others is None else compare(scores, others),
    )


def render_measured(measured: Measured) -> str:
    """As text for the terminal, without a line end after the last line."""
    lines = [f"{m.name} {render_mean(m.whole, measured.unit)}" for m in measured.measures.values()]
    for m in measured.measures.values():
        if m.against is not None:
            lines += section(f"{m.name} against the other run", render_difference(m.against))
    for m in measured.measures.values():
        if m.per_group:
            table = render_groups(m.per_group, measured.unit, "mean")
            lines += section(f"{m.name} by group", table)
    if measured.notes:
        lines += ["", *measured.notes]
    return "\n".join(lines)


def render_mean(found: Mean, unit: str = "images") -> str:
    """A mean with its interval and number of images or queries."""
    low, high = found.interval
    return f"{found.mean:.4f} (95% interval {low:.3f} to {high:.3f}, {found.n:,} {unit})"


def render_groups(per_group: Mapping[str, Mean], unit: str, name: str) -> list[str]:
    """A table of the groups' means, in a column called `name`."""
    rows: list[Row] = [
        [group or "(none)", found.n, found.mean, *found.interval]
        for group, found in per_group.items()
    ]
    return columns(["group", unit, name, "95% low", "high"], rows)


def render_difference(found: Difference) -> list[str]:
    """A comparison in two lines."""
    low, high = found.interval
    return [
        f"the other {found.other:.4f}; this one higher by {found.difference:+.4f} "
        f"(paired 95% interval {low:+.4f} to {high:+.4f})",
        f"better on {found.better:,}, worse on {found.worse:,}",
    ]
