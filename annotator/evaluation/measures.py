"""Means with bootstrap intervals, and paired differences between runs.

Images of a patient succeed and fail together, so where groups are known, the bootstrap draws whole
groups (Field and Welsh 2007, "Bootstrapping clustered data", JRSS B 69). Everywhere here, groups
are what is drawn together (`group_numbers`); what a mean is split by goes by the name of `by`.
"""

from __future__ import annotations

import itertools
import math
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
    """Mean over n images or queries, with its 95% bootstrap interval.

    Attributes:
        n: Number of images or queries.
        mean: Mean over them.
        interval: Its 95% interval.
        n_groups: Number of groups that were drawn for the interval; None if images were.
    """

    n: int
    mean: float
    interval: tuple[float, float]
    n_groups: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {**asdict(self), "interval": list(self.interval)}


@dataclass(frozen=True)
class Difference:
    """Paired comparison of a run with another one on the same images.

    Attributes:
        other: Mean of the other run.
        difference: Mean of this run minus `other`.
        interval: 95% bootstrap interval of the difference.
        better: Number of images on which this run is better.
        worse: Number of images on which it is worse.
        n_groups: Number of groups that were drawn for the interval; None if images were.
    """

    other: float
    difference: float
    interval: tuple[float, float]
    better: int
    worse: int
    n_groups: int | None = None

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
        per_group: Mean by the name of what it is split by, sorted; empty if it is not.
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


def group_numbers(groups: Sequence[str]) -> NDArray[np.int64]:
    """Number the groups, int64[n]; each image without a group, "", is its own group."""
    import numpy as np

    named = {group: i for i, group in enumerate(sorted({g for g in groups if g}))}
    alone = itertools.count(len(named))
    return np.array([named[g] if g else next(alone) for g in groups], np.int64)


def bootstrap_interval(
    scores: Sequence[float],
    groups: NDArray[np.int64] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Compute the 95% percentile bootstrap interval of a mean (Efron and Tibshirani 1993, ch. 13).

    Args:
        scores: Score of each image, at least one.
        groups: As for `bootstrap_means`.
        resamples: Number of bootstrap samples, at least 1.
        seed: Seed of the random generator.
    """
    import numpy as np

    values = np.asarray(scores, dtype=np.float64)
    return interval_of(bootstrap_means(values, groups, resamples, seed))


def interval_of(resampled: NDArray[np.float64]) -> tuple[float, float]:
    """The 95% percentile interval of a statistic of bootstrap samples."""
    import numpy as np

    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)


def predicted_interval(
    average: float, interval: tuple[float, float], n: int, new: int
) -> tuple[float, float]:
    """The interval for the mean score of new images like those of a mean in 0..1.

    An interval of a mean says where the mean of all such images is. That of some new ones has their
    own noise besides, with a variance n / new times that of the mean: the half-lengths are
    sqrt(1 + n / new) times as long (prediction interval of a mean, e.g. Hahn and Meeker 1991,
    "Statistical intervals", section 4.7), under the assumption that groups are as large.

    Args:
        average: The mean.
        interval: Its interval.
        n: Number of its images.
        new: Number of new images.
    """
    longer = math.sqrt(1 + n / new)
    low, high = (average + (end - average) * longer for end in interval)
    return max(low, 0.0), min(high, 1.0)


def bootstrap_means(
    values: NDArray[np.float64],
    groups: NDArray[np.int64] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Means of bootstrap samples, float64[resamples] or, jointly, [resamples, c].

    Scores such as F1 take few distinct values, whose counts in a bootstrap sample are multinomial;
    these counts are drawn instead of images. With groups, counts of equal groups are: of equal sum
    and number of images.

    Args:
        values: float64[n], or float64[n, c] for c values of each image; n at least 1.
        groups: int64[n], the group of each image (`group_numbers`): whole groups are drawn, as many
            as there are. None to draw images.
        resamples: Number of bootstrap samples, at least 1.
        seed: Seed of the random generator.
    """
    import numpy as np

    sums, sizes = _by_group(values, groups)
    rows = np.column_stack([sizes, sums])
    distinct, counts = np.unique(rows, axis=0, return_counts=True)
    lengths = distinct[:, 0].copy()
    totals = distinct[:, 1:].copy().reshape(len(distinct), *values.shape[1:])
    n = len(sizes)
    generator = np.random.default_rng(seed)
    at_once = max(_DRAWN_AT_ONCE // len(distinct), 1)
    means = []
    for done in range(0, resamples, at_once):
        drawn = generator.multinomial(n, counts / n, size=min(at_once, resamples - done))
        means.append(((drawn @ totals).T / (drawn @ lengths)).T)
    return np.concatenate(means)


def standard_error(values: NDArray[np.float64], groups: NDArray[np.int64] | None = None) -> float:
    """Standard error of a mean over images of which those of a group are not independent.

    It is that of a ratio of the groups' sums and sizes (Cochran 1977, "Sampling techniques", 6.4),
    and without groups the usual one.

    Args:
        values: float64[n], at least one.
        groups: int64[n], the group of each image (`group_numbers`); None if each is its own.

    Returns:
        The standard error; infinity with a single group, which tells nothing of others.
    """
    sums, sizes = _by_group(values, groups)
    n = len(sizes)
    if n == 1:
        return math.inf
    residuals = sums - values.mean() * sizes
    return math.sqrt(n / (n - 1) * float(residuals @ residuals)) / len(values)


def _by_group(
    values: NDArray[np.float64], groups: NDArray[np.int64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of the values of each group, float64[g] or float64[g, c], and their number, float64[g].

    Raises:
        ValueError: There are not as many groups as values.
    """
    import numpy as np

    if groups is None:
        return values, np.ones(len(values))
    if len(groups) != len(values):
        raise ValueError(f"{len(groups)} groups of {len(values)} images")
    _, number = np.unique(groups, return_inverse=True)
    sizes = np.bincount(number).astype(np.float64)
    sums = np.zeros((len(sizes), *values.shape[1:]))
    np.add.at(sums, number, values)
    return sums, sizes


def _count(groups: NDArray[np.int64] | None) -> int | None:
    return None if groups is None else len(set(groups.tolist()))


def average(scores: Sequence[float], groups: NDArray[np.int64] | None = None) -> Mean:
    """Average at least one score, with an interval, over groups if they are given."""
    return Mean(len(scores), mean(scores), bootstrap_interval(scores, groups), _count(groups))


def average_by(
    scores: Sequence[float], by: Sequence[str], groups: NDArray[np.int64] | None = None
) -> dict[str, Mean]:
    """Average scores by name, sorted.

    Args:
        scores: Score of each image.
        by: Name of what each image is counted with, such as its source.
        groups: As for `average`.
    """
    members: dict[str, list[int]] = {}
    for i, (name, _) in enumerate(zip(by, scores, strict=True)):
        members.setdefault(name, []).append(i)
    return {
        name: average([scores[i] for i in rows], None if groups is None else groups[rows])
        for name, rows in sorted(members.items())
    }


def read_groups(by: str | None, ids: Sequence[str], notes: list[str]) -> list[str] | None:
    """Read the group of each id from a table, `FILE[:COLUMN]`; "" for ids missing from it.

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


def read_group_numbers(
    groups: str | None, ids: Sequence[str], notes: list[str]
) -> NDArray[np.int64] | None:
    """Read from a table what intervals are to draw together, as `group_numbers`.

    Args:
        groups: The table, `FILE` or `FILE:COLUMN`, with the patient or study of each image.
        ids: As for `read_groups`.
        notes: Gets lines as from `read_groups`, and one that says what intervals are over.

    Raises:
        FormatError: As `read_column`.
    """
    of_image = read_groups(groups, ids, notes)
    if of_image is None:
        return None
    numbers = group_numbers(of_image)
    alone = of_image.count("")
    own = f"; {alone:,} without one count as groups of their own" if alone else ""
    notes.append(f"Intervals are over the {_count(numbers):,} groups of {groups}{own}.")
    return numbers


def compare(
    scores: Sequence[float], others: Sequence[float], groups: NDArray[np.int64] | None = None
) -> Difference:
    """Compare two runs on the same images, in the same order, with an interval as `average`."""
    differences = [a - b for a, b in zip(scores, others, strict=True)]
    return Difference(
        mean(others),
        mean(differences),
        bootstrap_interval(differences, groups),
        sum(difference > 0 for difference in differences),
        sum(difference < 0 for difference in differences),
        _count(groups),
    )


def measure(
    name: str,
    scores: Sequence[float],
    *,
    by: Sequence[str] | None = None,
    others: Sequence[float] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Measure:
    """Average scores as a whole, split by something, and against another run.

    Args:
        name: Printed name of the measure.
        scores: Score of each image, at least one.
        by: As for `average_by`.
        others: Score of each image in the other run.
        groups: As for `average`.
    """
    return Measure(
        name,
        tuple(scores),
        average(scores, groups),
        {} if by is None else average_by(scores, by, groups),
        None if others is None else compare(scores, others, groups),
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
    return (
        f"{found.mean:.4f} (95% interval {low:.3f} to {high:.3f}{_over(found.n_groups)}, "
        f"{found.n:,} {unit})"
    )


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
        f"(paired 95% interval {low:+.4f} to {high:+.4f}{_over(found.n_groups)})",
        f"better on {found.better:,}, worse on {found.worse:,}",
    ]


def _over(n_groups: int | None) -> str:
    return "" if n_groups is None else f" over {n_groups:,} groups"
