"""DICOM frames in colour: RGB, YCbCr and palettes (PS3.3, C.7.6.3.1.2) to 8-bit pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.errors import ImageError
from annotator.images.dicom.attributes import EXPORT_HINT
from annotator.images.dicom.luts import read_lut
from annotator.images.dicom.stored import Stored
from annotator.images.pixels import SHOWN_LEVELS, stretch, stripes

# Pixels that are converted at a time: what is made of them on the way fits in a cache.
_STRIPE = 1 << 15


def colour_picture(stored: Stored) -> Image.Image:
    """Make a picture of a frame in RGB or YCbCr.

    Samples of more than 8 bits are scaled by their declared depth. If that leaves a black picture,
    since a file uses far fewer bits than it declares, they are shown between percentiles.

    Args:
        stored: The frame, with values of three samples a pixel.

    Returns:
        A picture in mode "RGB".
    """
    values, bits = stored.values, stored.bits
    if bits > 8 and int(values.max()) >> (bits - 8) < SHOWN_LEVELS:
        values, bits = stretch(values), 8
    if bits == 8 and stored.photometric == "RGB":
        values = values.astype(np.uint8, copy=False)
        if values.flags.c_contiguous:
            return Image.fromarray(values)
        return Image.merge("RGB", [Image.fromarray(values[..., i]) for i in range(3)])
    is_422 = stored.photometric == "YBR_FULL_422"

    def samples(rows: slice) -> NDArray[np.uint8]:
        part = values[rows]
        part = part >> (bits - 8) if bits > 8 else part * (255 // ((1 << bits) - 1))
        part = part.astype(np.uint8)
        return _without_subsampling(part) if is_422 else part

    columns = values.shape[1] * (2 if is_422 else 1)
    mode = "YCbCr" if stored.photometric in ("YBR_FULL", "YBR_FULL_422") else "RGB"
    return _picture(samples, len(values), columns, mode)


def palette_picture(ds: Any, stored: Stored) -> Image.Image:
    """Make a picture of a frame in palette colours.

    Args:
        ds: The data set (`pydicom.Dataset`), with the palette.
        stored: The frame, with values of [rows, columns].

    Returns:
        A picture in mode "RGB".

    Raises:
        ImageError: The palette is missing or unusable.
    """
    values = stored.values
    if values.dtype.itemsize > 2 or values.dtype.kind == "f":
        message = "DICOM with palette colours of more than 16 bits"
        raise ImageError(message, EXPORT_HINT, "unsupported")
    codes = np.dtype(f"u{values.dtype.itemsize}")
    every = np.arange(1 << 8 * codes.itemsize, dtype=codes).view(values.dtype)
    # With a fourth byte, which is not used, the colours are words: quicker to look up.
    table = _palette(ds, every).view(np.uint32)[:, 0]
    places = values.view(codes)
    rows, columns = values.shape

    def samples(part: slice) -> NDArray[np.uint8]:
        words: NDArray[np.uint32] = table[places[part]]
        return words.view(np.uint8).reshape(-1, columns, 4)

    return _picture(samples, rows, columns, "RGB")


def _palette(ds: Any, values: NDArray[Any]) -> NDArray[np.uint8]:
    """uint8[n, 4]: the colours of n values, and 0."""
    _, is_little_endian = ds.original_encoding
    luts = []
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTable"
        segmented = f"Segmented{name}Data"
        lut = read_lut(
            ds,
            f"{name}Descriptor",
            segmented if segmented in ds else f"{name}Data",
            is_little_endian=is_little_endian,
            is_signed=values.dtype.kind == "i",
        )
        if lut is None:
            raise ImageError("DICOM without a usable palette", EXPORT_HINT, "broken")
        luts.append(lut)
    used_bits = max(lut.used_bits for lut in luts)
    colours = np.zeros((values.size, 4), np.uint8)
    for channel, lut in enumerate(luts):
        # Descriptors say 16 bits of entries of 8 bits, and 8 of entries of 16.
        bits = 8 if used_bits <= 8 else lut.bits if lut.bits >= lut.used_bits else 16
        colours[:, channel] = lut(values) >> max(0, bits - 8)
    return colours


def _without_subsampling(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8[rows, columns / 2, 4], two of Y with one of CB and CR, to uint8[rows, columns, 3]."""
    rows, pairs, _ = samples.shape
    full = np.empty((rows, pairs, 2, 3), np.uint8)
    full[..., 0] = samples[..., :2]
    full[..., 1:] = samples[..., None, 2:]
    return full.reshape(rows, 2 * pairs, 3)


def _picture(
    samples: Callable[[slice], NDArray[np.uint8]], rows: int, columns: int, mode: str
) -> Image.Image:
    """A picture in mode "RGB" of uint8[.., columns, 3 or 4] in mode "RGB" or "YCbCr".

    The fourth sample, if there is one, is not used.
    """
    picture = Image.new("RGB", (columns, rows))
    for some in stripes(rows, columns, _STRIPE):
        part = np.ascontiguousarray(samples(some))
        raw_mode = "RGBX" if part.shape[-1] == 4 else mode
        stripe = Image.frombuffer(mode, (columns, len(part)), part, "raw", raw_mode, 0, 1)
        picture.paste(stripe.convert("RGB") if mode != "RGB" else stripe, (0, some.start))
    return picture
