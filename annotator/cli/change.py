"""`annotator add`, `annotator remove` and `annotator compact`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotator.cli.console import EXIT_OK, say, search_in_words
from annotator.cli.image_report import ImageReport
from annotator.cli.inference import (
    EmbeddingOptions,
    check_pixels,
    embedder_option,
    embedding_options,
    say_engine,
)
from annotator.cli.options import (
    CollectionOptions,
    collection_options,
    file_path,
    index_option,
    index_type_options,
)
from annotator.cli.sections import Command, option
from annotator.cli.vectors import VectorOptions, labelled, row_ids_option, vector_options
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from index.milvus.kinds import MilvusKind
    from index.protocols import IndexLocation
    from index.search.build import IndexType


@click.command(
    "add", cls=Command, short_help="Add labelled images to an index without rebuilding it."
)
@click.argument("images", required=False)
@click.argument("concepts", required=False)
@index_option
@vector_options
@row_ids_option
@collection_options
@option("Index", "--replace", is_flag=True, help="Replace images with the same ids.")
@embedder_option
@embedding_options
def add_command(
    images: str | None,
    concepts: str | None,
    place: IndexLocation,
    given: VectorOptions,
    row_ids: Path | None,
    tables: CollectionOptions,
    replace: bool,
    embedder: str | None,
    embedding: EmbeddingOptions,
) -> int:
    """Add IMAGES and their CONCEPTS to an index without rebuilding it.

    Open readers keep the old version until they reopen the index. The projection and the voting
    parameters are kept; `build-index` refits them and reuses the vectors. With --vectors, the only
    argument is CONCEPTS.

    \b
    annotator add new/ new_concepts.csv
    annotator add corrected/ corrected.csv --replace
    annotator add --vectors new.npy --ids new_ids.txt new_concepts.csv
    """
    vectors = given.read(row_ids)
    images_or_vectors, concepts = labelled(vectors, images, concepts)
    if images_or_vectors is None:
        raise click.UsageError("Give IMAGES or --vectors.")
    runner = vectors.embed if vectors else embedding.make_runner()
    collection = tables.read(images_or_vectors, concepts, on_mismatch="skip")
    for line in collection.report():
        say(line)
    stored = place.open()

    from annotator.indexing.metadata import IndexMetadata
    from annotator.indexing.update import add_images  # imports torch: after the cheap checks

    metadata = IndexMetadata.of(stored)
    if vectors is None:
        encoder = check_pixels(metadata).make_embedder(
            name=embedder, device=embedding.device, engine=embedding.engine
        )
        say_engine(encoder)
    else:
        encoder = metadata.encoder_of(vectors)
    added = add_images(
        collection,
        place,
        encoder,
        replace=replace,
        batch_size=embedding.batch_size,
        workers=embedding.workers,
        runner=runner,
        use_cache=vectors is None and not embedding.no_cache,
        on_error=embedding.on_error,
    )
    report = ImageReport(added.failed, added.notes)
    report.say(embedding.report)
    change = added.change
    replaced = f", {change.removed} of them in place of others" if change.removed else ""
    say(
        f"{place}: version {change.version}, {change.added} images added{replaced}; "
        f"{change.rows} in all."
    )
    return report.exit_code


@click.command("remove", cls=Command)
@click.argument("ids", nargs=-1)
@index_option
@click.option("--ids", "ids_file", type=file_path(), help="File with ids, one per line.")
@click.option("--missing-ok", is_flag=True, help="Ignore ids that are not in the index.")
def remove_command(
    ids: tuple[str, ...], place: IndexLocation, ids_file: Path | None, missing_ok: bool
) -> int:
    """Remove images from an index by their IDS.

    Searches no longer find them; `annotator compact` deletes their data from disk.

    \b
    annotator remove patient7_1 patient7_2 && annotator compact
    annotator remove --ids withdrawn.txt
    """
    from annotator.indexing.update import remove_images
    from annotator.tables.formats import read_ids

    wanted = [*ids, *(read_ids(ids_file) if ids_file is not None else ())]
    if not wanted:
        raise AnnotatorError("No ids given.", "Give IDS, or a file with --ids.")
    change = remove_images(place, wanted, missing_ok=missing_ok)
    say(
        f"{place}: version {change.version}, {change.removed} images removed, {change.rows} "
        f"left. They stay on {place.disk} until: annotator compact"
    )
    return EXIT_OK


@click.command(
    "compact", cls=Command, short_help="Merge segments, and delete removed images from disk."
)
@index_option
@index_type_options
def compact_command(
    place: IndexLocation, index_type: IndexType | MilvusKind | None, target_recall: float | None
) -> int:
    """Merge the segments of an index and delete removed images from disk.

    One search structure for all images is faster. Older versions of the index and the cached
    vectors of removed images are deleted. Nothing is embedded.

    \b
    annotator compact
    annotator compact --index-type ivf --target-recall 0.95
    """
    from annotator.indexing.update import compact_index

    change = compact_index(place, index_type=index_type, target_recall=target_recall)
    manifest = place.manifest()
    say(f"Index type {manifest.index_type}: {search_in_words(manifest.search)}.")
    say(
        f"{place}: version {change.version}, {change.rows} images; {change.removed} removed "
        f"ones {place.after_compact}."
    )
    return EXIT_OK
