"""`annotator caption`."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import click

from annotator.cli.console import EXIT_OK, EXIT_PARTIAL, say, say_failed, write_result
from annotator.cli.options import (
    embedding_options,
    file_path,
    index_option,
    side_options,
    verify_option,
)
from annotator.errors import AnnotatorError


@click.command("caption")
@click.argument("images")
@index_option
@click.option(
    "--method",
    type=click.Choice(["consensus", "nearest"]),
    default="consensus",
    show_default=True,
    help="The caption most like all the neighbours', or the nearest case's.",
)
@click.option("--k", type=click.IntRange(1), help="Neighbours whose captions are compared.")
@click.option("--beta", type=click.FloatRange(0), help="How sharply their weight falls.")
@click.option("--zip", "zipped", is_flag=True, help="A zip that holds submission.csv.")
@click.option("--output", type=file_path(dir_okay=False), help="Write there instead of stdout.")
@click.option("--ids", "ids_file", type=file_path(), help="These ids, in this order.")
@side_options
@verify_option
@embedding_options
def caption_command(images: str, directory: Path, **options: Any) -> int:
    """Caption IMAGES with the words of their nearest cases and print the run, `ID,Caption`.

    Of the neighbours' captions the one with the highest expected ROUGE-1 under their votes is
    taken, as it is; nothing is made up. The index must have been built with --captions. Without --k
    and --beta, neighbours count as they do for concepts. An image that cannot be used, or whose
    neighbours have no captions, gets an empty one.

    \b
    annotator caption test/ > captions.csv
    annotator caption test/ --method nearest > nearest.csv
    annotator evaluate captions.csv test_captions.csv --captions --against nearest.csv
    """
    from annotator.captions.consensus import choose
    from annotator.cli.options import voting_of
    from annotator.collection import in_order_of, select_side
    from annotator.images.sources import find_images
    from annotator.progress import bar
    from annotator.record import recorded_voting
    from annotator.tables.captions import render_captions
    from annotator.tables.formats import read_ids
    from annotator.tables.run import zip_run
    from index import open_index

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
    render_captions((ref.id, "") for ref in refs)  # refuses bad ids before the work is done
    stored = open_index(directory, whole=options["verify"], device=options["device"])
    if not any(stored.columns.get("captions", ())):
        raise AnnotatorError(
            f"{directory} has no captions.",
            "Build it with them: annotator build-index IMAGES CONCEPTS --captions captions.csv",
        )
    voting = voting_of(options, recorded_voting(stored))

    from annotator.embed.cache import CACHE_FILE, EmbeddingCache
    from annotator.pipeline import Annotator, recorded_embedder

    embedder = recorded_embedder(stored, device=options["device"])
    annotator = Annotator(stored, embedder, voting)
    rows: list[tuple[str, str]] = []
    failed: list[tuple[str, str]] = []
    without: list[str] = []
    with contextlib.ExitStack() as stack:
        cache = None
        if not options["no_cache"] and os.access(directory, os.W_OK):
            path = directory / CACHE_FILE
            cache = stack.enter_context(EmbeddingCache(path, embedder.fingerprint.digest))
        for annotation in annotator.annotate(
            refs,
            cache=cache,
            batch_size=options["batch_size"],
            workers=options["workers"],
            progress=bar,
        ):
            caption = ""
            if annotation.error is not None:
                if options["on_error"] == "fail":
                    raise AnnotatorError(
                        f"{annotation.image_id}: {annotation.error}.",
                        "Put it right, or give such images an empty row with --on-error skip.",
                    )
                failed.append((annotation.image_id, annotation.error))
            else:
                captions = [n.caption for n in annotation.neighbors]
                weights = [n.weight for n in annotation.neighbors]
                choice = choose(captions, weights, options["method"])
                if choice is None:
                    without.append(annotation.image_id)
                else:
                    caption = captions[choice.position]
            rows.append((annotation.image_id, caption))
    text = render_captions(rows)
    write_result(zip_run(text) if options["zipped"] else text, options["output"])
    say_failed(failed)
    if without:
        say(
            f"Warning: {len(without)} images have an empty caption, since none of their neighbours "
            f"has one: {', '.join(without[:3])}{', …' if len(without) > 3 else ''}"
        )
    say(f"Next: annotator evaluate {options['output'] or 'captions.csv'} TRUE_CAPTIONS --captions")
    return EXIT_PARTIAL if failed else EXIT_OK
