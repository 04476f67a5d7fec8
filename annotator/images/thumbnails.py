"""Thumbnails: JPEGs for people, square grey pictures for programs to compare."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Generator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.errors import ImageError
from annotator.images.decode import decode
from annotator.images.ordered_map import ordered_map
from annotator.images.ref import ImageRef
from index.progress import track

SIDE = 192  # pixels of the longer side
_QUALITY = 80


def make_thumbnails(refs: Sequence[ImageRef], *, workers: int) -> Generator[bytes, None, None]:
    """Thumbnails of `refs` in their order, made in threads; see `make_thumbnail`."""
    return ordered_map(make_thumbnail, refs, workers=workers)


def make_thumbnail(ref: ImageRef) -> bytes:
    """A JPEG of at most `SIDE` pixels a side; b"" if the image cannot be read."""
    try:
        picture = decode(ref.read(), at_least=SIDE, allow_blank=True).frames[0]
    except ImageError:
        return b""  # it was readable when it was embedded, and the case still counts
    return thumbnail_of(picture)


def thumbnail_of(picture: Image.Image) -> bytes:
    """A JPEG of at most `SIDE` pixels a side, of an "L" or "RGB" picture, which may be changed."""
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()


def grey_thumbnails(refs: Sequence[ImageRef], side: int, *, workers: int) -> NDArray[np.uint8]:
    """uint8[n, side, side]: each image in grey, stretched to a square; black if unreadable.

    Args:
        refs: The images.
        side: In pixels.
        workers: Threads.
    """
    thumbnails = np.zeros((len(refs), side, side), np.uint8)
    made = ordered_map(partial(grey_thumbnail_of, side=side), refs, workers=workers)
    with contextlib.closing(made):
        for i, thumbnail in enumerate(track(made, total=len(refs), label="Thumbnails")):
            thumbnails[i] = thumbnail
    return thumbnails


def grey_thumbnail(data: bytes, side: int) -> NDArray[np.uint8]:
    """uint8[side, side]: an image file in grey, stretched to a square.

    Raises:
        ImageError: It cannot be decoded.
    """
    decoded = decode(data, at_least=2 * side, allow_blank=True)
    picture = decoded.frames[0].convert("L")
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))


def grey_thumbnail_of(ref: ImageRef, side: int) -> NDArray[np.uint8]:
    """uint8[side, side]: as `grey_thumbnail`; black if the image cannot be read."""
    try:
        return grey_thumbnail(ref.read(), side)
    except (ImageError, MemoryError):
        return np.zeros((side, side), np.uint8)
