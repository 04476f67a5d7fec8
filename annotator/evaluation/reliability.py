"""Reliability of a run: whether its probabilities, and its expected F1, come true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annotator.errors import FormatError
from annotator.evaluation.official_f1 import Scored
from annotator.render.plots import plotted
from annotator.render.text_table import Row, columns, section
from annotator.tables.annotations import Annotated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from annotator.evaluation.hierarchical import Hierarchical

_BINS = 10
_INK = "#2f6f9f"
_FAINT = "#8a8a8a"


@dataclass(frozen=True)
class Bin:
    """Predictions of about the same value.

    Attributes:
        predicted: Their mean.
        observed: Mean of what came out.
        count: Their number.
    """

    predicted: float
    observed: float
    count: int


@dataclass(frozen=True)
class Reliability:
    """Predictions against what came out.

    Attributes:
        of: What was predicted: `probability` or `score` of a concept, or `expected F1`.
        came_out: What came out.
        unit: What is counted.
        bins: At most ten bins of about equal size (`binned`).
    """

    of: str
    came_out: str
    unit: str
    bins: tuple[Bin, ...]

    @property
    def count(self) -> int:
        """Number of predictions."""
        return sum(each.count for each in self.bins)

    @property
    def error(self) -> float:
        """Expected calibration error (Naeini, Cooper and Hauskrecht 2015) over the bins: the mean
        distance between prediction and outcome.
        """
        distances = (abs(each.predicted - each.observed) * each.count for each in self.bins)
        return sum(distances) / self.count

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        bins = [asdict(each) for each in self.bins]
        return {"of": self.of, "count": self.count, "error": self.error, "bins": bins}


@dataclass(frozen=True)
class RunReliability:
    """Reliability of a run.

    Attributes:
        concepts: Of the probabilities of its concepts, or of their scores where some have no
            probability; None without concepts.
        expected_f1: Of the expected F1 of its images; None if none could be used.
    """

    concepts: Reliability | None
    expected_f1: Reliability | None

    @property
    def parts(self) -> list[Reliability]:
        """What there is of both."""
        return [part for part in (self.concepts, self.expected_f1) if part is not None]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "concepts": self.concepts and self.concepts.to_dict(),
            "expected_f1": self.expected_f1 and self.expected_f1.to_dict(),
        }


def binned(
    predicted: NDArray[np.float64],
    observed: NDArray[np.float64],
    most: int = _BINS,
    *,
    weights: NDArray[np.float64] | None = None,
) -> tuple[Bin, ...]:
    """Average predictions and outcomes in bins of about equal size, lowest predictions first.

    Equal predictions are in one bin, so that the bins do not depend on the order.

    Args:
        predicted: float64[n].
        observed: float64[n].
        most: Maximum number of bins, at least 1.
        weights: float64[n], positive, whose sum is the size of a bin; None for the number of
            predictions. The means are not weighted.
    """
    import numpy as np

    if not len(predicted):
        return ()
    order = np.argsort(predicted, kind="stable")
    sizes = np.cumsum(np.ones(len(predicted)) if weights is None else weights[order])
    inner = np.searchsorted(sizes, sizes[-1] * np.arange(1, most) / most, side="right")
    edges = np.unique(predicted[order[np.minimum(inner, len(order) - 1)]])
    of_bin = np.searchsorted(edges, predicted, side="right")
    counts = np.bincount(of_bin)
    kept = np.flatnonzero(counts)
    means = [np.bincount(of_bin, values)[kept] / counts[kept] for values in (predicted, observed)]
    rows = zip(*(column.tolist() for column in (*means, counts[kept])), strict=True)
    return tuple(Bin(*row) for row in rows)


def reliability_of(
    scored: Scored, annotations: Sequence[Annotated], hierarchical: Hierarchical | None = None
) -> RunReliability | None:
    """Compare the probabilities and expected F1 of annotations with a ground truth.

    Images that could not be used promise nothing, and are left out. What was chosen over a
    hierarchy promises hierarchical scores: it is compared with those.

    Args:
        scored: The annotations, scored as a run.
        annotations: What `read_annotations` has read of them.
        hierarchical: Their hierarchical scores, if they are known.

    Returns:
        None for annotations over a hierarchy whose hierarchical scores are not known.
    """
    import numpy as np

    came_out: Scored | Hierarchical = scored
    f1_name = "F1"
    if any(annotated.hierarchical for annotated in annotations):
        if hierarchical is None:
            return None
        came_out, f1_name = hierarchical, "hierarchical F1"
    by_id = {annotated.id: annotated for annotated in annotations}
    calibrated = all(by_id[image_id].probabilities is not None for image_id in scored.ids)
    shares: list[float] = []
    right: list[bool] = []
    expected: list[float] = []
    f1: list[float] = []
    for image_id, truth, score in zip(came_out.ids, came_out.truth, came_out.scores, strict=True):
        annotated = by_id[image_id]
        if annotated.expected_f1 is None:
            continue
        values = annotated.probabilities if calibrated else annotated.scores
        assert values is not None
        shares += values
        right += [cui.upper() in truth for cui in annotated.cuis]
        expected.append(annotated.expected_f1)
        f1.append(score)
    of_concepts = binned(np.array(shares), np.array(right, np.float64))
    of_images = binned(np.array(expected), np.array(f1))
    of = "probability" if calibrated else "score"
    return RunReliability(
        Reliability(of, "share right", "concepts", of_concepts) if of_concepts else None,
        Reliability(f"expected {f1_name}", f1_name, "images", of_images) if of_images else None,
    )


def render_reliability(found: RunReliability) -> list[str]:
    """Render a table of each part, in sections."""
    lines: list[str] = []
    for part in found.parts:
        rows: list[Row] = [[each.predicted, each.observed, each.count] for each in part.bins]
        title = f"Reliability of the {part.of}: calibration error {part.error:.4f}"
        header = [part.of, part.came_out, part.unit]
        lines += section(title, columns(header, rows, decimals=3))
    return lines


def plot_reliability(found: RunReliability, path: Path | str) -> None:
    """Draw a reliability diagram of each part (DeGroot and Fienberg 1983).

    The output is reproducible, byte for byte, with the same version of matplotlib.

    Args:
        found: From `reliability_of`.
        path: Output file: `.png`, `.svg` or `.pdf`.

    Raises:
        FormatError: There is nothing to draw, or the extension is unsupported.
    """
    if not found.parts:
        raise FormatError("no image of the run could be used, so there is nothing to draw")
    with plotted(path, (4.8 * len(found.parts), 4.6)) as figure:
        panels = figure.subplots(1, len(found.parts), squeeze=False)[0]
        for axes, part in zip(panels, found.parts, strict=True):
            _draw(axes, part)


def _draw(axes: Any, part: Reliability) -> None:
    """Outcome over prediction; on the diagonal, predictions come true."""
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1, linestyle="--")
    axes.plot(
        [each.predicted for each in part.bins],
        [each.observed for each in part.bins],
        color=_INK,
        marker="o",
        markersize=5,
        clip_on=False,
    )
    axes.text(0.97, 0.03, "too sure", transform=axes.transAxes, ha="right", color=_FAINT)
    axes.text(0.03, 0.93, "too cautious", transform=axes.transAxes, color=_FAINT)
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        aspect="equal",
        xlabel=part.of,
        ylabel=part.came_out,
        title=f"calibration error {part.error:.3f}, {part.count:,} {part.unit}",
    )
    axes.title.set_fontsize(10)
    axes.spines[["top", "right"]].set_visible(False)
