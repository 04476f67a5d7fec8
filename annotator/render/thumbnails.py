"""Thumbnails by image id, for pages and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from annotator.images.ref import ImageRef
from annotator.images.thumbnails import make_thumbnail
from index.protocols import Index

#: Function from image id to JPEG; b"" if there is none.
Thumbnails = Callable[[str], bytes]


def thumbnails_of(images: Sequence[ImageRef]) -> Thumbnails:
    """Make thumbnails from image files on demand."""
    by_id = {ref.id: ref for ref in images}
    return lambda image_id: make_thumbnail(by_id[image_id]) if image_id in by_id else b""


def index_thumbnails(stored: Index, images: Sequence[ImageRef] = ()) -> Thumbnails:
    """Look up thumbnails stored in an index, or else make them from `images`."""
    made = thumbnails_of(images)
    return lambda image_id: stored.thumbnail_of(image_id) or made(image_id)
