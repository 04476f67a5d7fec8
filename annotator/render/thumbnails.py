"""Thumbnails by image id, for pages and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from annotator.images.ref import ImageRef
from annotator.images.thumbnails import make_thumbnail
from index.protocols import Index

#: A JPEG by image id; b"" where there is none.
Thumbnails = Callable[[str], bytes]


def thumbnails_of(images: Sequence[ImageRef]) -> Thumbnails:
    """Thumbnails made from image files, each when it is asked for."""
    by_id = {ref.id: ref for ref in images}
    return lambda image_id: make_thumbnail(by_id[image_id]) if image_id in by_id else b""


def index_thumbnails(stored: Index, images: Sequence[ImageRef] = ()) -> Thumbnails:
    """Thumbnails that an index keeps, or else made from `images`."""
    made = thumbnails_of(images)
    return lambda image_id: stored.thumbnail_of(image_id) or made(image_id)
