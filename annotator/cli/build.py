"""`annotator build-index` and `annotator sample`."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotator.cli.console import say, search_in_words
from annotator.cli.fit_encoder import fit_once
from annotator.cli.image_report import ImageReport
from annotator.cli.inference import (
    EmbeddingOptions,
    EncoderOptions,
    embedding_options,
    encoder_options,
)
from annotator.cli.options import (
    CollectionOptions,
    VotingOptions,
    collection_options,
    file_path,
    index_option,
    index_type_options,
    is_given,
    voting_options,
)
from annotator.cli.sections import Command, option
from annotator.cli.tune import new_source_in_words, say_tuned
from annotator.cli.vectors import VectorOptions, labelled, row_ids_option, vector_options
from annotator.fitting.recipe import ENCODER

if TYPE_CHECKING:
    from annotator.collection import Collection, OnMismatch
    from annotator.knn.model import Adaptation
    from annotator.phantoms.render import Renderer
    from index.milvus.kinds import MilvusKind
    from index.protocols import IndexLocation
    from index.search.build import IndexType


@click.command("build-index", cls=Command, short_help="Build an index from labelled images.")
@click.argument("images", required=False)
@click.argument("concepts", required=False)
@index_option
@vector_options
@row_ids_option
@encoder_options
@option(
    "Encoder",
    "--fit-encoder",
    type=file_path(file_okay=False),
    metavar="FOLDER",
    help="Fit the encoder to the images first (`annotator fit-encoder` has its options), in this "
    "folder; a fitted encoder that is there already is used as it is.",
)
@collection_options
@option(
    "Input",
    "--on-mismatch",
    type=click.Choice(["skip", "fail"]),
    default="skip",
    help="Ids without an image and images without an id: skip or fail.",
)
@option(
    "Voting",
    "--no-tune",
    is_flag=True,
    help="Do not tune the voting parameters (those given as options are never tuned).",
)
@option(
    "Voting",
    "--assume-incomplete",
    is_flag=True,
    help="Labels are often missing: let the neighbours of each image fill them in for the vote. On "
    "complete labels that costs accuracy.",
)
@option(
    "Input",
    "--holdout-groups",
    metavar="FILE[:COLUMN]",
    help="Source of each image, such as its hospital: say also what to expect of a new source, by "
    "annotating the images of each by those of the others.",
)
@option(
    "Index",
    "--adaptation",
    type=click.Choice(["auto", "looks", "none"]),
    default="auto",
    help="Projection of the vectors: supervised if it helps (auto), unsupervised (looks) or none.",
)
@option("Index", "--thumbnails", is_flag=True, help="Store thumbnails to show with results.")
@index_type_options
@voting_options
@embedding_options
def build_index_command(
    images: str | None,
    concepts: str | None,
    place: IndexLocation,
    given: VectorOptions,
    row_ids: Path | None,
    encoder: EncoderOptions,
    fit_encoder: Path | None,
    tables: CollectionOptions,
    on_mismatch: OnMismatch,
    no_tune: bool,
    assume_incomplete: bool,
    holdout_groups: str | None,
    adaptation: Adaptation,
    thumbnails: bool,
    index_type: IndexType | MilvusKind | None,
    target_recall: float | None,
    voting: VotingOptions,
    embedding: EmbeddingOptions,
) -> int:
    """Build an index from IMAGES (folder, glob, list file, Parquet) and their CONCEPTS.

    Without arguments, use the built-in sample collection of generated phantoms. Parquet files
    contain their concepts. Vectors are cached: an interrupted build resumes, and a rebuild embeds
    only new images. With --vectors, of any encoder, the only argument is CONCEPTS.

    \b
    annotator build-index train/ train_concepts.csv --names cui_mapping.csv
    annotator build-index images/ concepts.csv --split split.csv --only train --groups patients.csv
    annotator build-index 'roco/train-*.parquet' --embedder timm:resnet50
    annotator build-index --vectors train.npy --ids ids.txt train_concepts.csv --encoder-name dino
    """
    from annotator.collection import sample_collection

    if no_tune and voting.objective == "macro-f1":
        raise click.UsageError("--objective macro-f1 requires tuning: leave out --no-tune.")
    start = voting.override()
    vectors = given.read(row_ids, unusable=("fit_encoder", "frames", "thumbnails"))
    images_or_vectors, concepts = labelled(vectors, images, concepts)
    runner = vectors.embed if vectors else embedding.make_runner()
    with contextlib.ExitStack() as stack:
        if images_or_vectors is None:
            say("No images given: building from the built-in sample collection (phantoms).")
            collection = stack.enter_context(sample_collection())
        else:
            collection = tables.read(images_or_vectors, concepts, on_mismatch=on_mismatch)
        for line in collection.report():
            say(line)

        sources = None if holdout_groups is None else _read_sources(holdout_groups, collection)

        from annotator.indexing.build import (
            build_index,  # imports torch: after the cheap checks
        )
        from annotator.knn.incomplete import inferred_of

        if fit_encoder is not None:
            if sources is not None:
                from annotator.knn.new_source import refuse_fitted

                refuse_fitted(f"fitted:{fit_encoder}")
            chosen = encoder.embedder if is_given("embedder") else ENCODER
            name = fit_once(collection, fit_encoder, chosen, embedding)
            encoder = replace(encoder, embedder=name)
        built = build_index(
            collection,
            place,
            vectors.embedder
            if vectors
            else encoder.make_embedder(embedding.device, embedding.engine),
            voting=start if voting.given else None,
            adaptation=adaptation,
            tuning=not no_tune,
            fixed=voting.given,
            assume_incomplete=assume_incomplete,
            sources=sources,
            batch_size=embedding.batch_size,
            workers=embedding.workers,
            runner=runner,
            use_cache=vectors is None and not embedding.no_cache,
            thumbnails=thumbnails,
            index_type=index_type or "auto",
            target_recall=target_recall,
            on_error=embedding.on_error,
        )
    report = ImageReport(built.failed, built.notes)
    report.say(embedding.report)
    if built.model.projection is not None and built.model.penalty is not None:
        penalty = f"{built.model.penalty:g}"
        say(f"Projection fitted to the concepts (ridge regression, penalty {penalty}).")
    if built.model.inferred is not None:
        filled = [len(inferred_of(text)) for text in built.model.inferred]
        say(
            f"Labels assumed incomplete: for the vote, neighbours fill in {sum(filled):,} in "
            f"{sum(map(bool, filled)):,} of {built.rows:,} images."
        )
    if built.model.tuned is not None:
        say_tuned(built.model.tuned)
    elif built.model.share is not None and not no_tune:
        say(
            "Not tuned, and no estimate: the encoder was fitted to all of these groups. Fit it to "
            "these images with their --groups, or add some that it has not seen."
        )
    if built.new_source is not None:
        say(f"Of a new source, expect {new_source_in_words(built.new_source.to_dict())}.")
    say(f"Index type {built.index_type}: {search_in_words(built.search)}.")
    how = f"{built.embedded} embedded, {built.cached} known before"
    if vectors is not None:
        how = f"vectors of {vectors.embedder.name}"
    say(
        f"{place}: version {built.version}, {built.rows} images, {built.concepts} concepts ({how})."
    )
    from annotator.indexing.correct import undone_corrections

    if undone := undone_corrections(place):
        say(
            f"Warning: {len(undone):,} images were corrected before (annotator relabel), and have "
            "the labels of the table again. To correct them anew: annotator history --format csv "
            f"--index {place} > corrections.csv, and annotator relabel corrections.csv."
        )
    what = "--vectors FILE" if vectors else "IMAGES"
    say(f"Next: annotator annotate {what} --index {place}")
    return report.exit_code


def _read_sources(table: str, collection: Collection) -> dict[str, str]:
    """Read the source of each image of a collection by its id, and say which have none."""
    from annotator.evaluation.measures import read_groups
    from annotator.ids import printable

    notes: list[str] = []
    ids = [ref.id for ref in collection.images]
    sources = dict(zip(ids, read_groups(table, ids, notes) or (), strict=True))
    if without := [id_ for id_ in ids if not sources[id_]]:
        more = ", …" if len(without) > 3 else ""
        notes.append(
            f"{len(without):,} of {len(ids):,} images have no source in {table}, and take no part "
            f"in what to expect of a new one: {', '.join(map(printable, without[:3]))}{more}"
        )
    for line in notes:
        say(line)
    return sources


@click.command(
    "sample", cls=Command, short_help="Write the sample collection: phantoms, not patients."
)
@click.argument("directory", type=file_path())
@click.option("--n", type=click.IntRange(20), default=600, help="Number of images.")
@click.option("--seed", type=click.IntRange(0), default=2026, help="Random seed.")
@click.option(
    "--renderer",
    type=click.Choice(["plain", "upsampled"]),
    default="plain",
    help="How pictures are drawn: plain, or upsampled as by a generative network.",
)
def sample_command(directory: Path, n: int, seed: int, renderer: Renderer) -> None:
    """Write the built-in sample collection: generated phantoms, not patients.

    \b
    annotator sample sample/
    annotator build-index sample/images sample/concepts.csv --split sample/split.csv --only train
    """
    from annotator.phantoms import write_sample

    paths = write_sample(directory, n=n, seed=seed, renderer=renderer)
    say(f"{n} phantoms with concepts, captions, patients and a split: {paths.directory}")
    say(
        f"Next: annotator build-index {directory}/images {directory}/concepts.csv "
        f"--names {directory}/concept_names.csv --split {directory}/split.csv --only train"
    )
