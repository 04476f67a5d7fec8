"""`annotator info`, `annotator verify` and `annotator stats`, which change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from annotator.cli.console import EXIT_OK, EXIT_PROBLEM, say
from annotator.cli.guarantee import render_costs
from annotator.cli.options import (
    file_path,
    index_option,
    json_option,
    label_column_option,
    names_option,
)
from annotator.cli.sections import Command
from annotator.cli.semantic_types import TypeOptions, type_options
from annotator.cli.tune import estimate_in_words, new_source_in_words

if TYPE_CHECKING:
    from index.protocols import IndexLocation


@click.command("info", cls=Command, short_help="Show what an index holds and how it was built.")
@index_option
@json_option
def info_command(place: IndexLocation, as_json: bool) -> None:
    """Show the contents of an index and the settings it was built with.

    \b
    annotator info --index concept-index
    """
    from annotator.indexing.metadata import describe
    from annotator.knn.guarantees import Cost

    facts = describe(place.open(), place)
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    most_frequent, costs = facts.pop("most_frequent"), facts.pop("guarantees")
    if estimate := facts["estimate"]:
        facts["estimate"] = "; expect ".join(estimate_in_words(estimate))
    if new_source := facts["new_source"]:
        facts["new_source"] = new_source_in_words(new_source)
    for key, value in facts.items():
        if value is not None:
            click.echo(f"{key.replace('_', ' ')}: {_shown(value)}")
    click.echo("most frequent:")
    for row in most_frequent:
        click.echo(f"  {row['images']:7d}  {row['cui']}  {row['name']}".rstrip())
    for line in render_costs([Cost(**cost) for cost in costs]):
        click.echo(line)


@click.command("verify", cls=Command)
@index_option
def verify_command(place: IndexLocation) -> int:
    """Check an index: checksums, counts, norms, all that is stored for use, and probe searches.
    Repairs nothing.

    \b
    annotator verify --index concept-index
    """
    from annotator.indexing.verify import problems_of

    problems = problems_of(place)
    for problem in problems:
        click.echo(problem)
    many = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    say(f"{place}: {many}." if problems else f"{place} is sound.")
    return EXIT_PROBLEM if problems else EXIT_OK


@click.command("stats", cls=Command, short_help="Describe a concepts file: counts and frequencies.")
@click.argument("concepts", type=file_path())
@label_column_option
@names_option
@type_options
@click.option("--validation", type=file_path(), help="Second concepts file to compare with.")
@click.option(
    "--plot", type=file_path(dir_okay=False), help="Plot the distributions (.png, .svg or .pdf)."
)
def stats_command(
    concepts: Path,
    label_column: tuple[str, ...],
    names: Path | None,
    type_filter: TypeOptions,
    validation: Path | None,
    plot: Path | None,
) -> None:
    """Describe a concepts file: counts and frequencies of its concepts.

    \b
    annotator stats train_concepts.csv --names cui_mapping.csv --validation valid_concepts.csv
    annotator stats train_concepts.csv --types T047,T023 --semantic-types MRSTY.RRF
    """
    from annotator.concepts.names import read_names
    from annotator.evaluation.collection_stats import explore, plot_stats, render_stats
    from annotator.tables.labels import read_labels

    sides = [read_labels(concepts, column=label_column)]
    if validation is not None:
        sides.append(read_labels(validation, column=label_column))
    for labels in sides:
        say(labels.understood)
    first = sides[0].concepts
    second = sides[1].concepts if validation else None
    present = {concept for labels in sides for row in labels.concepts.values() for concept in row}
    known = {concept: name for labels in reversed(sides) for concept, name in labels.names.items()}
    if names is not None:
        known |= read_names(names, only=present)
    types = None
    if type_filter.given:
        types, tuis = type_filter.read(present)
        if tuis:
            types = types.only(tuis)
            first = {id_: tuple(c for c in row if c in types.of) for id_, row in first.items()}
            second = second and {
                id_: tuple(c for c in row if c in types.of) for id_, row in second.items()
            }
    stats = explore(first, known, second, types)
    click.echo(render_stats(stats))
    if plot:
        plot_stats(stats, plot)
        say(f"Plot: {plot}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)
