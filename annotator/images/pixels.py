"""Limits, scaling to 8 bits and tests of what is left, common to all image formats."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.errors import ImageError

#: Largest width x height of one frame; below the size at which Pillow itself warns.
MAX_PIXELS = 80_000_000
#: Largest width or height: what JPEG and GIF can hold. Pictures of a few rows that are longer occur
#: in hostile files alone, and take decoders up to a hundred times longer per pixel.
MAX_SIDE = 65_535
#: Most pixels of all the frames of one image together.
MAX_TOTAL_PIXELS = 5 * MAX_PIXELS
#: Even the smallest frame costs about as much to read as one of this many pixels.
MIN_FRAME_PIXELS = 50_000

#: Most bytes of a NIfTI volume: a megabyte of gzip can inflate to a gigabyte; CT of 1,000 slices
#: has half of this.
MAX_NIFTI_BYTES = 1 << 29
#: Most bytes that a deflated DICOM data set may inflate to, of which pydicom makes two copies.
MAX_DEFLATED_BYTES = 1 << 28

SMALLER_HINT = "Scale the image down, or raise the limit if you trust the file."

#: A picture whose pixels lie within this many grey levels is blank: noise of a sensor or of
#: compression at most. Of 7,397 real images the flattest spans 81.
BLANK_LEVELS = 8
#: A window that leaves fewer grey levels than this has lost the picture: a tenth of the range.
SHOWN_LEVELS = 25

# Percentiles are taken over about this many evenly spaced pixels: exact enough, and quick.
_SAMPLE = 1 << 18
_GLANCE = 1 << 14
# Values that are taken at a time, so that what is made of them on the way stays small.
_STRIPE = 1 << 18


class Window(NamedTuple):
    """The part of the range of grey values that is shown, from black to white.

    Attributes:
        center: Its middle.
        width: Above 0.
    """

    center: float
    width: float

    @classmethod
    def between(cls, low: float, high: float) -> Window:
        """From a value to a greater one; of width 1 where they are equal."""
        return cls((low + high) / 2, high - low if low < high else 1.0)

    def __call__(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Bring values to 8 bits; NaN becomes 0, infinities 0 and 255."""
        scaled = (values.astype(np.float64) - self.center) / self.width
        scaled += 0.5
        scaled *= 255
        return to_uint8(np.nan_to_num(scaled, copy=False, nan=0, posinf=255, neginf=0))


class Levels(NamedTuple):
    """The grey values of a frame: the least, the greatest, and the window that is shown."""

    low: float
    high: float
    window: Window


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse a frame that is empty or too large, from its header alone.

    Raises:
        ImageError: Width or height is below 1, or ``width * height`` is over ``max_pixels``,
            or one of the two over `MAX_SIDE`.
    """
    if width < 1 or height < 1:
        message = f"{width} x {height} pixels is not an image"
        raise ImageError(message, "Leave it out.", "broken")
    if max(width, height) > MAX_SIDE:
        message = f"{width} x {height} pixels is over the limit of {MAX_SIDE} for one side"
        raise ImageError(message, SMALLER_HINT, "too_large")
    if width * height > max_pixels:
        message = f"{width} x {height} pixels is over the limit of {max_pixels}"
        raise ImageError(message, SMALLER_HINT, "too_large")


def check_total(pixels: int, n_frames: int) -> None:
    """Refuse frames that together, so far, have more than `MAX_TOTAL_PIXELS` pixels.

    Raises:
        ImageError: They have, and there are several.
    """
    if pixels > MAX_TOTAL_PIXELS and n_frames > 1:
        message = f"{n_frames} frames are over the limit of {MAX_TOTAL_PIXELS} pixels"
        raise ImageError(message, SMALLER_HINT, "too_large")


def stretch(values: NDArray[Any], ignore: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Scale grey or colour values of any depth to 8 bits by a robust window.

    The 0.5th percentile becomes 0 and the 99.5th 255, since the file does not say which part of
    its range holds the picture (12-bit data in a 16-bit file would come out almost black). Where
    those two are equal the minimum and maximum take their place; a constant image becomes black.

    Args:
        values: Integers or floats, [rows, ...]; NaN becomes 0, infinities 0 and 255.
        ignore: Pixels that do not count for the percentiles, of the same shape.

    Returns:
        uint8, of the shape of ``values``.
    """
    return map_values(robust_scale(values, ignore), values)


def robust_scale(
    values: NDArray[Any], ignore: NDArray[np.bool_] | None = None
) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
    """The function by which `stretch` scales these values, for any part of them."""
    low, high = robust_range(values, ignore)

    def scale(part: NDArray[Any]) -> NDArray[np.uint8]:
        if not low < high:
            return np.zeros(part.shape, np.uint8)
        # float32 holds 16-bit values exactly; wider ones may need more.
        scaled: NDArray[np.floating[Any]]
        scaled = part.astype(np.float32 if part.dtype.itemsize <= 2 else np.float64)
        scaled -= low
        scaled *= 255.0 / (high - low)
        np.nan_to_num(scaled, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
        return to_uint8(scaled)

    return scale


def map_values(
    function: Callable[[NDArray[Any]], NDArray[np.uint8]], values: NDArray[Any]
) -> NDArray[np.uint8]:
    """Apply an elementwise function to the values of a picture, in little extra memory.

    Integers of up to 16 bits go through a table of all values of their type, which is computed
    once; others are taken a few rows at a time.

    Args:
        function: Maps an array to uint8 of the same shape, each element by itself.
        values: [rows, ...].

    Returns:
        uint8, of the shape of ``values``.
    """
    table = None
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2 and values.size > 1 << 16:
        codes = np.dtype(f"u{values.dtype.itemsize}")
        native = values.dtype.newbyteorder("=")
        table = function(np.arange(1 << 8 * codes.itemsize, dtype=codes).view(native))
    result = np.empty(values.shape, np.uint8)
    for rows in _stripes_of(values):
        if table is None:
            result[rows] = function(values[rows])
        else:  # a stripe at a time: numpy makes 8 bytes of each index
            part = np.ascontiguousarray(values[rows], native)
            np.take(table, part.view(codes), out=result[rows], mode="clip")
    return result


def stripes(height: int, width: int, at_once: int = _STRIPE) -> Iterator[slice]:
    """Slices of the rows of a picture that hold about so many pixels, or values, each."""
    rows = max(1, at_once // max(1, width))
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def is_blank(picture: Image.Image) -> bool:
    """Whether a picture in mode "L" or "RGB" is (nearly) constant.

    All but 0.1 % of its pixels lie within `BLANK_LEVELS` grey levels in each band.
    """
    # A few pixels settle it for nearly all pictures.
    sample = picture.resize((64, 64), Image.Resampling.NEAREST)
    if _level_range(sample, outside=0.02) > BLANK_LEVELS:
        return False
    return _level_range(picture, outside=0.001) <= BLANK_LEVELS


def is_washed_out(
    grey: NDArray[np.uint8], values: NDArray[Any], ignore: NDArray[np.bool_] | None = None
) -> bool:
    """Whether a window or look-up table lost the picture that the values hold.

    It did if it left fewer than `SHOWN_LEVELS` grey levels between the darkest and the brightest
    pixel, or one level but for a few pixels (0.5 % at either end) where the values themselves
    spread over a tenth of their range or more.

    Args:
        grey: uint8[rows, columns], after the transformation.
        values: [rows, columns], before it.
        ignore: Pixels that do not count, of the same shape.
    """
    few = _sample(grey, ignore)
    fewer = few[:: -(-few.size // _GLANCE) or 1]  # which settles it for nearly all pictures
    if fewer.size and np.ptp(fewer) >= SHOWN_LEVELS and _spread(fewer) > 2:
        return False
    counted = grey if ignore is None else grey[~ignore]
    if not counted.size:
        return False
    kept = values if ignore is None else values[~ignore]
    low, high = extremes(kept)
    if not low < high:
        return False
    if np.ptp(counted) < SHOWN_LEVELS:
        return True
    return _spread(few) <= 2 and _spread(_sample(values, ignore)) >= (high - low) / 10


def to_uint8(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Round to the nearest of 0..255; overwrites `values`, of which there is no NaN."""
    np.clip(values, 0, 255, out=values)
    np.rint(values, out=values)
    return values.astype(np.uint8)


def robust_range(
    values: NDArray[Any], ignore: NDArray[np.bool_] | None = None
) -> tuple[float, float]:
    """The 0.5th and 99.5th percentiles; the finite extremes where those are equal."""
    low, high = _percentiles(_sample(values, ignore))
    if low < high:
        return low, high
    return extremes(values if ignore is None else values[~ignore])


def extremes(values: NDArray[Any]) -> tuple[float, float]:
    """The least and the greatest finite value; 0, 0 where there is none."""
    low, high = np.inf, -np.inf
    for rows in _stripes_of(values):
        part = values[rows]
        if part.dtype.kind == "f":
            part = part[np.isfinite(part)]
        if part.size:
            low, high = min(low, float(part.min())), max(high, float(part.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def _percentiles(sample: NDArray[Any]) -> tuple[float, float]:
    """The 0.5th and 99.5th percentile of the finite values of a sample; 0, 0 without any."""
    if sample.dtype.kind == "f":
        sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 0.0
    low, high = np.percentile(sample, (0.5, 99.5)).tolist()
    return low, high


def _spread(sample: NDArray[Any]) -> float:
    """Difference of the two `_percentiles`."""
    low, high = _percentiles(sample)
    return high - low


def _sample(values: NDArray[Any], ignore: NDArray[np.bool_] | None = None) -> NDArray[Any]:
    """About `_SAMPLE` evenly spaced values in one dimension, all of them where there are fewer.

    Those that are to be ignored are left out of them.
    """
    if ignore is not None:
        sample: NDArray[Any] = _sample(values)[~_sample(ignore)]
        return sample
    step = -(-values.size // _SAMPLE) or 1
    if step == 1:
        return values.reshape(-1)
    while math.gcd(step, values[0].size) > 1:  # otherwise a few columns stand for all
        step += 1
    # `flat` goes through an array that is not contiguous without a copy of all of it.
    return values.reshape(-1)[::step] if values.flags.c_contiguous else values.flat[::step]


def _stripes_of(values: NDArray[Any]) -> Iterator[slice]:
    return stripes(len(values), math.prod(values.shape[1:]))


def _level_range(picture: Image.Image, *, outside: float) -> int:
    """Grey levels that all pixels but this share (half at either end) lie within; widest band."""
    histogram = picture.histogram()
    widest = 0
    for band in range(0, len(histogram), 256):
        counts = list(accumulate(histogram[band : band + 256]))
        low = bisect_right(counts, counts[-1] * outside / 2)
        high = bisect_left(counts, counts[-1] * (1 - outside / 2))
        widest = max(widest, high - low)
    return widest
