"""Small grey pictures of images, for a program to compare."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.errors import ImageError
from annotator.images.decode import decode
from annotator.images.ordered_map import ordered_map
from annotator.images.ref import ImageRef
from index.progress import track

SIDE = 64  # pixels; 4 kB an image


def make_glances(refs: Sequence[ImageRef], *, workers: int) -> NDArray[np.uint8]:
    """uint8[n, 64, 64]: each image in grey, stretched to a square; black if it cannot be read.

    Args:
        refs: The images.
        workers: Threads.
    """
    glances = np.zeros((len(refs), SIDE, SIDE), np.uint8)
    with contextlib.closing(ordered_map(glance_at, refs, workers=workers)) as made:
        for i, glance in enumerate(track(made, total=len(refs), label="Looking")):
            glances[i] = glance
    return glances


def glance(data: bytes, side: int = SIDE) -> NDArray[np.uint8]:
    """uint8[side, side]: one image in grey, stretched to a square.

    Raises:
        ImageError: It cannot be decoded.
    """
    picture = decode(data, at_least=2 * side)[0].convert("L")
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))


def glance_at(ref: ImageRef, side: int = SIDE) -> NDArray[np.uint8]:
    """As `glance`; black if the image cannot be read."""
    try:
        return glance(ref.read(), side)
    except (ImageError, MemoryError):
        return np.zeros((side, side), np.uint8)
