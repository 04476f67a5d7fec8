"""`annotator relabel` and `annotator history`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from annotator.cli.console import EXIT_OK, EXIT_PARTIAL, say, write_result
from annotator.cli.options import (
    file_path,
    index_option,
    label_column_option,
    mapping_option,
    names_option,
    output_option,
)
from annotator.cli.sections import Command, option
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from index.corrections import Correction
    from index.protocols import IndexLocation

_SHOWN = 10  # ids in a message


@click.command("relabel", cls=Command, short_help="Change the labels of images in an index.")
@click.argument("corrections", type=file_path())
@index_option
@label_column_option
@mapping_option
@names_option
@option("Input", "--by", metavar="NAME", help="Who made the corrections [the user].")
@option("Input", "--reason", default="", help="Why, for rows without a column `reason`.")
def relabel_command(
    corrections: Path,
    place: IndexLocation,
    label_column: tuple[str, ...],
    mapping: Path | None,
    names: Path | None,
    by: str | None,
    reason: str,
) -> int:
    """Change the labels of images that an index has, by a table, without their pictures.

    CORRECTIONS has all concepts of each image, as tables of labels and exports of Label Studio have
    them, or what changes, in columns called `add` and `remove`. Nothing is embedded; the vote has
    the new labels at once, and `annotator tune` tunes on them. Who changed what, when and why stays
    in the index: `annotator history`.

    \b
    annotator relabel corrected.csv --reason "second reading"
    printf 'ID,add,remove\\nscan7,C0032285,C1260873\\n' > fix.csv && annotator relabel fix.csv
    """
    from annotator.concepts.mapping import read_mapping
    from annotator.concepts.names import cuis_of_names, read_names, read_terms
    from annotator.indexing.correct import relabel_images
    from annotator.tables.corrections import read_corrections

    of_words = read_mapping(mapping) if mapping else {}
    table = read_corrections(corrections, column=label_column, mapping=of_words)
    if table.shown and table.names:
        terms = [(cui, name, 1) for cui, name in place.open().names.items()]
        by_name = cuis_of_names(table.names, [*terms, *(read_terms(names) if names else ())])
        table = read_corrections(corrections, column=label_column, mapping={**by_name, **of_words})
    say(table.understood)
    known = dict(table.names)
    if names is not None:
        held = {c for one in table.wanted.values() for c in (*(one.concepts or ()), *one.add)}
        known |= read_names(names, only=held)
    done = relabel_images(
        place, table.wanted, by=by, reason=reason, names=known, source=corrections
    )
    for note in done.notes:
        say(note)
    if done.unknown:
        say(f"Warning: not in the index, and left out: {_some(done.unknown)}", always=True)
    if done.new_concepts:
        words = tuple(known.get(cui, cui) for cui in done.new_concepts)
        say(f"Warning: no image of the index had these concepts: {_some(words)}", always=True)
    change, n = done.change, len(done.corrections)
    same = f"; {done.unchanged:,} had these labels already" if done.unchanged else ""
    if n:
        images = f"{n:,} image{'s' * (n > 1)}"
        say(f"{place}: version {change.version}, labels changed on {images}{same}.")
        say(f"Next: annotator tune --index {place}, once there are many corrections.")
    else:
        say(f"{place}: version {change.version} as before, no labels to change{same}.")
    return EXIT_PARTIAL if done.unknown else EXIT_OK


def _some(values: Sequence[str]) -> str:
    """How many there are, and the first of them."""
    more = ", …" if len(values) > _SHOWN else ""
    return f"{len(values):,} ({', '.join(values[:_SHOWN])}{more})."


@click.command("history", cls=Command, short_help="Who changed which labels, when and why.")
@click.argument("ids", nargs=-1)
@index_option
@option(
    "Output",
    "--format",
    "format_",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    help="json: JSON lines; csv: the labels that corrected images have now, for `relabel`.",
)
@output_option
def history_command(
    ids: tuple[str, ...],
    place: IndexLocation,
    format_: Literal["table", "json", "csv"],
    output: Path | None,
) -> int:
    """Show the corrections of an index, oldest first: all of them, or those of the images IDS.

    \b
    annotator history
    annotator history scan7 --format json
    annotator history --format csv > corrections.csv
    """
    found = [one for one in place.history() if not ids or one.image_id in ids]
    if ids and not found:
        known = set(place.open().with_ids(ids).ids)
        if unknown := [id_ for id_ in ids if id_ not in known]:
            raise AnnotatorError(
                f"{place} has no image {unknown[0]!r}, and no corrections of it.",
                "Give ids as the index has them.",
            )
    if not found:
        say("No corrections.")
    if format_ == "json":
        text = "".join(json.dumps(one.to_dict(), ensure_ascii=False) + "\n" for one in found)
    else:
        text = _present_labels(found) if format_ == "csv" else _in_a_table(found)
    write_result(text, output)
    return EXIT_OK


def _in_a_table(corrections: Sequence[Correction]) -> str:
    from annotator.render.text_table import columns

    if not corrections:
        return ""
    header = ["when", "who", "image", "added", "removed", "why"]
    rows = [
        [
            one.at,
            one.by,
            one.image_id,
            "(the image) " * (one.before is None) + _only_in(one.after, one.before),
            "(the image) " * (one.after is None) + _only_in(one.before, one.after),
            one.reason,
        ]
        for one in corrections
    ]
    return "".join(f"{line}\n" for line in columns(header, rows, whole="image"))


def _only_in(some: Sequence[str] | None, others: Sequence[str] | None) -> str:
    return ";".join(cui for cui in some or () if cui not in (others or ()))


def _present_labels(corrections: Sequence[Correction]) -> str:
    """The labels that the images had after their last correction, as a table of labels."""
    import csv
    import io

    last = {one.image_id: one for one in corrections}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["ID", "CUIs"])
    for id_, one in last.items():
        if one.after is not None:
            writer.writerow([id_, ";".join(one.after)])
    return file.getvalue()
