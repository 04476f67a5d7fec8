"""`annotator drift`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from annotator.cli.console import EXIT_OK, EXIT_PROBLEM, say
from annotator.cli.options import file_path
from annotator.cli.sections import Command

_MOST_SAID = 5


@click.command("drift", cls=Command, short_help="Compare new images with a reference.")
@click.argument("reference", type=file_path())
@click.argument("new", type=file_path())
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.01,
    help="Level of the tests: how often drift may be found where there is none.",
)
@click.option(
    "--format",
    "chosen_format",
    type=click.Choice(["table", "json"]),
    default="table",
    help="Table to read, or JSON.",
)
def drift_command(reference: Path, new: Path, alpha: float, chosen_format: str) -> int:
    """Compare NEW images with those of REFERENCE; both are what `annotate --format jsonl` wrote.

    Familiarity, expected F1 and the number of concepts are compared by the Kolmogorov-Smirnov test,
    the share of images with each concept by Fisher's exact test. The exit code is 1 if one of them
    has drifted. Of the images of a patient or study (`annotate --groups`) the first one counts.

    \b
    annotator annotate january/ --format jsonl > january.jsonl
    annotator annotate today/ --format jsonl > today.jsonl
    annotator drift january.jsonl today.jsonl
    """
    from annotator.evaluation.drift import drift, render_drift

    found = drift(reference, new, alpha=alpha)
    if chosen_format == "json":
        click.echo(json.dumps(found.to_dict(), indent=2))
    else:
        click.echo(render_drift(found), nl=False)
    if not found.found:
        say(f"No drift at the level of {alpha:g}.")
        return EXIT_OK
    more = len(found.found) - _MOST_SAID
    said = ", ".join(found.found[:_MOST_SAID]) + (f" and {more} more" if more > 0 else "")
    say(f"Drift at the level of {alpha:g}: {said}.")
    return EXIT_PROBLEM
