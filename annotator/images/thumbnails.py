"""Small pictures of images, for people to look at."""

from __future__ import annotations

import io
from collections.abc import Generator, Sequence

from PIL import Image

from annotator.errors import ImageError
from annotator.images.decode import decode
from annotator.images.ordered_map import in_threads
from annotator.images.ref import ImageRef

SIDE = 192  # pixels of the longer side
_QUALITY = 80


def make_thumbnails(refs: Sequence[ImageRef], *, workers: int) -> Generator[bytes, None, None]:
    """Small JPEGs of `refs`, in their order; an image that cannot be read gives b"".

    Args:
        refs: The images.
        workers: Threads.
    """
    return in_threads(make_thumbnail, refs, workers=workers)


def make_thumbnail(ref: ImageRef) -> bytes:
    """A small JPEG of an image; b"" if it cannot be read."""
    try:
        picture = decode(ref.read(), at_least=SIDE)[0]
    except ImageError:
        return b""  # it was readable when it was embedded, and the cases go on counting
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()
