"""Add, replace and remove images of an index, and compact it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection as Ids
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from annotator.collection import Collection
from annotator.encoders.cache import CACHE_FILE, EmbeddingCache
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.cross_validation import ARRAYS as TUNING
from annotator.knn.cross_validation import stored_lists
from annotator.knn.incomplete import COLUMN, infer_later
from annotator.knn.joint_projection import stored_projection
from annotator.vectors.table import NO_FILE
from index import LabelTable
from index.locations import locate
from index.milvus.kinds import MilvusKind
from index.protocols import Changed, Index, IndexLocation
from index.search.build import IndexType
from index.segments import CONTENT, Segment

if TYPE_CHECKING:
    from annotator.encoders.embedder import Embedder
    from annotator.encoders.runners import Runner
    from annotator.errors import ImageError
    from annotator.images.notes import Note
    from annotator.indexing.embedding import OnError


@dataclass(frozen=True)
class Added:
    """Result of adding images.

    Attributes:
        change: Change of the index.
        failed: Error by location of each image that could not be used.
        notes: By location, what was done to pictures that their files did not ask for.
    """

    change: Changed
    failed: Mapping[str, ImageError]
    notes: Mapping[str, tuple[Note, ...]]


def add_images(
    collection: Collection,
    directory: Path | str | IndexLocation,
    embedder: Embedder,
    *,
    replace: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
    runner: Runner | None = None,
    use_cache: bool = True,
    on_error: OnError = "skip",
) -> Added:
    """Add images with their concepts to an index.

    The projection and the voting parameters are kept; rebuild the index to refit them (vectors are
    cached). Where neighbours fill in labels, the cases of the index do so for the added ones; what
    these would fill in for others takes a rebuild, too.

    Args:
        collection: Images with concepts.
        directory: Index.
        embedder: Encoder with the fingerprint recorded in the index.
        replace: Replace images with the same ids; otherwise these raise.
        batch_size: Images per encoder call; None for the encoder's default.
        workers: Number of threads; None for the number of cores.
        runner: Function that embeds the images, None for this process; see `make_runner`.
        use_cache: Read and write the cache of the index.
        on_error: "skip" leaves out images that cannot be used; "fail" stops at the first.

    Raises:
        AnnotatorError: No image could be used, or the encoder differs.
        IndexProblem: There is no index, it already has images with these ids, or another process is
            writing to it.
    """
    from annotator.indexing.embedding import (  # torch comes with it
        Spool,
        columns_of,
        embed_to_disk,
        projected,
        thumbnails_of,
    )
    from annotator.knn.model import filling

    place = locate(directory)
    place.settle()
    stored = place.open()
    metadata = IndexMetadata.of(stored)
    metadata.check_encoder(embedder)
    with contextlib.ExitStack() as stack:
        spool = stack.enter_context(Spool(place.folder))
        embedded = embed_to_disk(
            collection.images,
            embedder,
            spool,
            cache=place.folder / CACHE_FILE if use_cache else None,
            batch_size=batch_size,
            workers=workers,
            runner=runner,
            on_error=on_error,
        )
        ids, projection = embedded.ids, stored_projection(stored.arrays)
        arrays: dict[str, NDArray[Any]] = {CONTENT: embedded.contents}
        if stored.has_thumbnails:
            pictures = stack.enter_context(Spool(place.folder))
            arrays |= thumbnails_of(embedded.images, pictures, workers)
        vectors = np.concatenate(list(projected(embedded.vectors, projection)))
        labels = LabelTable.from_sets([collection.concepts[id_] for id_ in ids])
        columns = columns_of(collection, ids)
        if metadata.voting.assume_incomplete:
            groups = [collection.groups.get(id_, "") for id_ in ids]
            vote = filling(projected=projection is not None)
            columns[COLUMN] = infer_later(stored.find, vectors, labels, groups, ids, vote)
        rows = Segment(vectors, ids, labels, collection.names, columns, arrays)
        if replace:
            _forget_replaced(place, stored, rows)
        change = place.add_rows(rows, of=stored.version, over=replace)
    return Added(change, embedded.failed, embedded.notes)


def remove_images(
    directory: Path | str | IndexLocation, ids: Ids[str], *, missing_ok: bool = False
) -> Changed:
    """Remove images from an index, and their vectors from its cache.

    Searches no longer find them; `compact_index` deletes their data from disk.

    Args:
        directory: Index.
        ids: Image ids.
        missing_ok: Ignore ids that are not in the index.

    Raises:
        IndexProblem: As `FolderLocation.remove_rows`.
    """
    place = locate(directory)
    place.settle()
    before = place.open()
    contents = before.contents_of_only(set(ids))
    change = place.remove_rows(ids, missing_ok=missing_ok)
    if change.removed:  # if killed here, `compact_index` does it
        _forget(place, before, contents)
    return change


def compact_index(
    directory: Path | str | IndexLocation,
    *,
    index_type: IndexType | MilvusKind | None = None,
    target_recall: float | None = None,
) -> Changed:
    """Merge the segments of an index into one, and delete all data of removed images.

    Older versions of the index are deleted.

    Args:
        directory: Index.
        index_type: New type of the search index; None to keep it.
        target_recall: New target recall of an approximate type; None to keep it.

    Raises:
        IndexProblem: As `FolderLocation.compact`.
    """
    place = locate(directory)
    if index_type is not None:
        place.check_index_type(index_type)
    place.settle()
    stored = place.open()
    _forget(place, stored, stored.contents_of_removed())
    lists = stored_lists(stored)
    others = {name: a for name, a in stored.arrays.items() if not name.startswith(TUNING)}
    return place.compact(
        of=stored.version,
        index_type=index_type,
        target_recall=target_recall,
        arrays=others | (lists.to_arrays() if lists is not None else {}),
    )


def _forget_replaced(place: IndexLocation, stored: Index, by: Segment) -> None:
    """Delete the vectors of images about to be replaced by the rows `by` from the cache."""
    contents = stored.contents_of_only(set(by.ids))
    if contents is not None:
        contents -= {key.tobytes() for key in by.arrays.get(CONTENT, ())}
    if contents != set():
        _forget(place, stored, contents)


def _forget(place: IndexLocation, stored: Index, contents: set[bytes] | None) -> None:
    """Delete vectors from the cache, by the sha256 of their files; None for all of them."""
    cache = place.folder / CACHE_FILE
    if not cache.exists():
        return
    if contents is None or any(content.startswith(NO_FILE) for content in contents):
        # An early index, or one of vectors, does not record file digests: delete the whole cache.
        for path in place.folder.glob(f"{CACHE_FILE}*"):
            path.unlink()
    elif contents:
        fingerprint = IndexMetadata.of(stored).fingerprint
        with EmbeddingCache(cache, fingerprint.digest) as opened:
            opened.forget(contents)
