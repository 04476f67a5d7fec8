"""The table as Markdown, the bars and the learning curves as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from annotator.evaluation.measures import bootstrap_interval

_OURS, _OTHER = "#2f6f9f", "#9aa5b1"
_COLOURS = ("#2f6f9f", "#c2571a", "#5b8c3a", "#7b5aa6")


def markdown(record: dict[str, Any]) -> str:
    """The whole table, with what one has to know to read it."""
    rows = record["rows"]
    sides, costs = record["collection"], record["machine"]
    sources = list(rows[0]["by"])
    bands = rows[0]["bands"]
    head = ["", "F1", "95 %", *sources, "macro", *bands, "build s", "CPU s", "predict s", "CPU s"]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" + " ---: |" * (len(head) - 1)]
    for row in rows:
        cells = [row["name"], _figure(row["f1"]), "–".join(_figure(e) for e in row["interval"])]
        cells += [_figure(row["by"][source]["f1"]) for source in sources]
        cells += [_figure(row["macro_f1"])]
        cells += [_figure(band["f1"]) for band in row["bands"].values()]
        cells += [f"{value:.1f}" for side in ("build", "predict") for value in row[side].values()]
        lines.append(f"| {' | '.join(cells)} |")
    counts = "; ".join(
        f"{name}: {band['concepts']} concepts, {band['annotations']} true annotations"
        for name, band in bands.items()
    )
    notes = [
        f"{sides['train']} training and {sides['test']} test images, {sides['concepts']} concepts. "
        f"Encoder {record['embedder']}. {costs['cpu']}, {costs['cores']} cores.",
        "F1: mean over all test images of the F1 of its concepts, with its 95 % bootstrap "
        "interval. Macro: mean over the concepts of the test side of each one's F1.",
        "Bands: micro F1 over the concepts that so many training images have (" + counts + "). "
        f"{sides['unseen_concepts']} concepts of the test side, with "
        f"{sides['unseen_annotations']} annotations, occur on no training image.",
        "Build: all that is done once, tuning and embedding included; every row is charged as if "
        "it had run alone. Everything is tuned on the training side.",
    ]
    return "\n".join([*lines, "", *(note + "\n" for note in notes)])


def plot_bars(record: dict[str, Any], path: Path) -> None:
    """F1 of each row with its interval."""
    from matplotlib.figure import Figure

    rows = record["rows"][::-1]
    figure = Figure(figsize=(8.5, 0.34 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    f1 = [row["f1"] for row in rows]
    spread = [
        [row["f1"] - row["interval"][0] for row in rows],
        [row["interval"][1] - row["f1"] for row in rows],
    ]
    colours = [_OURS if row["key"].startswith("ours") else _OTHER for row in rows]
    axes.barh(range(len(rows)), f1, xerr=spread, color=colours, height=0.7, ecolor="#333333")
    for y, row in enumerate(rows):
        axes.text(row["interval"][1] + 0.01, y, _figure(row["f1"]), va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set(
        xlim=(0, 1.08),
        xlabel=f"F1, mean over {record['collection']['test']} test images, 95 % interval",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.01)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def plot_curves(curves: Sequence[dict[str, Any]], path: Path) -> None:
    """F1 by number of training images, one panel a source, with bands.

    A band is the 95 % bootstrap interval over test images of the mean over seeds.
    """
    from matplotlib.figure import Figure

    sources = list(dict.fromkeys(point["source"] for point in curves))
    figure = Figure(figsize=(5 * len(sources), 4), layout="constrained")
    panels = figure.subplots(1, len(sources), squeeze=False)[0]
    for axes, source in zip(panels, sources, strict=True):
        here = [point for point in curves if point["source"] == source]
        for colour, row in zip(_COLOURS, dict.fromkeys(p["key"] for p in here), strict=False):
            points = [p for p in here if p["key"] == row]
            x = [sum(p["training_images"]) / len(p["training_images"]) for p in points]
            y = [sum(p["f1"]) / len(p["f1"]) for p in points]
            ends = [bootstrap_interval(p["image_f1"]) for p in points]
            axes.plot(x, y, "o-", color=colour, label=points[0]["name"], markersize=4)
            low, high = zip(*ends, strict=True)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        tested = len(here[0]["image_f1"])
        axes.set(title=source, xlabel="training images of this source", ylim=(0, 1))
        axes.set_ylabel(f"F1 on its {tested} test images")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(loc="lower right", frameon=False, fontsize=9)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
