"""What the commands share that ask an index about images: which images, and the asking."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from annotator.cli.console import say
from annotator.cli.options import (
    embedding_options,
    file_path,
    given_runner,
    side_options,
    together,
    verify_option,
)
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from annotator.encoders.cache import EmbeddingCache
    from annotator.encoders.embedder import Embedder
    from annotator.images.ref import ImageRef
    from annotator.knn.voting import Voting
    from annotator.pipeline import Annotation
    from index.protocols import Index, IndexLocation

which_options = together(
    click.option("--ids", "ids_file", type=file_path(), help="These ids, in this order."),
    side_options,
)

asking_options = together(
    click.option("--embedder", metavar="NAME", help="The encoder, if its weights have moved."),
    click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="Must be the index's."),
    verify_option,
    embedding_options,
)


def given_images(images: str, options: Mapping[str, Any]) -> list[ImageRef]:
    """IMAGES as far as `which_options` ask for them, sorted by id or in the order of --ids.

    Raises:
        AnnotatorError: As `find_images`, `read_ids`, `select_side` and `given_runner`.
    """
    from annotator.images.ref import in_order_of
    from annotator.images.sources import find_images
    from annotator.tables.formats import read_ids, select_side

    given_runner(options)  # says what it lacks before anything is read
    found = find_images(images, on_duplicate=options["on_duplicate"])
    if found.ignored:
        say(f"{len(found.ignored)} files are not images and are ignored: {found.ignored[0]}, …")
    ids = (
        read_ids(options["ids_file"])
        if options["ids_file"] is not None
        else [ref.id for ref in found.images]
    )
    side = select_side(ids, options["split"], options["only"])
    return in_order_of([id_ for id_ in ids if id_ in side], found.images)


def given_embedder(stored: Index, options: Mapping[str, Any]) -> Embedder:
    """The encoder that an index records, as far as `asking_options` leave it so.

    Raises:
        AnnotatorError: It cannot be loaded.
    """
    from annotator.indexing.metadata import IndexMetadata

    return IndexMetadata.of(stored).make_embedder(
        name=options["embedder"],
        device=options["device"],
        precision=options["precision"],
    )


@contextlib.contextmanager
def given_cache(
    place: IndexLocation, embedder: Embedder, options: Mapping[str, Any]
) -> Iterator[EmbeddingCache | None]:
    """The cache of vectors beside an index, if it is wanted and can be written."""
    from annotator.encoders.cache import CACHE_FILE, EmbeddingCache

    if options["no_cache"] or not os.access(place.folder, os.W_OK):
        yield None
        return
    with EmbeddingCache(place.folder / CACHE_FILE, embedder.fingerprint.digest) as cache:
        yield cache


def annotate_images(
    place: IndexLocation,
    stored: Index,
    refs: list[ImageRef],
    voting: Voting,
    options: Mapping[str, Any],
    failed: list[tuple[str, str]],
    *,
    with_neighbors: bool,
) -> Iterator[Annotation]:
    """Annotate images by an opened index, as `asking_options` say, with a bar.

    Args:
        place: Where the index lies; its folder has the cache of vectors.
        stored: The index.
        refs: The images.
        voting: How neighbours count.
        options: Of the command.
        failed: Gets the id of each image that could not be used, and the reason.
        with_neighbors: Say which cases voted.

    Raises:
        AnnotatorError: An image cannot be used and --on-error is "fail"; or as `Annotator`.
    """
    from annotator.pipeline import Annotator

    annotator = Annotator(stored, given_embedder(stored, options), voting)
    with given_cache(place, annotator.embedder, options) as cache:
        for annotation in annotator.annotate(
            refs,
            cache=cache,
            batch_size=options["batch_size"],
            workers=options["workers"],
            runner=given_runner(options),
            with_neighbors=with_neighbors,
        ):
            if annotation.error is not None:
                if options["on_error"] == "fail":
                    raise AnnotatorError(
                        f"{annotation.image_id}: {annotation.error}.",
                        "Put it right, or give such images an empty row with --on-error skip.",
                    )
                failed.append((annotation.image_id, annotation.error))
            yield annotation
