"""Limits, choice of frames and scaling to 8 bits, common to all image formats."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from annotator.errors import ImageError

Frames = Literal["middle", "all"]

#: Largest width x height of one frame; below the size at which Pillow itself warns.
MAX_PIXELS = 80_000_000
#: Largest width or height: what JPEG and GIF can hold. Pictures of a few rows that are longer occur
#: in hostile files alone, and take decoders up to a hundred times longer per pixel.
MAX_SIDE = 65_535
#: Most frames that one image gives with ``frames="all"``.
MAX_FRAMES = 64
#: Most pixels of all the frames of one image together.
MAX_TOTAL_PIXELS = 5 * MAX_PIXELS

SMALLER_HINT = "Scale the image down, or raise the limit if you trust the file."

# Percentiles are taken over about this many evenly spaced pixels: exact enough, and quick.
_SAMPLE = 1 << 20


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse a frame that is empty or too large, from its header alone.

    Raises:
        ImageError: Width or height is below 1, or ``width * height`` is over ``max_pixels``,
            or one of the two over `MAX_SIDE`.
    """
    if width < 1 or height < 1:
        message = f"{width} x {height} pixels is not an image"
        raise ImageError(message, "Leave it out.", "no_pixels")
    if max(width, height) > MAX_SIDE:
        message = f"{width} x {height} pixels is over the limit of {MAX_SIDE} for one side"
        raise ImageError(message, SMALLER_HINT, "too_large")
    if width * height > max_pixels:
        message = f"{width} x {height} pixels is over the limit of {max_pixels}"
        raise ImageError(message, SMALLER_HINT, "too_large")


def frame_indices(n_frames: int, pixels: int, frames: Frames, max_frames: int) -> list[int]:
    """Indices of the frames to use: the middle one, or evenly spaced ones.

    Args:
        n_frames: Frames in the image, at least 1.
        pixels: Width x height of one frame; "all" takes no more frames than fit in
            :data:`MAX_TOTAL_PIXELS`, but always one.
        frames: "middle" for index ``n_frames // 2`` alone, or "all".
        max_frames: Most frames that "all" takes.

    Returns:
        Increasing indices without repeats: the midpoints of equal parts of the sequence.
    """
    count = 1
    if frames == "all":
        count = max(1, min(n_frames, max_frames, MAX_TOTAL_PIXELS // pixels))
    return [(2 * i + 1) * n_frames // (2 * count) for i in range(count)]


def stretch(values: NDArray[Any], ignore: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Scale grey values of any depth to 8 bits by a robust window.

    The 0.5th percentile becomes 0 and the 99.5th 255, since the file does not say which part of
    its range holds the picture (12-bit data in a 16-bit file would come out almost black). Where
    those two are equal the minimum and maximum take their place; a constant image becomes black.

    Args:
        values: Integers or floats of any shape; NaN becomes 0, infinities 0 and 255.
        ignore: Pixels that do not count for the percentiles, of the same shape.

    Returns:
        uint8, of the shape of ``values``.
    """
    counted = values.reshape(-1) if ignore is None else values[~ignore]
    if counted.dtype.kind == "f":
        counted = counted[np.isfinite(counted)]
    if counted.size == 0:
        return np.zeros(values.shape, np.uint8)
    low, high = np.percentile(counted[:: -(-counted.size // _SAMPLE)], (0.5, 99.5))
    if not low < high:
        low, high = float(counted.min()), float(counted.max())
    if not low < high:
        return np.zeros(values.shape, np.uint8)
    # float32 holds 16-bit values exactly; wider ones may need more.
    scaled: NDArray[np.floating[Any]]
    scaled = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    scaled -= low
    scaled *= 255.0 / (high - low)
    np.nan_to_num(scaled, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    return to_uint8(scaled)


def to_uint8(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Round to the nearest of 0..255; overwrites `values`, of which there is no NaN."""
    np.clip(values, 0, 255, out=values)
    np.rint(values, out=values)
    return values.astype(np.uint8)
