"""`annotator build-index` and `annotator sample`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

from annotator.cli.console import EXIT_OK, EXIT_PARTIAL, say, say_failed
from annotator.cli.options import (
    embedding_options,
    file_path,
    index_option,
    names_option,
    side_options,
    voting_of,
    voting_options,
)


@click.command("build-index")
@click.argument("images", required=False)
@click.argument("concepts", required=False)
@index_option
@click.option(
    "--embedder",
    default="efficientnet-lite0",
    show_default=True,
    metavar="NAME",
    help="The encoder: efficientnet-lite0, timm:MODEL[@FILE], open_clip:MODEL@PRETRAINED, "
    "hf-hub:ORG/MODEL, local-dir:FOLDER or a .safetensors file.",
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
@side_options
@click.option("--groups", metavar="FILE[:COLUMN]", help="Table with each image's patient or study.")
@click.option("--captions", type=file_path(), help="Table with each image's caption.")
@names_option
@click.option(
    "--on-mismatch",
    type=click.Choice(["skip", "fail"]),
    default="skip",
    show_default=True,
    help="About ids without an image and images without an id.",
)
@click.option(
    "--no-tune", is_flag=True, help="Keep k and beta as they are (giving one of them does, too)."
)
@voting_options
@embedding_options
def build_index_command(
    images: str | None, concepts: str | None, directory: Path, **options: Any
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
    from annotator.collection import read_collection, sample_collection
    from annotator.progress import bar

    voting = voting_of(options)
    with contextlib.ExitStack() as stack:
        if images is None:
            say("No images given: building from the built-in sample collection (phantoms).")
            collection = stack.enter_context(sample_collection(progress=bar))
        else:
            collection = read_collection(
                images,
                concepts,
                names=options["names"],
                captions=options["captions"],
                groups=options["groups"],
                split=options["split"],
                only=options["only"],
                on_mismatch=options["on_mismatch"],
                on_duplicate=options["on_duplicate"],
            )
        for line in collection.report():
            say(line)

        from annotator.build import build_index  # torch comes with it, after the cheap checks
        from annotator.embed.makers import make_embedder

        built = build_index(
            collection,
            directory,
            make_embedder(
                options["embedder"],
                device=options["device"],
                precision=options["precision"],
                frames=options["frames"],
            ),
            voting=voting,
            tuning=not options["no_tune"] and options["k"] is None and options["beta"] is None,
            batch_size=options["batch_size"],
            workers=options["workers"],
            use_cache=not options["no_cache"],
            on_error=options["on_error"],
            progress=bar,
        )
    say_failed(list(built.failed.items()))
    if built.tuned:
        tuned, (low, high) = built.tuned, built.tuned.interval
        say(
            f"Voting tuned by leave-one-group-out: k {tuned.voting.k}, beta {tuned.voting.beta:g}; "
            f"F1 {tuned.f1:.4f} ({low:.3f} to {high:.3f}) on {tuned.images} images."
        )
    say(
        f"{directory}: version {built.version}, {built.rows} images, {built.concepts} concepts "
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
    from annotator.progress import bar
    from annotator.sample import write_sample

    paths = write_sample(directory, n=n, seed=seed, progress=bar)
    say(f"{n} phantoms with concepts, captions, patients and a split: {paths.directory}")
