"""`annotator add`, `annotator remove` and `annotator compact`."""

from __future__ import annotations

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
    index_option,
    index_type_options,
)
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from index.protocols import IndexLocation


@click.command("add")
@click.argument("images")
@click.argument("concepts", required=False)
@index_option
@collection_options
@click.option("--replace", is_flag=True, help="Take the place of images with the same ids.")
@click.option("--embedder", metavar="NAME", help="The encoder, if its weights have moved.")
@embedding_options
def add_command(images: str, concepts: str | None, place: IndexLocation, **options: Any) -> int:
    """Add IMAGES and their CONCEPTS to an index, without building it again.

    Readers are not disturbed: they see the index as it was until they open it anew. The fit to the
    collection and the voting parameters stay; `build-index` makes them anew, and knows the vectors.

    \b
    annotator add new/ new_concepts.csv
    annotator add corrected/ corrected.csv --replace
    """

    runner = given_runner(options)
    collection = given_collection(images, concepts, options, on_mismatch="skip")
    for line in collection.report():
        say(line)
    stored = place.open()

    from annotator.indexing.metadata import IndexMetadata
    from annotator.indexing.update import add_images

    added = add_images(
        collection,
        place,
        IndexMetadata.of(stored).make_embedder(name=options["embedder"], device=options["device"]),
        replace=options["replace"],
        batch_size=options["batch_size"],
        workers=options["workers"],
        runner=runner,
        use_cache=not options["no_cache"],
        on_error=options["on_error"],
    )
    say_failed(list(added.failed.items()))
    change = added.change
    replaced = f", {change.removed} of them in place of others" if change.removed else ""
    say(
        f"{place}: version {change.version}, {change.added} images added{replaced}; "
        f"{change.rows} in all."
    )
    return EXIT_PARTIAL if added.failed else EXIT_OK


@click.command("remove")
@click.argument("ids", nargs=-1)
@index_option
@click.option("--ids", "ids_file", type=file_path(), help="A file with the ids, one a line.")
@click.option("--missing-ok", is_flag=True, help="Pass over ids that the index does not have.")
def remove_command(
    ids: tuple[str, ...], place: IndexLocation, ids_file: Path | None, missing_ok: bool
) -> int:
    """Remove images from an index by their IDS: no search finds them any more.

    They are gone from the disk after `annotator compact`.

    \b
    annotator remove patient7_1 patient7_2 && annotator compact
    annotator remove --ids withdrawn.txt
    """
    from annotator.indexing.update import remove_images
    from annotator.tables.formats import read_ids

    wanted = [*ids, *(read_ids(ids_file) if ids_file is not None else ())]
    if not wanted:
        raise AnnotatorError("No ids are given.", "Name them, or give a file with --ids.")
    change = remove_images(place, wanted, missing_ok=missing_ok)
    say(
        f"{place}: version {change.version}, {change.removed} images removed, {change.rows} "
        f"left. They stay on {place.disk} until: annotator compact"
    )
    return EXIT_OK


@click.command("compact")
@index_option
@index_type_options
def compact_command(place: IndexLocation, index_type: Any, target_recall: float | None) -> int:
    """Write an index anew as one piece, with nothing left on disk of what was removed.

    Added images get into the structure that searches the others, which is quicker. Older versions
    of the index are deleted, and so is what its cache knows of the removed images. Nothing is
    embedded.

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
