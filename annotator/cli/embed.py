"""`annotator embed`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotator.cli.console import say
from annotator.cli.image_report import ImageReport
from annotator.cli.inference import (
    EmbeddingOptions,
    EncoderOptions,
    check_pixels,
    embedding_options,
    encoder_options,
)
from annotator.cli.options import (
    LocationType,
    SelectionOptions,
    file_path,
    selection_options,
)
from annotator.cli.sections import Command, option

if TYPE_CHECKING:
    from annotator.encoders.embedder import Embedder
    from index.protocols import IndexLocation


@click.command("embed", cls=Command, short_help="Write the vectors of images to a file.")
@click.argument("images")
@option(
    "Output",
    "--out",
    required=True,
    type=file_path(dir_okay=False),
    help="File of vectors: .parquet, .npy (ids and encoder in files beside), .npz or .safetensors.",
)
@option(
    "Index",
    "--index",
    "place",
    type=LocationType(),
    metavar="INDEX",
    help="Use the encoder of this index, and its cache of vectors.",
)
@encoder_options
@selection_options
@embedding_options
def embed_command(
    images: str,
    out: Path,
    place: IndexLocation | None,
    encoder: EncoderOptions,
    selection: SelectionOptions,
    embedding: EmbeddingOptions,
) -> int:
    """Write the vectors of IMAGES (folder, file, glob, list file, Parquet) with their ids.

    They are those of the encoder, of unit norm, before an index projects them. The file names the
    encoder, so that `build-index --vectors` makes the same index of it as of the images, and
    `annotate --vectors` knows whether it fits. Rows are in the natural order of ids, or in the
    order of --ids; an image that cannot be used has none, and the exit code is 3. Vectors are
    cached beside the index or the file: an interrupted command resumes.

    \b
    annotator embed train/ --out train.parquet
    annotator embed test/ --out test.npy --index concept-index
    annotator build-index --vectors train.parquet train_concepts.csv
    """
    from annotator.vectors.write import check_output

    check_output(out)
    runner = embedding.make_runner()
    if place is not None:
        encoder.refuse_with("--index")
    refs = selection.find(images)

    from annotator.encoders.cache import CACHE_FILE
    from annotator.indexing.embedding import Spool, embed_to_disk  # imports torch
    from annotator.vectors.encoder import VectorEncoder
    from annotator.vectors.write import write_vectors

    embedder = _embedder(place, encoder, embedding)
    folder = out.parent if place is None else place.folder
    cached = not embedding.no_cache and os.access(folder, os.W_OK)
    with Spool(out.parent) as spool:
        embedded = embed_to_disk(
            refs,
            embedder,
            spool,
            cache=folder / CACHE_FILE if cached else None,
            batch_size=embedding.batch_size,
            workers=embedding.workers,
            on_error=embedding.on_error,
            runner=runner,
        )
        files = write_vectors(out, embedded.ids, embedded.vectors, VectorEncoder.of(embedder))
    report = ImageReport(embedded.failed, embedded.notes)
    report.say(embedding.report)
    known = f" ({embedded.cached} known before)" if embedded.cached else ""
    say(
        f"{', '.join(map(str, files))}: {len(embedded.ids)} vectors of length {embedder.dim} from "
        f"{embedder.name}{known}."
    )
    return report.exit_code


def _embedder(
    place: IndexLocation | None, encoder: EncoderOptions, embedding: EmbeddingOptions
) -> Embedder:
    """The encoder of the index, or the one that the options name."""
    if place is None:
        return encoder.make_embedder(embedding.device, embedding.engine)
    from annotator.indexing.metadata import IndexMetadata

    return check_pixels(IndexMetadata.of(place.open())).make_embedder(
        device=embedding.device, engine=embedding.engine
    )
