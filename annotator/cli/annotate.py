"""`annotator annotate`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from annotator.cli.console import EXIT_OK, EXIT_PARTIAL, say_failed, write_result
from annotator.cli.images import annotate_images, asking_options, given_images, which_options
from annotator.cli.options import file_path, index_option, voting_of, voting_options

if TYPE_CHECKING:
    from index.protocols import IndexLocation


@click.command("annotate")
@click.argument("images")
@index_option
@click.option(
    "--format",
    "year",
    default="2026",
    show_default=True,
    type=click.Choice(["2019", "2021", "2024", "2025", "2026", "jsonl"]),
    help="Submission format of that year, or a JSON object a line.",
)
@click.option("--zip", "zipped", is_flag=True, help="A zip that holds submission.csv.")
@click.option(
    "--explain", is_flag=True, help="With --format jsonl: the neighbours and their votes."
)
@click.option("--output", type=file_path(dir_okay=False), help="Write there instead of stdout.")
@which_options
@asking_options
@voting_options
def annotate_command(images: str, place: IndexLocation, year: str, **options: Any) -> int:
    """Annotate IMAGES (folder, file, glob, list file, Parquet) and print the run.

    Rows are sorted by id, or in the order of --ids. An image that cannot be used gets a row without
    CUIs, its reason goes to stderr, and the exit code is 3.

    \b
    annotator annotate test/ > run.csv
    annotator annotate test/ --ids test_ids.csv --zip > submission.zip
    annotator annotate scan.dcm --format jsonl --explain
    """
    from annotator.indexing.metadata import IndexMetadata
    from annotator.tables.run import render_run, zip_run

    is_run = year != "jsonl"
    if options["explain"] and is_run:
        raise click.UsageError("--explain belongs to --format jsonl.")
    if options["zipped"] and not is_run:
        raise click.UsageError("--zip belongs to the submission formats.")
    refs = given_images(images, options)
    if is_run:
        render_run(((ref.id, ()) for ref in refs), year)  # refuses bad ids before the work is done
    stored = place.open(whole=options["verify"], device=options["device"])
    voting = voting_of(options, IndexMetadata.of(stored).voting)
    rows: list[tuple[str, tuple[str, ...]]] = []
    lines: list[str] = []
    failed: list[tuple[str, str]] = []
    for annotation in annotate_images(
        place, stored, refs, voting, options, failed, with_neighbors=options["explain"]
    ):
        if is_run:
            rows.append((annotation.image_id, annotation.cuis))
        else:
            fields = annotation.to_dict(stored.names, explain=options["explain"])
            lines.append(json.dumps(fields, ensure_ascii=False) + "\n")
    result: str | bytes = render_run(rows, year) if is_run else "".join(lines)
    if options["zipped"]:
        result = zip_run(render_run(rows, year))
    write_result(result, options["output"])
    say_failed(failed)
    return EXIT_PARTIAL if failed else EXIT_OK
