"""`annotator concepts match` and `annotator concepts label-studio`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotator.cli.console import say, write_result
from annotator.cli.options import file_path, index_option, label_column_option, output_option
from annotator.cli.sections import Command, Group, option

if TYPE_CHECKING:
    from annotator.concepts.mapping import Suggestion
    from index.protocols import IndexLocation

_SHOWN = 3


@click.group("concepts", cls=Group, short_help="Find the CUIs of labels in words.")
def concepts_command() -> None:
    """Work with the UMLS concepts of labels.

    \b
    annotator concepts match labels.xlsx --mrconso MRCONSO.RRF --output review.csv
    annotator concepts label-studio > config.xml
    """


@concepts_command.command("match", cls=Command)
@click.argument("labels", type=file_path())
@click.option(
    "--mrconso", type=file_path(), help="MRCONSO.RRF of a UMLS release; may be compressed."
)
@click.option("--names", type=file_path(), help="Table with the name of each CUI, instead.")
@label_column_option
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.75,
    help="Suggest concepts that are at least as sure; less sure ones are alternatives.",
)
@click.option(
    "--fuzzy/--no-fuzzy", default=True, help="Also match words that are spelt a little differently."
)
@output_option
def match_command(
    labels: Path,
    mrconso: Path | None,
    names: Path | None,
    label_column: tuple[str, ...],
    threshold: float,
    fuzzy: bool,
    output: Path | None,
) -> None:
    """Suggest the CUI of each word in LABELS, as a table to review.

    LABELS is a labelled table, as for `build-index`, or a list of words. Words are compared with
    the English names of the UMLS that are not suppressed: exactly, normalised (case, punctuation,
    word order, plural), and fuzzily. A word without a sure match, or with several that fit equally
    well, gets no CUI and stays a word. Edit the table, then give it to `build-index --mapping`.

    \b
    annotator concepts match labels.xlsx --mrconso MRCONSO.RRF --output review.csv
    annotator build-index images/ labels.xlsx --mapping review.csv
    """
    from annotator.concepts.mapping import render_suggestions
    from annotator.concepts.match import suggest
    from annotator.concepts.words import count_words

    source = mrconso or names
    if source is None or (mrconso and names):
        raise click.UsageError("Give one of --mrconso and --names.")
    words, understood = count_words(labels, column=label_column)
    say(understood)
    suggestions = suggest(words, source, threshold=threshold, fuzzy=fuzzy)
    write_result(render_suggestions(suggestions), output)
    _say_summary(suggestions)
    say(
        f"Next: review {output or 'the table'}, then "
        f"annotator build-index IMAGES {labels} --mapping {output or 'TABLE'}"
    )


@concepts_command.command("label-studio", cls=Command)
@index_option
@option(
    "Output",
    "--uploads",
    is_flag=True,
    help="For images that are uploaded to Label Studio: it takes none where scores are shown, too.",
)
@output_option
def label_studio_command(place: IndexLocation, uploads: bool, output: Path | None) -> None:
    """Print a labelling configuration for Label Studio with the concepts of an index.

    People choose names; exports have CUIs. It goes with the tasks of `annotate --format
    label-studio`, whose predictions name its choices.

    \b
    annotator concepts label-studio --index concept-index > config.xml
    annotator concepts label-studio --uploads > config.xml
    """
    from annotator.tables.label_studio import configuration

    stored = place.open()
    concepts = sorted(
        ((cui, stored.names.get(cui, "")) for cui in stored.concepts),
        key=lambda concept: ((concept[1] or concept[0]).casefold(), concept[0]),
    )
    write_result(configuration(concepts, with_scores=not uploads), output)


def _say_summary(suggestions: Sequence[Suggestion]) -> None:
    kinds = dict.fromkeys(("exact", "normalised", "fuzzy"), 0)
    for suggestion in suggestions:
        if suggestion.cui:
            kinds[suggestion.kind] += 1
    found = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    local = [s for s in suggestions if not s.cui]
    say(f"{len(suggestions)} words: {found}; {len(local)} without a CUI stay words.")
    named = [s for s in suggestions if s.kind in ("exact", "normalised")]
    several = [s for s in named if len(s.alternatives) + bool(s.cui) > 1]
    if several:
        say(
            f"{len(several)} may mean several concepts (see alternatives), such as "
            f"{', '.join(s.word for s in several[:_SHOWN])}."
        )
