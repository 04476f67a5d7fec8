"""Heat as colour over a picture: orange speaks for, blue against."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.explain.attribution import Heat

FOR, AGAINST = (255, 122, 0), (0, 114, 255)  # told apart with any kind of colour vision
_OPACITY = 0.72  # of the strongest
_STEPS = 4  # pixels a cell of a layer; the viewer enlarges it smoothly


def layer(heat: Heat, size: tuple[int, int] | None = None) -> Image.Image:
    """The heat as an "RGBA" picture to lay over the image.

    Colours are relative to the strongest cell, for or against.

    Args:
        heat: Of one concept.
        size: Width and height in pixels; None for a few pixels a cell.
    """
    grid = heat.grid / max(float(np.abs(heat.grid).max()), 1e-12)
    rows, columns = grid.shape
    size = size or (columns * _STEPS, rows * _STEPS)
    smooth = Image.fromarray(grid.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    values: NDArray[np.float32] = np.clip(np.asarray(smooth), -1, 1)
    pixels = np.empty((*values.shape, 4), np.uint8)
    pixels[..., :3] = np.where((values > 0)[..., None], FOR, AGAINST)
    # 16 steps: the eye sees no more of a soft edge, and the file is a third as long.
    strength = np.round(np.abs(values) * 16) / 16
    pixels[..., 3] = np.round(255 * _OPACITY * strength)
    return Image.fromarray(pixels, "RGBA")


def blended(picture: Image.Image, heat: Heat) -> Image.Image:
    """The picture with the heat laid over it, "RGB"."""
    under = picture.convert("RGBA")
    return Image.alpha_composite(under, layer(heat, picture.size)).convert("RGB")


def png(picture: Image.Image) -> bytes:
    """A picture as a PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def jpeg(picture: Image.Image) -> bytes:
    """An "L" or "RGB" picture as a JPEG."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85, optimize=True)
    return file.getvalue()
