"""From stored samples, of any depth and with alpha, to 8-bit pictures in mode "L" or "RGB"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.images.frames import Frame, View
from annotator.images.pixels import (
    SHOWN_LEVELS,
    Levels,
    Window,
    extremes,
    is_washed_out,
    map_values,
    robust_range,
    robust_scale,
    stretch,
    stripes,
)

# Whether alpha leaves a picture is told from about this many of its pixels.
_SAMPLE_SIDE = 512
_SAMPLE = _SAMPLE_SIDE**2
# A picture of which alpha shows no more than this share is not shown by it.
_FEW = 0.001


def frame_of(
    values: NDArray[Any],
    alpha: NDArray[Any] | None = None,
    *,
    inverted: bool = False,
    view: View | None = None,
) -> Frame:
    """Bring stored values to 8 bits.

    8-bit values are shown as they are and others, also signed ones, between percentiles
    (`pixels.stretch`): one window for all colours, so that hues stay.

    Args:
        values: [rows, columns] or [rows, columns, 3]. May be overwritten if writable.
        alpha: Opacity, [rows, columns], unsigned, its type's maximum for opaque; None if all is.
        inverted: Whether the least value is white.
        view: As for `FrameReader.read`.
    """
    if alpha is None or int(alpha.min()) == np.iinfo(alpha.dtype).max:
        return _shown(values, inverted, view)
    if not _is_believed(values, alpha, inverted):
        return replace(_shown(values, inverted, view), notes=("alpha_ignored",))
    return _shown(_on_black(values, alpha, inverted), inverted, view)


def frame_of_image(image: Image.Image, view: View | None = None) -> Frame:
    """Bring a loaded image in any of Pillow's modes to 8 bits.

    The result may share the memory of `image`, but holds no file.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return frame_of(np.asarray(image), view=view)
    if image.mode == "1":
        return Frame(image.convert("L"))
    # Pillow says "P" of some frames of GIFs that are grey, and asks their missing palette in vain.
    no_palette = image.mode == "P" and image.palette is None
    mode = "L" if no_palette or image.mode in ("L", "LA", "La") else "RGB"
    if not no_palette and image.has_transparency_data:
        return _composited(image, mode)
    if image.mode != mode:
        return Frame(image.convert(mode))
    picture = image._new(image.im)  # what a copy is, but in no more memory
    picture.info = {}
    return Frame(picture)


def _shown(values: NDArray[Any], inverted: bool, view: View | None) -> Frame:
    if view is None or values.dtype == np.uint8:
        return Frame(_picture(values, inverted))
    window = view.window or Window.between(*robust_range(values))
    levels = Levels(*extremes(values), window)
    return Frame(_picture(values, inverted, view.window), levels=levels)


def _picture(values: NDArray[Any], inverted: bool, window: Window | None = None) -> Image.Image:
    scale: Callable[[NDArray[Any]], NDArray[np.uint8]] | None = None
    if window is not None:
        scale = window.__call__
    elif values.dtype != np.uint8:
        scale = robust_scale(values)
    height, width = values.shape[:2]
    picture = Image.new("L" if values.ndim == 2 else "RGB", (width, height))
    for rows in stripes(height, width):
        levels = values[rows] if scale is None else map_values(scale, values[rows])
        levels = np.ascontiguousarray(255 - levels if inverted else levels)
        picture.paste(Image.fromarray(levels), (0, rows.start))
    return picture


def _is_believed(values: NDArray[Any], alpha: NDArray[Any], inverted: bool) -> bool:
    """Whether alpha leaves a picture; it does not where (nearly) all is (nearly) transparent.

    Nor does it where what is left has no contrast although what is hidden has.
    """
    step = max(1, round((alpha.size / _SAMPLE) ** 0.5))
    values = values[::step, ::step]
    opacity = alpha[::step, ::step] / np.float32(np.iinfo(alpha.dtype).max)
    visible = opacity >= SHOWN_LEVELS / 255
    if visible.mean() <= _FEW:
        return False
    if values.ndim == 3:
        opacity, visible = opacity[..., None], np.repeat(visible[..., None], 3, axis=2)
    levels = values if values.dtype == np.uint8 else stretch(values, ignore=~visible)
    levels = 255 - levels if inverted else levels
    shown = (levels * opacity).astype(np.uint8)
    # A visible part may well have more contrast, to black, than all of the picture.
    return bool(np.ptp(shown) >= np.ptp(levels)) or not is_washed_out(shown, levels)


def _on_black(values: NDArray[Any], alpha: NDArray[Any], inverted: bool) -> NDArray[Any]:
    """Composite on black: the background of radiographs, and what most tools show.

    They drop the alpha channel, and transparent pixels are usually stored as black.
    """
    shown = values if values.flags.writeable else np.empty_like(values)
    opaque = np.iinfo(alpha.dtype).max
    black = _black(values, inverted)
    for rows in stripes(*alpha.shape):
        weights = alpha[rows].astype(np.float64) / opaque
        if values.ndim == 3:
            weights = weights[..., None]
        part = values[rows] * weights + black * (1 - weights)
        shown[rows] = np.rint(part) if values.dtype.kind in "iu" else part
    return shown


def _black(values: NDArray[Any], inverted: bool) -> Any:
    if inverted:
        return 255 if values.dtype == np.uint8 else values.max()
    return 0 if values.dtype.kind == "u" else values.min()


def _composited(image: Image.Image, mode: str) -> Frame:
    """An image with alpha, on black (see `_on_black`), a stripe at a time."""
    with_alpha = "LA" if mode == "L" else "RGBA"
    reduced = (min(image.width, _SAMPLE_SIDE), min(image.height, _SAMPLE_SIDE))
    few = image.resize(reduced, Image.Resampling.NEAREST).convert(with_alpha)
    if not _is_believed(np.asarray(few.convert(mode)), np.asarray(few.getchannel("A")), False):
        return Frame(image.convert(mode), ("alpha_ignored",))
    picture = Image.new(mode, image.size)
    for rows in stripes(image.height, image.width):
        box = (0, rows.start, image.width, rows.stop)
        part = image.crop(box).convert(with_alpha)
        picture.paste(part.convert(mode), box, part.getchannel("A"))
    return Frame(picture)
