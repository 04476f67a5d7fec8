"""From stored samples, of any depth and with alpha, to 8-bit pictures in mode "L" or "RGB"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.images.frames import Frame
from annotator.images.pixels import is_washed_out, stretch

# Rows are taken this many pixels at a time, so that what is made of them stays small.
_STRIPE = 1 << 20
# Whether alpha hides a picture is told from about this many of its pixels.
_SAMPLE = 1 << 18
_SAMPLE_SIDE = 512


def frame_of(
    values: NDArray[Any],
    alpha: NDArray[Any] | None = None,
    *,
    inverted: bool = False,
) -> Frame:
    """Bring stored values to 8 bits.

    8-bit values are shown as they are and others, also signed ones, between percentiles
    (`pixels.stretch`): one window for all colours, so that hues stay.

    Args:
        values: [rows, columns] or [rows, columns, 3]. May be overwritten if writable.
        alpha: Opacity, [rows, columns], unsigned, its type's maximum for opaque; None if all is.
        inverted: Whether the least value is white.
    """
    if alpha is None or int(alpha.min()) == np.iinfo(alpha.dtype).max:
        return Frame(_picture(values, inverted))
    if _hides_all(*_few(values, alpha, inverted)):
        return Frame(_picture(values, inverted), ("alpha_ignored",))
    return Frame(_picture(_on_black(values, alpha, inverted), inverted))


def frame_of_image(image: Image.Image) -> Frame:
    """Bring a loaded image in any of Pillow's modes to mode "L" or "RGB".

    The result may share the memory of `image`, but holds no file.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return frame_of(np.asarray(image))
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


def stripes(height: int, width: int) -> Iterator[slice]:
    """Slices of the rows of a picture that hold about `_STRIPE` pixels each."""
    rows = max(1, _STRIPE // max(1, width))
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def _picture(values: NDArray[Any], inverted: bool) -> Image.Image:
    levels = values if values.dtype == np.uint8 else stretch(values)
    del values  # which the caller may have given up too: the picture needs the memory
    if inverted:
        levels = np.bitwise_not(levels, out=levels if levels.flags.writeable else None)
    return Image.fromarray(np.ascontiguousarray(levels))


def _few(
    values: NDArray[Any], alpha: NDArray[Any], inverted: bool
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Evenly spaced pixels of a picture, in 8 bits and without its alpha, and their alpha."""
    step = max(1, round((alpha.size / _SAMPLE) ** 0.5))
    few, opacity = values[::step, ::step], alpha[::step, ::step]
    levels = few if few.dtype == np.uint8 else stretch(few)
    shift = 8 * (alpha.dtype.itemsize - 1)
    return 255 - levels if inverted else levels, (opacity >> shift).astype(np.uint8)


def _hides_all(levels: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> bool:
    """Whether alpha loses the picture: nothing is left of it, or next to nothing."""
    opacity = alpha if levels.ndim == 2 else alpha[..., None]
    shown = levels.astype(np.uint16) * opacity // 255
    return is_washed_out(shown.astype(np.uint8), levels)


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
    levels, alpha = np.asarray(few.convert(mode)), np.asarray(few.getchannel("A"))
    if _hides_all(levels, alpha):
        return Frame(image.convert(mode), ("alpha_ignored",))
    picture = Image.new(mode, image.size)
    for rows in stripes(image.height, image.width):
        box = (0, rows.start, image.width, rows.stop)
        part = image.crop(box).convert(with_alpha)
        picture.paste(part.convert(mode), box, part.getchannel("A"))
    return Frame(picture)
