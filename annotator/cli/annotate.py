"""`annotator annotate`."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

import click

from annotator.cli.console import EXIT_OK, EXIT_PARTIAL, say, say_failed, write_result
from annotator.cli.options import (
    embedding_options,
    file_path,
    index_option,
    side_options,
    verify_option,
    voting_of,
    voting_options,
)
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from index.place import Place


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
@click.option("--ids", "ids_file", type=file_path(), help="These ids, in this order.")
@side_options
@click.option("--embedder", metavar="NAME", help="The encoder, if its weights have moved.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="Must be the index's.")
@verify_option
@voting_options
@embedding_options
def annotate_command(images: str, place: Place, year: str, **options: Any) -> int:
    """Annotate IMAGES (folder, file, glob, list file, Parquet) and print the run.

    Rows are sorted by id, or in the order of --ids. An image that cannot be used gets a row without
    CUIs, its reason goes to stderr, and the exit code is 3.

    \b
    annotator annotate test/ > run.csv
    annotator annotate test/ --ids test_ids.csv --zip > submission.zip
    annotator annotate scan.dcm --format jsonl --explain
    """
    from annotator.collection import in_order_of, select_side
    from annotator.images.sources import find_images
    from annotator.progress import bar
    from annotator.record import recorded_voting
    from annotator.tables.formats import read_ids
    from annotator.tables.run import render_run, zip_run

    is_run = year != "jsonl"
    if options["explain"] and is_run:
        raise click.UsageError("--explain belongs to --format jsonl.")
    if options["zipped"] and not is_run:
        raise click.UsageError("--zip belongs to the submission formats.")
    found = find_images(images, on_duplicate=options["on_duplicate"])
    if found.ignored:
        say(f"{len(found.ignored)} files are not images and are ignored: {found.ignored[0]}, …")
    ids = (
        read_ids(options["ids_file"])
        if options["ids_file"] is not None
        else [ref.id for ref in found.images]
    )
    side = select_side(ids, options["split"], options["only"])
    refs = in_order_of([id_ for id_ in ids if id_ in side], found.images)
    if is_run:
        render_run(((ref.id, ()) for ref in refs), year)  # refuses bad ids before the work is done
    stored = place.open(whole=options["verify"], device=options["device"])
    voting = voting_of(options, recorded_voting(stored))

    from annotator.embed.cache import CACHE_FILE, EmbeddingCache
    from annotator.pipeline import Annotator, recorded_embedder

    embedder = recorded_embedder(
        stored,
        name=options["embedder"],
        device=options["device"],
        precision=options["precision"],
    )
    annotator = Annotator(stored, embedder, voting)
    rows: list[tuple[str, tuple[str, ...]]] = []
    lines: list[str] = []
    failed: list[tuple[str, str]] = []
    with contextlib.ExitStack() as stack:
        cache = None
        if not options["no_cache"] and os.access(place.folder, os.W_OK):
            path = place.folder / CACHE_FILE
            cache = stack.enter_context(EmbeddingCache(path, embedder.fingerprint.digest))
        for annotation in annotator.annotate(
            refs,
            cache=cache,
            batch_size=options["batch_size"],
            workers=options["workers"],
            with_neighbors=options["explain"],
            progress=bar,
        ):
            if annotation.error is not None:
                if options["on_error"] == "fail":
                    raise AnnotatorError(
                        f"{annotation.image_id}: {annotation.error}.",
                        "Put it right, or give such images an empty row with --on-error skip.",
                    )
                failed.append((annotation.image_id, annotation.error))
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
