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
    whole = Mean(evaluation.n_images, evaluation.f1, evaluation.interval, evaluation.n_groups)
    lines = [
        f"F1 {render_mean(whole)}",
        f"   {evaluation.f1!r} by the {evaluation.scorer} scorer, all digits",
    ]
    if evaluation.secondary:
        lines += [
            f"Secondary F1 {render_mean(evaluation.secondary)}",
            f"   {evaluation.secondary.mean!r}, all digits",
        ]
    sides: list[Row] = [
        ["mean over images", evaluation.precision, evaluation.recall],
        ["micro", evaluation.micro_precision, evaluation.micro_recall],
    ]
    partial = evaluation.hierarchical
    if partial is not None:
        lines += [
            f"Hierarchical F1, mean over images {render_mean(partial.f1)}",
            f"Hierarchical F1, micro {render_mean(partial.micro_f1)}",
        ]
        sides += [
            ["hierarchical, mean over images", partial.precision, partial.recall],
            ["hierarchical, micro", partial.micro_precision, partial.micro_recall],
        ]
    lines += section("Precision and recall", columns(["", "precision", "recall"], sides))
    if evaluation.per_group:
        lines += section("By group", render_groups(evaluation.per_group, "images", "F1"))
    if partial is not None and partial.per_group:
        table = render_groups(partial.per_group, "images", "F1")
        lines += section("Hierarchical F1 by group, mean over images", table)
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
    if partial is not None and partial.unknown:
        lines += section(
            f"Concepts that the hierarchy lacks, which count as their own: "
            f"{len(partial.unknown):,}",
            _some(partial.unknown),
        )
    if partial is not None and partial.labelled_roots:
        lines += section(
            "Labels that are roots of the hierarchy, which count as nobody's ancestors: "
            f"{len(partial.labelled_roots):,}",
            _some(partial.labelled_roots),
        )
    if evaluation.left_out:
        lines += ["", f"Left out, since their ground truth is empty: {evaluation.left_out:,}"]
    return "\n".join(lines)


def _some(ids: Sequence[str]) -> list[str]:
    return [*ids[:SHOWN], "..."] if len(ids) > SHOWN else list(ids)
