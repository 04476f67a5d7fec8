"""Text report of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from annotator.evaluation.measures import Mean, render_groups, render_mean
from annotator.render.text_table import Row, columns, section

if TYPE_CHECKING:
    from annotator.evaluation.evaluation import Evaluation

SHOWN = 10  # rows per list; `Evaluation.to_dict` has all


def render(evaluation: Evaluation) -> str:
    """Render an evaluation as text for the terminal, without a trailing line end."""
    whole = Mean(evaluation.n_images, evaluation.f1, evaluation.interval)
    lines = [
        f"F1 {render_mean(whole)}",
        f"   {evaluation.f1!r} by the {evaluation.scorer} scorer, all digits",
    ]
    if evaluation.secondary:
        lines += [
            f"Secondary F1 {render_mean(evaluation.secondary)}",
            f"   {evaluation.secondary.mean!r}, all digits",
        ]
    lines += section(
        "Precision and recall",
        columns(
            ["", "precision", "recall"],
            [
                ["mean over images", evaluation.precision, evaluation.recall],
                ["micro", evaluation.micro_precision, evaluation.micro_recall],
            ],
        ),
    )
    if evaluation.per_group:
        lines += section("By group", render_groups(evaluation.per_group, "images", "F1"))
    true = [concept for concept in evaluation.per_concept if concept.truth]
    lines += section(
        f"Concepts: macro F1 {evaluation.macro_f1:.4f} over the {len(true):,} of the ground truth; "
        f"the {min(SHOWN, len(true))} most frequent",
        columns(
            ["CUI", "name", "truth", "run", "TP", "precision", "recall", "F1"],
            [
                [c.cui, c.name, c.truth, c.run, c.true_positives, c.precision, c.recall, c.f1]
                for c in true[:SHOWN]
            ],
        ),
    )
    missed: list[Row] = [[c.cui, c.name, c.missed, c.truth] for c in evaluation.most_missed[:SHOWN]]
    if missed:
        lines += section("Most missed", columns(["CUI", "name", "missed", "of"], missed))
    invented: list[Row] = [
        [c.cui, c.name, c.invented, c.run] for c in evaluation.most_invented[:SHOWN]
    ]
    if invented:
        lines += section("Most invented", columns(["CUI", "name", "invented", "of"], invented))
    if evaluation.skipped:
        lines += section(
            f"Left out, since the official evaluator takes a row for a header where its id has the "
            f"letters ID: {len(evaluation.skipped):,}",
            _some(evaluation.skipped),
        )
    if evaluation.left_out:
        lines += ["", f"Left out, since their ground truth is empty: {evaluation.left_out:,}"]
    return "\n".join(lines)


def _some(ids: Sequence[str]) -> list[str]:
    return [*ids[:SHOWN], "..."] if len(ids) > SHOWN else list(ids)
