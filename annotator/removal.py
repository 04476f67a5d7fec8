"""Images that leave an index, and what its cache of vectors knows of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from annotator.embed.cache import CACHE_FILE, EmbeddingCache
from annotator.record import recorded_encoder
from index import StoredIndex, open_index
from index.change import Changed, remove_rows
from index.segments import CONTENT, Segment


def remove_images(
    directory: Path | str, ids: Collection[str], *, missing_ok: bool = False
) -> Changed:
    """Remove images from an index, and their vectors from its cache.

    No search finds them any more; what the index holds of them is gone from the disk after
    `compact_index`.

    Args:
        directory: The index.
        ids: Of the images.
        missing_ok: Ids that the index does not have are no error.

    Raises:
        IndexProblem: As `index.change.remove_rows`.
    """
    directory = Path(directory)
    change = remove_rows(directory, ids, missing_ok=missing_ok)
    forget_removed(directory, open_index(directory))
    return change


def forget_removed(directory: Path, stored: StoredIndex) -> None:
    """Delete the vectors of images that were removed from the cache."""
    if stored.manifest["removed"]:
        _forget(directory, stored, _contents(stored) - _live_contents(stored, set()))


def forget_images(
    directory: Path, stored: StoredIndex, ids: Collection[str], *, but: Segment
) -> None:
    """Delete the vectors of images that are about to be replaced from the cache.

    Args:
        directory: The index.
        stored: Has the images.
        ids: Of the images.
        but: Rows that take their place.
    """
    if not ids:
        return
    leaving = {stored.content(row) for row, id_ in enumerate(stored.ids) if id_ in ids}
    kept = _live_contents(stored, ids) | {key.tobytes() for key in but.arrays.get(CONTENT, ())}
    _forget(directory, stored, {key for key in leaving if key is not None} - kept)


def _contents(stored: StoredIndex) -> set[bytes]:
    """Of all rows that are stored, those that were removed among them."""
    known = (segment.arrays.get(CONTENT) for segment in stored.segments)
    return {key.tobytes() for keys in known if keys is not None for key in keys}


def _live_contents(stored: StoredIndex, without: Collection[str]) -> set[bytes]:
    rows = (row for row, id_ in enumerate(stored.ids) if id_ not in without)
    return {key for row in rows if (key := stored.content(row)) is not None}


def _forget(directory: Path, stored: StoredIndex, contents: Collection[bytes]) -> None:
    cache = directory / CACHE_FILE
    if not cache.exists():
        return
    if any(CONTENT not in segment.arrays for segment in stored.segments):
        # Built before the index knew its images' files: all that can be done is to forget all.
        for path in directory.glob(f"{CACHE_FILE}*"):
            path.unlink()
    elif contents:
        _, fingerprint = recorded_encoder(stored)
        with EmbeddingCache(cache, fingerprint.digest) as opened:
            opened.forget(contents)
