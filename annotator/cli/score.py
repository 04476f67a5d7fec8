"""`annotator evaluate` and `annotator validate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from annotator.cli.console import EXIT_OK, EXIT_PROBLEM, say
from annotator.cli.options import file_path, json_option, names_option, side_options
from annotator.errors import AnnotatorError

_BELONGS = {
    "--scorer": "plain runs",
    "--secondary": "plain runs",
    "--names": "plain runs",
    "--bertscore": "--captions",
    "--bertscore-layer": "--captions",
    "--k": "--ranking",
    "--items": "--ranking",
    "--relevant": "--ranking",
}


@click.command("evaluate")
@click.argument("run", type=file_path())
@click.argument("truth", type=file_path())
@click.option("--captions", is_flag=True, help="RUN and TRUTH are captions: ROUGE-1, BERTScore.")
@click.option("--ranking", is_flag=True, help="RUN is a ranking of similar items: nDCG, MAP.")
@click.option(
    "--scorer",
    type=click.Choice(["current", "legacy"]),
    default="current",
    show_default=True,
    help="current: 2022-2026; legacy: 2017-2020.",
)
@click.option("--secondary", type=file_path(), help="concepts_manual.csv, for the secondary score.")
@click.option(
    "--against", type=file_path(), help="Another run: the difference, with a paired interval."
)
@click.option("--by", metavar="FILE[:COLUMN]", help="The score of each value of this column, too.")
@click.option(
    "--bertscore",
    metavar="MODEL",
    help="With --captions: BERTScore by this model, a folder or a name on the hub; the task's is "
    "microsoft/deberta-xlarge-mnli.",
)
@click.option(
    "--bertscore-layer", type=click.IntRange(1), help="Its layer (default: the one published)."
)
@click.option(
    "--k", type=click.IntRange(1), default=10, show_default=True, help="With --ranking: the depth."
)
@click.option(
    "--items",
    type=file_path(),
    help="With --ranking: the concepts of what could be found, if TRUTH has those of the queries.",
)
@click.option(
    "--relevant",
    type=click.FloatRange(0, min_open=True),
    help="With --ranking: the least relevance that counts for MAP (judgements: 1, concepts: 0.5).",
)
@names_option
@side_options
@json_option
def evaluate_command(run: Path, truth: Path, as_json: bool, **options: Any) -> None:
    """Score RUN against TRUTH as the task's official evaluator does.

    \b
    annotator evaluate run.csv concepts.csv
    annotator evaluate run.csv concepts.csv --split split.csv --only test --by sources.csv:source
    annotator evaluate captions.csv test_captions.csv --captions --against nearest.csv
    annotator evaluate similar.csv test_concepts.csv --ranking --items train_concepts.csv
    """
    from annotator.tables.formats import select_side

    if options["captions"] and options["ranking"]:
        raise click.UsageError("--captions and --ranking exclude each other.")
    kind = next((f"--{kind}" for kind in ("captions", "ranking") if options[kind]), "plain runs")
    for option, owner in _BELONGS.items():
        name = option.removeprefix("--").replace("-", "_")
        source = click.get_current_context().get_parameter_source(name)
        if source is not click.core.ParameterSource.DEFAULT and owner != kind:
            raise click.UsageError(f"{option} belongs to {owner}.")
    ids = None
    if options["split"] is not None or options["only"] is not None:
        ids = select_side(_read_ids(truth, kind), options["split"], options["only"])
    evaluators = {"--captions": _captions, "--ranking": _ranking, "plain runs": _concepts}
    facts, text, hint = evaluators[kind](run, truth, ids, options)
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else text)
    if hint and not as_json:
        say(f"Next: {hint}")


def _read_ids(truth: Path, kind: str) -> list[str]:
    from annotator.tables.formats import read_ids
    from annotator.tables.ranking import is_qrels, read_qrels

    if kind == "--ranking" and is_qrels(truth):
        return list(read_qrels(truth))
    return read_ids(truth)


_Evaluated = tuple[dict[str, Any], str, str]  # for programs, for people, what to do next


def _concepts(run: Path, truth: Path, ids: set[str] | None, options: dict[str, Any]) -> _Evaluated:
    from annotator.evaluation.evaluation import evaluate
    from annotator.evaluation.measures import compare, render_difference
    from annotator.evaluation.report import render
    from annotator.render.text_table import section
    from annotator.tables.formats import read_names

    names = read_names(options["names"]) if options["names"] else None
    common = {"scorer": options["scorer"], "ids": ids}
    evaluation = evaluate(
        run, truth, secondary=options["secondary"], by=options["by"], names=names, **common
    )
    facts, text = evaluation.to_dict(), render(evaluation)
    if options["against"] is not None:
        other = evaluate(options["against"], truth, **common)
        scores = dict(zip(other.image_ids, other.image_scores.tolist(), strict=True))
        if scores.keys() != set(evaluation.image_ids):
            raise AnnotatorError(
                f"The scorer leaves out other images of {options['against']} than of {run}.",
                "Write both runs with the same separator.",
            )
        others = [scores[id_] for id_ in evaluation.image_ids]
        difference = compare(evaluation.image_scores.tolist(), others)
        facts["against"] = difference.to_dict()
        text += "\n".join(["", *section("F1 against the other run", render_difference(difference))])
    return facts, text, ""


def _captions(run: Path, truth: Path, ids: set[str] | None, options: dict[str, Any]) -> _Evaluated:
    from annotator.evaluation.captions import evaluate_captions
    from annotator.evaluation.measures import render_measured

    scorer = None
    if options["bertscore"] is not None:
        from annotator.evaluation.bertscore import BertScorer

        scorer = BertScorer(options["bertscore"], options["bertscore_layer"])
    elif options["bertscore_layer"] is not None:
        raise click.UsageError("--bertscore-layer belongs to --bertscore.")
    measured = evaluate_captions(
        run, truth, against=options["against"], bertscore=scorer, by=options["by"], ids=ids
    )
    hint = ""
    if options["against"] is None:
        hint = f"annotator evaluate {run} {truth} --captions --against OTHER, to compare two"
    elif scorer is None:
        hint = "add --bertscore MODEL, the task's other measure of words"
    elif options["by"] is None:
        hint = "add --by FILE:COLUMN, to see where the difference comes from"
    return measured.to_dict(), render_measured(measured), hint


def _ranking(run: Path, truth: Path, ids: set[str] | None, options: dict[str, Any]) -> _Evaluated:
    from annotator.evaluation.measures import render_measured
    from annotator.evaluation.ranking import evaluate_ranking

    measured = evaluate_ranking(
        run,
        truth,
        k=options["k"],
        items=options["items"],
        relevant=options["relevant"],
        against=options["against"],
        by=options["by"],
        ids=ids,
    )
    hint = ""
    if options["against"] is None:
        hint = f"annotator evaluate {run} {truth} --ranking --against OTHER, to compare two"
    elif options["by"] is None:
        hint = "add --by FILE:COLUMN, to see where the difference comes from"
    return measured.to_dict(), render_measured(measured), hint


@click.command("validate")
@click.argument("run", type=file_path())
@click.option(
    "--ids",
    "ids_file",
    type=file_path(),
    required=True,
    help="The test set's ids, in order: a list, or any table with them first.",
)
def validate_command(run: Path, ids_file: Path) -> int:
    """Check RUN as strictly as the submission check of 2026 does.

    \b
    annotator validate run.csv --ids test_ids.csv
    """
    from annotator.tables.formats import read_ids
    from annotator.tables.run import validate_run

    ids = read_ids(ids_file)
    problems = validate_run(run, ids)
    for problem in problems:
        click.echo(f"{run}:{problem.line}: {problem.message}")
    say(
        f"{len(problems)} problems." if problems else f"{run} is a valid run for {len(ids)} images."
    )
    return EXIT_PROBLEM if problems else EXIT_OK
