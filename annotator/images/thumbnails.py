"""Thumbnails: small JPEGs of images."""

from __future__ import annotations

import io
from collections.abc import Generator, Sequence

from PIL import Image

from annotator.errors import ImageError
from annotator.images.decode import decode
from annotator.images.ordered_map import ordered_map
from annotator.images.ref import ImageRef

SIDE = 192  # pixels of the longer side
_QUALITY = 80


def make_thumbnails(refs: Sequence[ImageRef], *, workers: int) -> Generator[bytes, None, None]:
    """Thumbnails of `refs` in their order, made in threads; see `make_thumbnail`."""
    return ordered_map(make_thumbnail, refs, workers=workers)


def make_thumbnail(ref: ImageRef) -> bytes:
    """A JPEG of at most `SIDE` pixels a side; b"" if the image cannot be read."""
    try:
        picture = decode(ref.read(), at_least=SIDE)[0]
    except ImageError:
        return b""  # it was readable when it was embedded, and the case still counts
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()
