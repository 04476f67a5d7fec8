"""The blank background of a picture, whose heat would say nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_GREY_LEVELS = 8  # of 255; what compression and noise leave of a constant


def blank_cells(picture: Image.Image, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Find the cells of a grid over a picture in whose neighbourhood nothing is drawn.

    The neighbourhood of a cell is the cell and the up to eight around it. It is blank if its pixels
    differ by at most 8 of 255 levels in each channel.

    Args:
        picture: "L" or "RGB".
        shape: Rows and columns of the grid.

    Returns:
        bool[shape].
    """
    pixels = np.asarray(picture).reshape(picture.height, picture.width, -1).astype(np.int16)
    low, high = (_reduce_cells(reduce, pixels, shape) for reduce in (np.minimum, np.maximum))
    blank: NDArray[np.bool_] = (high - low).max(axis=2) <= _GREY_LEVELS
    return blank


def _reduce_cells(
    reduce: np.ufunc, pixels: NDArray[np.int16], shape: tuple[int, int]
) -> NDArray[np.int16]:
    """Minimum or maximum of the pixels of each cell and its neighbours, int16[*shape, channels]."""
    cells = pixels
    for axis, count in enumerate(shape):
        cells = reduce.reduceat(cells, np.arange(count) * pixels.shape[axis] // count, axis=axis)
    for axis, count in enumerate(shape):
        padded = np.pad(cells, [(1, 1) if i == axis else (0, 0) for i in range(3)], "edge")
        sides = [padded.take(np.arange(count) + shift, axis=axis) for shift in range(3)]
        cells = reduce.reduce(sides)
    return cells
