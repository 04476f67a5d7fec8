"""Images that leave an index, and what its cache of vectors knows of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from annotator.encoders.cache import CACHE_FILE, EmbeddingCache
from annotator.indexing.metadata import recorded_encoder
from index import StoredIndex
from index.folder.change import Changed
from index.locations import locate
from index.protocols import Index, IndexLocation
from index.segments import CONTENT, Segment


def remove_images(
    directory: Path | str | IndexLocation, ids: Collection[str], *, missing_ok: bool = False
) -> Changed:
    """Remove images from an index, and their vectors from its cache.

    No search finds them any more; what the index holds of them is gone from the disk after
    `compact_index`.

    Args:
        directory: The index.
        ids: Of the images.
        missing_ok: Ids that the index does not have are no error.

    Raises:
        IndexProblem: As `index.folder.change.remove_rows`.
    """
    place = locate(directory)
    before = place.open()
    contents = before.contents_of_only(set(ids))
    change = place.remove_rows(ids, missing_ok=missing_ok)
    if change.removed:  # a process that was killed just now leaves it to `compact_index`
        _forget(place, before, contents)
    return change


def forget_removed(place: IndexLocation, stored: StoredIndex) -> None:
    """Delete the vectors of images that were removed from the cache."""
    if not stored.manifest["removed"]:
        return
    known = [segment.arrays.get(CONTENT) for segment in stored.segments]
    if any(keys is None for keys in known):
        _forget(place, stored, None)
        return
    rows = range(len(stored))
    live = {stored.content(row) for row in rows}
    stored_keys = {key.tobytes() for keys in known if keys is not None for key in keys}
    _forget(place, stored, stored_keys - live)


def forget_replaced(place: IndexLocation, stored: Index, by: Segment) -> None:
    """Delete the vectors of images that are about to be replaced from the cache.

    Args:
        place: The index.
        stored: The same, opened.
        by: Rows that take the place of those with the same ids.
    """
    contents = stored.contents_of_only(set(by.ids))
    if contents is not None:
        contents -= {key.tobytes() for key in by.arrays.get(CONTENT, ())}
    if contents != set():
        _forget(place, stored, contents)


def _forget(place: IndexLocation, stored: Index, contents: Collection[bytes] | None) -> None:
    """Delete vectors from the cache, by the sha256 of their files; None for all of them."""
    cache = place.folder / CACHE_FILE
    if not cache.exists():
        return
    if contents is None:
        # Built before the index knew its images' files: all that can be done is to forget all.
        for path in place.folder.glob(f"{CACHE_FILE}*"):
            path.unlink()
    elif contents:
        _, fingerprint = recorded_encoder(stored)
        with EmbeddingCache(cache, fingerprint.digest) as opened:
            opened.forget(contents)
