"""The card of a fitted encoder: what it was fitted to and how, and how training went."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict

from annotator.fitting.folder import FitRecord
from annotator.fitting.train import TrainedBranch

_COLOURS = ("#1f5f99", "#d9480f", "#2b8a3e", "#7048a8", "#f08c00", "#12a5a5")


def held_out_f1(branches: Sequence[TrainedBranch]) -> tuple[float, float]:
    """F1 of vote and head in the epochs that were kept, over all images that were held out."""
    held = [branch for branch in branches if branch.held_out]
    images = sum(branch.held_out for branch in held)
    vote = sum(branch.best.vote_f1 * branch.held_out for branch in held) / images
    return vote, sum(branch.best.head_f1 * branch.held_out for branch in held) / images


def write_card(
    record: FitRecord, branches: Sequence[TrainedBranch], cost: tuple[float, float]
) -> str:
    """The card in Markdown.

    Args:
        record: What was fitted, to what and how.
        branches: The trained branches.
        cost: Seconds and CPU seconds of the whole fit.
    """
    vote, head = held_out_f1(branches)
    held_out = sum(branch.held_out for branch in branches)
    folds = sum(branch.held_out > 0 for branch in branches)
    trained = f"{folds}, each trained without a fold of its own, and one that was trained on all"
    if len(branches) == folds == 1:
        trained = "1, trained without a fifth of the groups"
    lines = [
        f"# {record.base}, fitted",
        "",
        "A network of images, fine-tuned on the concepts of a collection by `annotator "
        "fit-encoder`. `annotator build-index --embedder fitted:FOLDER` makes an index with it.",
        "",
        "**Not for clinical use.** It has not been evaluated for diagnosis or treatment. It knows "
        "what its collection taught it: images of other scanners, patients or places may look "
        "otherwise to it. It holds neither images nor labels, but weights trained on images can "
        "give away something about them, and the digests of the files tell whether an image was "
        "among them: pass it on only to whom the images could be passed on.",
        "",
        "| | |",
        "| --- | --- |",
        f"| Fitted to | {record.images:,} images in {record.groups:,} groups |",
        f"| Concepts | {len(record.concepts):,} of {record.all_concepts:,} |",
        f"| Branches | {trained} |",
        f"| Mirror images | {'yes' if record.flip else 'no'} |",
        f"| F1 of the vote | {vote:.4f} on {held_out:,} held-out images |",
        f"| F1 of the head | {head:.4f} on the same |",
        f"| Cost | {cost[0]:,.0f} seconds, {cost[1]:,.0f} CPU seconds |",
        "",
        "The vote is that of the branch's own features alone, with fixed parameters. Epochs were "
        "chosen by it, so it is a little too good; an index's own estimate is the one to go by.",
        "",
        "![F1 against epochs and time](curves.png)",
        "",
        "| Branch | Epoch | Loss | F1 of the vote | F1 of the head | Seconds | CPU seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for number, branch in enumerate(branches, 1):
        for epoch in branch.curve:
            kept = " (kept)" if epoch == branch.best else ""
            f1 = f"{epoch.vote_f1:.4f} | {epoch.head_f1:.4f}" if branch.held_out else "– | –"
            lines.append(
                f"| {number} | {epoch.epoch}{kept} | {epoch.loss:.4f} | {f1} | "
                f"{epoch.seconds:,.0f} | {epoch.cpu_seconds:,.0f} |"
            )
    lines += ["", "| Setting | Value |", "| --- | --- |", f"| seed | {record.seed} |"]
    lines += [f"| {name} | {value} |" for name, value in asdict(record.recipe).items()]
    return "\n".join(lines) + "\n"


def draw_curves(branches: Sequence[TrainedBranch]) -> bytes:
    """The F1 of vote and head of each branch, against epochs and against time, as PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for number, branch in enumerate(b for b in branches if b.held_out):
        colour = _COLOURS[number % len(_COLOURS)]
        epochs = [epoch.epoch for epoch in branch.curve]
        minutes = [epoch.seconds / 60 for epoch in branch.curve]
        for panel, x in zip(panels, (epochs, minutes), strict=True):
            vote = [epoch.vote_f1 for epoch in branch.curve]
            head = [epoch.head_f1 for epoch in branch.curve]
            label = f"branch {number + 1}"
            panel.plot(x, vote, "o-", color=colour, label=f"{label}, vote")
            panel.plot(x, head, "s--", color=colour, alpha=0.6, label=f"{label}, head")
    for panel, name in zip(panels, ("Epoch", "Minutes of the branch"), strict=True):
        panel.set(xlabel=name)
        panel.grid(alpha=0.3)
    panels[0].set(ylabel="F1 on held-out images")
    panels[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    file = io.BytesIO()
    figure.savefig(file, dpi=110)
    return file.getvalue()
