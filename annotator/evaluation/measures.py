"""Means with bootstrap intervals, by group, and paired differences between runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from annotator.evaluation.official_f1 import mean
from annotator.ids import by_image
from annotator.render.text_table import Row, columns, section
from annotator.tables.formats import read_column

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DRAWN_AT_ONCE = 4_000_000  # counts of a bootstrap, 32 MB


@dataclass(frozen=True)
class Mean:
    """Mean over n images or queries, with its 95% bootstrap interval."""

    n: int
    mean: float
    interval: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {**asdict(self), "interval": list(self.interval)}


@dataclass(frozen=True)
class Difference:
    """Paired comparison of a run with another one on the same images.

    Attributes:
        other: Mean of the other run.
        difference: Mean of this run minus `other`.
        interval: 95% bootstrap interval of the difference, over images.
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
        name: Printed name, such as `ROUGE-1`.
        scores: Score of each image or query.
        whole: Mean of the scores.
        per_group: Mean by group name, sorted; empty without groups.
        against: Comparison with another run, or None.
    """

    name: str
    scores: tuple[float, ...]
    whole: Mean
    per_group: Mapping[str, Mean]
    against: Difference | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the single scores."""
        return {
            "name": self.name,
            **self.whole.to_dict(),
            "per_group": {group: found.to_dict() for group, found in self.per_group.items()},
            "against": self.against and self.against.to_dict(),
        }


@dataclass(frozen=True)
class Measured:
    """Scores of a run by several measures.

    Attributes:
        unit: Unit of the scores: `images` or `queries`.
        ids: Ids of the units, in order.
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
        """Plain JSON types, with scores by id."""
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
    """Compute the 95% percentile bootstrap interval of a mean (Efron and Tibshirani 1993, ch. 13).

    Args:
        scores: Score of each image, at least one.
        resamples: Number of bootstrap samples, at least 1.
        seed: Seed of the random generator.
    """
    import numpy as np

    return interval_of(bootstrap_means(np.asarray(scores, dtype=np.float64), resamples, seed))


def interval_of(resampled: NDArray[np.float64]) -> tuple[float, float]:
    """The 95% percentile interval of a statistic of bootstrap samples."""
    import numpy as np

    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_means(
    values: NDArray[np.float64], resamples: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Means of bootstrap samples of images, float64[resamples] or, jointly, [resamples, c].

    Scores such as F1 take few distinct values, whose counts in a bootstrap sample are multinomial;
    these counts are drawn instead of images.

    Args:
        values: float64[n], or float64[n, c] for c values of each image; n at least 1.
        resamples: Number of bootstrap samples, at least 1.
        seed: Seed of the random generator.
    """
    import numpy as np

    distinct, counts = np.unique(values, axis=0, return_counts=True)
    n = len(values)
    generator = np.random.default_rng(seed)
    at_once = max(_DRAWN_AT_ONCE // len(distinct), 1)
    return np.concatenate(
        [
            generator.multinomial(n, counts / n, size=min(at_once, resamples - done)) @ distinct / n
            for done in range(0, resamples, at_once)
        ]
    )


def average(scores: Sequence[float]) -> Mean:
    """Average at least one score, with an interval."""
    return Mean(len(scores), mean(scores), bootstrap_interval(scores))


def average_by_group(scores: Sequence[float], groups: Sequence[str]) -> dict[str, Mean]:
    """Average scores by group, sorted by group name."""
    members: dict[str, list[float]] = {}
    for group, score in zip(groups, scores, strict=True):
        members.setdefault(group, []).append(score)
    return {group: average(values) for group, values in sorted(members.items())}


def read_groups(by: str | None, ids: Sequence[str], notes: list[str]) -> list[str] | None:
    """Read the group of each id from a table, `FILE:COLUMN`; "" for ids missing from it.

    Args:
        by: The table.
        ids: Ids, with which those of the table are matched (`annotator.ids`).
        notes: Gets a line where ids of the table differ from `ids`.

    Raises:
        FormatError: As `read_column`.
    """
    if by is None:
        return None
    group_of = by_image(read_column(by), ids, by, notes)
    return [group_of.get(id_, "") for id_ in ids]


def compare(scores: Sequence[float], others: Sequence[float]) -> Difference:
    """Compare two runs on the same images, in the same order."""
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
        name: Printed name of the measure.
        scores: Score of each image, at least one.
        groups: Group of each image.
        others: Score of each image in the other run.
    """
    return Measure(
        name,
        tuple(scores),
        average(scores),
        {} if groups is None else average_by_group(scores, groups),
        None if others is None else compare(scores, others),
    )


def render_measured(measured: Measured) -> str:
    """Render measures as text for the terminal, without a trailing line end."""
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
    """Render a mean with its interval and number of images or queries."""
    low, high = found.interval
    return f"{found.mean:.4f} (95% interval {low:.3f} to {high:.3f}, {found.n:,} {unit})"


def render_groups(per_group: Mapping[str, Mean], unit: str, name: str) -> list[str]:
    """Render a table of group means, in a column called `name`."""
    rows: list[Row] = [
        [group or "(none)", found.n, found.mean, *found.interval]
        for group, found in per_group.items()
    ]
    return columns(["group", unit, name, "95% low", "high"], rows)


def render_difference(found: Difference) -> list[str]:
    """Render a comparison in two lines."""
    low, high = found.interval
    return [
        f"the other {found.other:.4f}; this one higher by {found.difference:+.4f} "
        f"(paired 95% interval {low:+.4f} to {high:+.4f})",
        f"better on {found.better:,}, worse on {found.worse:,}",
    ]
