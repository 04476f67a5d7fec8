"""`annotator evaluate` and `annotator validate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from annotator.cli.console import EXIT_OK, EXIT_PROBLEM, say
from annotator.cli.options import file_path, json_option, names_option, side_options


@click.command("evaluate")
@click.argument("run", type=file_path())
@click.argument("truth", type=file_path())
@click.option(
    "--scorer",
    type=click.Choice(["current", "legacy"]),
    default="current",
    show_default=True,
    help="current: 2022-2026; legacy: 2017-2020.",
)
@click.option("--secondary", type=file_path(), help="concepts_manual.csv, for the secondary score.")
@click.option("--by", metavar="FILE[:COLUMN]", help="F1 for each value of this column, too.")
@names_option
@side_options
@json_option
def evaluate_command(run: Path, truth: Path, as_json: bool, **options: Any) -> None:
    """Score RUN against TRUTH as the task's official evaluator does.

    \b
    annotator evaluate run.csv concepts.csv
    annotator evaluate run.csv concepts.csv --split split.csv --only test --by sources.csv:source
    """
    from annotator.collection import select_side
    from annotator.score.evaluation import evaluate
    from annotator.score.report import render
    from annotator.tables.formats import read_ids, read_names

    restricted = options["split"] is not None or options["only"] is not None
    ids = select_side(read_ids(truth), options["split"], options["only"]) if restricted else None
    evaluation = evaluate(
        run,
        truth,
        scorer=options["scorer"],
        secondary=options["secondary"],
        by=options["by"],
        ids=ids,
        names=read_names(options["names"]) if options["names"] else None,
    )
    click.echo(
        json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False)
        if as_json
        else render(evaluation)
    )


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
