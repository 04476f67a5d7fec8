"""Images that come to an index and go from it after it was built."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.collection import Collection
from annotator.encoders.cache import CACHE_FILE
from annotator.encoders.embedder import Embedder
from annotator.encoders.local_runner import embed_images
from annotator.encoders.runners import Runner
from annotator.indexing.embed_collection import (
    OnError,
    Spool,
    columns_of,
    embed_collection,
    projected,
    thumbnails_of,
)
from annotator.indexing.metadata import check_encoder, recorded_lists
from annotator.indexing.remove import forget_removed, forget_replaced
from annotator.knn.cross_validation import ARRAYS as TUNING
from annotator.knn.projection import Projection
from index import LabelTable, StoredIndex
from index.folder.change import Changed
from index.folder.writer import IndexType
from index.locations import locate
from index.milvus.kinds import MilvusKind
from index.protocols import IndexLocation
from index.segments import CONTENT, Segment


@dataclass(frozen=True)
class Added:
    """What adding images did.

    Attributes:
        change: Of the index.
        failed: Reason by place of each image that could not be used.
    """

    change: Changed
    failed: Mapping[str, str]


def add_images(
    collection: Collection,
    directory: Path | str | IndexLocation,
    embedder: Embedder,
    *,
    replace: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
    runner: Runner = embed_images,
    use_cache: bool = True,
    on_error: OnError = "skip",
) -> Added:
    """Add images with their concepts to an index, as it is fitted and tuned.

    The projection and the voting parameters stay; to fit and choose them anew, build again (vectors
    that are known are not computed again).

    Args:
        collection: Images with concepts.
        directory: The index.
        embedder: Must have the fingerprint that the index was built with.
        replace: Images whose id the index has take the place of those; otherwise they are refused.
        batch_size: Images that the encoder takes at once; None for what suits it.
        workers: Threads; None for the number of cores.
        runner: Embeds the images, here by default; see `make_runner`.
        use_cache: Look vectors up in, and add them to, the index's cache.
        on_error: "skip" leaves out images that cannot be used; "fail" stops at the first.

    Raises:
        AnnotatorError: No image could be used, or the encoder is another one.
        IndexProblem: There is no index, it has images with these ids already, or another process
            writes to it.
    """
    place = locate(directory)
    stored = place.open()
    check_encoder(embedder, stored)
    with contextlib.ExitStack() as stack:
        spool = stack.enter_context(Spool(place.folder))
        embedded = embed_collection(
            collection,
            embedder,
            spool,
            cache=place.folder / CACHE_FILE if use_cache else None,
            batch_size=batch_size,
            workers=workers,
            runner=runner,
            on_error=on_error,
        )
        ids, projection = embedded.ids, Projection.from_arrays(stored.arrays)
        arrays: dict[str, NDArray[Any]] = {CONTENT: embedded.contents}
        if stored.has_thumbnails:
            pictures = stack.enter_context(Spool(place.folder))
            arrays |= thumbnails_of(embedded.images, pictures, workers)
        rows = Segment(
            vectors=np.concatenate(list(projected(embedded.vectors, projection))),
            ids=ids,
            labels=LabelTable.from_sets([collection.concepts[id_] for id_ in ids]),
            names=collection.names,
            columns=columns_of(collection, ids),
            arrays=arrays,
        )
        if replace:
            forget_replaced(place, stored, rows)
        change = place.add_rows(rows, of=stored.version, over=replace)
    return Added(change, embedded.failed)


def compact_index(
    directory: Path | str | IndexLocation,
    *,
    index_type: IndexType | MilvusKind | None = None,
    target_recall: float | None = None,
) -> Changed:
    """Write an index anew as one piece, with nothing left of the images that were removed.

    Older versions of the index are deleted.

    Args:
        directory: The index.
        index_type: Another kind of index; None for the same.
        target_recall: Of an approximate kind; None for the same.

    Raises:
        IndexProblem: As `index.folder.change.compact`.
    """
    place = locate(directory)
    if index_type is not None:
        place.check_index_type(index_type)
    stored = place.open()
    if isinstance(stored, StoredIndex):
        forget_removed(place, stored)
    lists = recorded_lists(stored)
    others = {name: a for name, a in stored.arrays.items() if not name.startswith(TUNING)}
    return place.compact(
        of=stored.version,
        index_type=index_type,
        target_recall=target_recall,
        arrays=others | (lists.to_arrays() if lists is not None else {}),
    )
