"""`annotator build-index` and `annotator sample`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from annotator.cli.console import EXIT_OK, EXIT_PARTIAL, say, say_failed, search_in_words
from annotator.cli.options import (
    collection_options,
    embedding_options,
    file_path,
    given_collection,
    given_runner,
    given_voting,
    index_option,
    index_type_options,
    voting_of,
    voting_options,
)
from annotator.cli.tune import say_tuned

if TYPE_CHECKING:
    from index.protocols import IndexLocation


@click.command("build-index")
@click.argument("images", required=False)
@click.argument("concepts", required=False)
@index_option
@click.option(
    "--embedder",
    default="efficientnet-lite0",
    show_default=True,
    metavar="NAME",
    help="The encoder: efficientnet-lite0[@SIZE], -lite1, -lite2, timm:MODEL[@FILE], "
    "open_clip:MODEL@PRETRAINED, hf-hub:ORG/MODEL, local-dir:FOLDER, a .safetensors file, "
    "or several joined by +.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="auto: bf16 where the hardware has it.",
)
@click.option(
    "--frames",
    type=click.Choice(["middle", "all"]),
    default="middle",
    show_default=True,
    help="Of multi-frame images: the middle one, or the mean of all.",
)
@collection_options
@click.option(
    "--on-mismatch",
    type=click.Choice(["skip", "fail"]),
    default="skip",
    show_default=True,
    help="About ids without an image and images without an id.",
)
@click.option(
    "--no-tune",
    is_flag=True,
    help="Keep the voting parameters as they are (those that are given always stay).",
)
@click.option(
    "--adaptation",
    type=click.Choice(["auto", "looks", "none"]),
    default="auto",
    show_default=True,
    help="Fit the vectors to the collection: auto learns from the concepts if that helps, looks "
    "does not, none keeps the encoder's vectors.",
)
@click.option(
    "--thumbnails", is_flag=True, help="Keep small pictures of the images, for the service's page."
)
@index_type_options
@voting_options
@embedding_options
def build_index_command(
    images: str | None, concepts: str | None, place: IndexLocation, **options: Any
) -> int:
    """Build an index from IMAGES (folder, glob, list file, Parquet) and their CONCEPTS.

    With neither, build it from the built-in sample collection of generated phantoms. Parquet files
    carry their concepts. A build that was stopped continues where it was, and one with ten more
    images embeds ten.

    \b
    annotator build-index train/ train_concepts.csv --names cui_mapping.csv
    annotator build-index images/ concepts.csv --split split.csv --only train --groups patients.csv
    annotator build-index 'roco/train-*.parquet' --embedder timm:resnet50
    """
    from annotator.collection import sample_collection

    voting = voting_of(options)
    runner = given_runner(options)
    with contextlib.ExitStack() as stack:
        if images is None:
            say("No images given: building from the built-in sample collection (phantoms).")
            collection = stack.enter_context(sample_collection())
        else:
            collection = given_collection(
                images, concepts, options, on_mismatch=options["on_mismatch"]
            )
        for line in collection.report():
            say(line)

        from annotator.encoders.registry import make_embedder
        from annotator.indexing.build import (
            build_index,  # torch comes with it, after the cheap checks
        )

        built = build_index(
            collection,
            place,
            make_embedder(
                options["embedder"],
                device=options["device"],
                precision=options["precision"],
                frames=options["frames"],
            ),
            voting=voting if given_voting(options) else None,
            adaptation=options["adaptation"],
            tuning=not options["no_tune"],
            fixed=given_voting(options),
            batch_size=options["batch_size"],
            workers=options["workers"],
            runner=runner,
            use_cache=not options["no_cache"],
            thumbnails=options["thumbnails"],
            index_type=options["index_type"] or "auto",
            target_recall=options["target_recall"],
            on_error=options["on_error"],
        )
    say_failed(list(built.failed.items()))
    if built.model.projection is not None and built.model.penalty is not None:
        penalty = f"{built.model.penalty:g}"
        say(f"Projection fitted to the concepts (ridge regression, penalty {penalty}).")
    if built.model.tuned is not None:
        say_tuned(built.model.tuned)
    say(f"Index type {built.index_type}: {search_in_words(built.search)}.")
    say(
        f"{place}: version {built.version}, {built.rows} images, {built.concepts} concepts "
        f"({built.embedded} embedded, {built.cached} known before)."
    )
    return EXIT_PARTIAL if built.failed else EXIT_OK


@click.command("sample")
@click.argument("directory", type=file_path())
@click.option("--n", type=click.IntRange(20), default=600, show_default=True, help="Images.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=2026,
    show_default=True,
    help="Another seed, other images.",
)
def sample_command(directory: Path, n: int, seed: int) -> None:
    """Write the built-in sample collection: generated phantoms, not patients.

    \b
    annotator sample sample/
    annotator build-index sample/images sample/concepts.csv --split sample/split.csv --only train
    """
    from annotator.phantoms import write_sample

    paths = write_sample(directory, n=n, seed=seed)
    say(f"{n} phantoms with concepts, captions, patients and a split: {paths.directory}")
