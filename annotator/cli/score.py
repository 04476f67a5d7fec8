"""`annotator evaluate` and `annotator validate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from annotator.cli.console import EXIT_OK, EXIT_PROBLEM, say
from annotator.cli.options import (
    file_path,
    is_given,
    json_option,
    label_column_option,
    mapping_option,
    names_option,
    side_options,
)
from annotator.cli.sections import Command, option
from annotator.cli.semantic_types import TypeOptions, type_options
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from annotator.evaluation.official_f1 import Scorer
    from annotator.tables.labels import Labels

_BELONGS = {
    "--scorer": "plain runs",
    "--secondary": "plain runs",
    "--label-column": "plain runs",
    "--mapping": "plain runs",
    "--names": "plain runs",
    "--hierarchy": "plain runs",
    "--types": "plain runs",
    "--plot": "plain runs",
    "--semantic-types": "plain runs",
    "--bertscore": "--captions",
    "--bertscore-layer": "--captions",
    "--k": "--ranking",
    "--items": "--ranking",
    "--relevant": "--ranking",
}


@click.command(
    "evaluate", cls=Command, short_help="Score a run like the official evaluator of the task."
)
@click.argument("run", type=file_path())
@click.argument("truth", type=file_path())
@option("Scoring", "--captions", is_flag=True, help="Score captions: ROUGE-1, BERTScore.")
@option("Scoring", "--ranking", is_flag=True, help="Score rankings of similar items: nDCG, MAP.")
@option(
    "Scoring",
    "--scorer",
    type=click.Choice(["current", "legacy"]),
    default="current",
    help="Official scorer: current (2022-2026) or legacy (2017-2020).",
)
@option(
    "Scoring", "--secondary", type=file_path(), help="concepts_manual.csv for the secondary score."
)
@option(
    "Scoring",
    "--hierarchy",
    type=file_path(),
    help="Also give partial credit (hierarchical F1): table of concept and parent, MRREL.RRF or "
    "MRHIER.RRF.",
)
@option(
    "Scoring",
    "--against",
    type=file_path(),
    help="Other run to compare with: difference and paired interval.",
)
@option("Scoring", "--by", metavar="FILE[:COLUMN]", help="Table of groups to score separately.")
@option(
    "Scoring",
    "--groups",
    metavar="FILE[:COLUMN]",
    help="Table with the patient or study of each image: intervals are over these groups.",
)
@option(
    "Scoring",
    "--plot",
    type=file_path(dir_okay=False),
    metavar="FILE",
    help="With a RUN in JSON lines: draw the reliability of its probabilities and expected F1 "
    "(.png, .svg or .pdf).",
)
@option(
    "Captions",
    "--bertscore",
    metavar="MODEL",
    help="With --captions: model for BERTScore, a folder or a name on the hub (the task uses "
    "microsoft/deberta-xlarge-mnli).",
)
@option(
    "Captions",
    "--bertscore-layer",
    type=click.IntRange(1),
    help="Layer of the BERTScore model (default: the published one).",
)
@option(
    "Rankings",
    "--k",
    type=click.IntRange(1),
    default=10,
    help="With --ranking: cutoff rank.",
)
@option(
    "Rankings",
    "--items",
    type=file_path(),
    help="With --ranking: concepts of the ranked items, if TRUTH has only those of the queries.",
)
@option(
    "Rankings",
    "--relevant",
    type=click.FloatRange(0, min_open=True),
    help="With --ranking: relevance threshold of MAP (default: judgements 1, concepts 0.5).",
)
@label_column_option
@mapping_option
@names_option
@side_options
@type_options
@json_option
def evaluate_command(
    run: Path,
    truth: Path,
    captions: bool,
    ranking: bool,
    scorer: Scorer,
    secondary: Path | None,
    hierarchy: Path | None,
    against: Path | None,
    by: str | None,
    groups: str | None,
    plot: Path | None,
    bertscore: str | None,
    bertscore_layer: int | None,
    k: int,
    items: Path | None,
    relevant: float | None,
    label_column: tuple[str, ...],
    mapping: Path | None,
    names: Path | None,
    split: str | None,
    only: str | None,
    type_filter: TypeOptions,
    as_json: bool,
) -> None:
    """Score RUN against TRUTH like the official evaluator of the task.

    RUN is a run of any year, or what `annotate --format jsonl` wrote: of that also the reliability
    is printed, which says whether probabilities and expected F1 come true.

    \b
    annotator evaluate run.csv concepts.csv
    annotator evaluate run.csv concepts.csv --split split.csv --only test --by sources.csv:source
    annotator evaluate run.csv concepts.csv --groups patients.csv
    annotator evaluate run.csv concepts.csv --hierarchy hierarchy.csv --against other.csv
    annotator evaluate run.csv concepts.csv --semantic-types MRSTY.RRF
    annotator evaluate run.jsonl concepts.csv --plot reliability.png
    annotator evaluate captions.csv test_captions.csv --captions --against nearest.csv
    annotator evaluate similar.csv test_concepts.csv --ranking --items train_concepts.csv
    """
    from annotator.tables.formats import select_side

    if captions and ranking:
        raise click.UsageError("--captions and --ranking are mutually exclusive.")
    _check_options("--captions" if captions else "--ranking" if ranking else "plain runs")
    if bertscore_layer is not None and bertscore is None:
        raise click.UsageError("--bertscore-layer requires --bertscore.")
    labels = (
        None if captions or ranking else _read_labels(truth, run, scorer, label_column, mapping)
    )
    ids = None
    if split is not None or only is not None:
        notes: list[str] = []
        known = list(labels.concepts) if labels else _read_ids(truth, ranking)
        ids = select_side(known, split, only, notes)
        for note in notes:
            say(note)
    if not (captions or ranking):
        facts, text = _evaluate_concepts(
            run,
            labels or truth,
            ids,
            scorer,
            secondary,
            hierarchy,
            against,
            by,
            groups,
            names,
            type_filter,
            plot,
        )
        _print(facts, text, as_json)
        return

    from annotator.evaluation.measures import render_measured

    if captions:
        from annotator.evaluation.captions import evaluate_captions

        model = None
        if bertscore is not None:
            from annotator.evaluation.bertscore import BertScorer  # loads torch

            model = BertScorer(bertscore, bertscore_layer)
        measured = evaluate_captions(
            run, truth, against=against, bertscore=model, by=by, groups=groups, ids=ids
        )
    else:
        from annotator.evaluation.ranking import evaluate_ranking

        measured = evaluate_ranking(
            run,
            truth,
            k=k,
            items=items,
            relevant=relevant,
            against=against,
            by=by,
            groups=groups,
            ids=ids,
        )
    _print(measured.to_dict(), render_measured(measured), as_json)
    if as_json:
        return
    if against is None:
        kind = "--captions" if captions else "--ranking"
        say(f"Next: annotator evaluate {run} {truth} {kind} --against OTHER, to compare two")
    elif captions and bertscore is None:
        say("Next: add --bertscore MODEL, the task's other measure of words.")
    elif by is None:
        say("Next: add --by FILE:COLUMN, to see where the difference comes from.")


def _check_options(kind: str) -> None:
    """Reject options of another kind of run."""
    for name, owner in _BELONGS.items():
        if owner != kind and is_given(name.removeprefix("--").replace("-", "_")):
            raise click.UsageError(f"{name} belongs to {owner}.")


def _read_ids(truth: Path, ranking: bool) -> list[str]:
    from annotator.tables.formats import read_ids
    from annotator.tables.ranking import is_qrels, read_qrels

    return list(read_qrels(truth)) if ranking and is_qrels(truth) else read_ids(truth)


def _read_labels(
    truth: Path, run: Path, scorer: Scorer, column: tuple[str, ...], mapping: Path | None
) -> Labels | None:
    """The labels of a truth that is in no format of the task, and what was understood of it."""
    from annotator.concepts.mapping import read_mapping
    from annotator.evaluation.official_f1 import read_truth

    words = read_mapping(mapping) if mapping else None
    labels = read_truth(truth, run, scorer, column=column, mapping=words)
    if labels is not None:
        say(labels.understood)
    return labels


def _print(facts: dict[str, Any], text: str, as_json: bool) -> None:
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else text)


def _evaluate_concepts(
    run: Path,
    truth: Path | Labels,
    ids: set[str] | None,
    scorer: Scorer,
    secondary: Path | None,
    hierarchy: Path | None,
    against: Path | None,
    by: str | None,
    groups: str | None,
    names: Path | None,
    type_filter: TypeOptions,
    plot: Path | None,
) -> tuple[dict[str, Any], str]:
    """Evaluate a concept run; returns the JSON object and the text."""
    from annotator.concepts.names import read_names
    from annotator.evaluation.evaluation import evaluate_scored
    from annotator.evaluation.measures import compare, render_difference
    from annotator.evaluation.official_f1 import score
    from annotator.evaluation.reliability import (
        plot_reliability,
        reliability_of,
        render_reliability,
    )
    from annotator.evaluation.report import render
    from annotator.render.text_table import section
    from annotator.tables.annotations import is_annotations, read_annotations
    from annotator.tables.labels import Labels

    in_json_lines = is_annotations(run)
    if plot is not None and not in_json_lines:
        raise click.UsageError(f"--plot needs probabilities, and {run} is not in JSON lines.")
    scored = score(run, truth, scorer, ids)
    scored_other = None if against is None else score(against, truth, scorer, ids)
    present = frozenset().union(*scored.truth, *scored.run)
    known = dict(truth.names) if isinstance(truth, Labels) else {}
    if names is not None:
        known |= read_names(names, only=present)
    above = None
    if hierarchy is not None:
        from annotator.evaluation.hierarchical import read_hierarchy_of

        both = [scored] if scored_other is None else [scored, scored_other]
        above = read_hierarchy_of(hierarchy, both)
        for note in above.notes:
            say(note)
    found = evaluate_scored(
        scored,
        scorer=scorer,
        secondary=secondary,
        by=by,
        groups=groups,
        ids=ids,
        names=known,
        hierarchy=above,
    )
    for note in found.notes:
        say(note)
    facts, text = found.to_dict(), render(found)
    if in_json_lines:
        reliability = reliability_of(scored, read_annotations(run), found.hierarchical)
        facts["reliability"] = reliability and reliability.to_dict()
        if reliability is None:
            why = f"{run} was annotated over a hierarchy, so that scores and expected F1 count"
            why += " ancestors: whether they come true is seen with --hierarchy alone."
            if plot is not None:
                raise click.UsageError(why)
            say(why)
        else:
            text += "\n".join(["", *render_reliability(reliability)])
            if plot is not None:
                plot_reliability(reliability, plot)
                say(f"Plot: {plot}")
    if type_filter.given:
        from annotator.evaluation.by_type import render_by_type, score_by_type

        per_type = score_by_type(scored, *type_filter.read(present), found.groups)
        facts["per_type"] = [score.to_dict() for score in per_type]
        title = "By semantic type, over the images with such a concept"
        text += "\n".join(["", *section(title, render_by_type(per_type))])
    if scored_other is not None:
        other = evaluate_scored(scored_other, scorer=scorer, ids=ids, hierarchy=above)
        scores = dict(zip(other.image_ids, other.image_scores.tolist(), strict=True))
        if scores.keys() != set(found.image_ids):
            raise AnnotatorError(
                f"The scorer skips different images in {against} and {run}.",
                "Write both runs with the same separator.",
            )
        others = [scores[id_] for id_ in found.image_ids]
        difference = compare(found.image_scores.tolist(), others, found.groups)
        facts["against"] = difference.to_dict()
        text += "\n".join(["", *section("F1 against the other run", render_difference(difference))])
        if found.hierarchical is not None and other.hierarchical is not None:
            by_image, micro = found.hierarchical.against(other.hierarchical)
            facts["hierarchical"]["against"] = by_image.to_dict()
            facts["hierarchical"]["micro_against"] = micro.to_dict()
            for how, partial in (("mean over images", by_image), ("micro", micro)):
                title = f"Hierarchical F1, {how}, against the other run"
                text += "\n".join(["", *section(title, render_difference(partial))])
    return facts, text


@click.command("validate", cls=Command)
@click.argument("run", type=file_path())
@click.option(
    "--ids",
    "ids_file",
    type=file_path(),
    required=True,
    help="Ids of the test set, in order: a list, or a table with ids in its first column.",
)
@click.option(
    "--format",
    "year",
    type=click.Choice(["2019", "2021", "2024", "2025", "2026"]),
    help="Submission format by year (default: recognised by separator and header).",
)
def validate_command(run: Path, ids_file: Path, year: str | None) -> int:
    """Check RUN against the submission rules of its year.

    The rules of 2019 are those of 2017 to 2020, those of 2021 those of 2021 to 2023. In 2025 and
    2026 the rows must be in the order of the ids.

    \b
    annotator validate run.csv --ids test_ids.csv
    annotator validate run.csv --ids test_ids.csv --format 2025
    """
    from annotator.tables.formats import read_ids
    from annotator.tables.run import recognise_year, validate_run

    ids = read_ids(ids_file)
    recognised = recognise_year(run, ids)
    problems = validate_run(run, ids, year or recognised)
    for problem in problems:
        click.echo(f"{run}:{problem.line}: {problem.message}")
    rules = f"by the rules of {year or recognised}"
    if year is None:
        rules += ", recognised by its separator and header (or give --format)"
    if problems:
        say(f"{len(problems)} problems {rules}.")
    else:
        say(f"{run} is a valid run for {len(ids)} images {rules}.")
    return EXIT_PROBLEM if problems else EXIT_OK
