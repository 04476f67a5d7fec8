"""Raster image files: JPEG, PNG, TIFF, BMP, WebP and GIF, read by Pillow.

Input is not trusted: sizes and frame counts are checked before pixels are decoded.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageFile

from annotator.errors import ImageError
from annotator.images.frames import Frame
from annotator.images.pixels import (
    MAX_TOTAL_PIXELS,
    MIN_FRAME_PIXELS,
    SMALLER_HINT,
    check_size,
    stretch,
)

# An animation's frame needs all frames before it: a bound on that work, in pixels.
_MAX_ANIMATION_PIXELS = 1_000_000_000
# A TIFF may chain pages, and a progressive JPEG scans, that are almost free to write but not to
# read. Real files hold about ten scans.
_MAX_PAGES = 10_000
_MAX_SCANS = 100

_EXIF_ORIENTATION = 0x0112
# Exif 2.3, 4.6.4 A "Orientation": what brings the stored picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns about odd metadata, which says nothing of use about the picture. Done once, for
# Pillow's modules alone: warnings.catch_warnings changes global state and so is no use here.
warnings.filterwarnings("ignore", module=r"PIL\.")


@cache
def _openers() -> dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]]:
    """Pillow's reader of each format.

    They are called directly because `PIL.Image.open` refuses large images before it tells their
    size, and because no other format can then be reached, whatever is registered with Pillow.
    """
    from PIL import (
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    return {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "WebP": WebPImagePlugin.WebPImageFile,
    }


class RasterReader:
    """A raster image file, opened; see `annotator.images.frames.FrameReader`.

    Args:
        data: The whole file.
        kind: Its format, a key of `_openers`.
        at_least: The smallest width and height that the caller will scale to, or None; see
            `annotator.images.decode`.
        max_pixels: Largest width x height of one frame.

    Raises:
        ImageError: The image is too large, or has too many scans or pages.
        Exception: Pillow's own, on corrupt input.
    """

    def __init__(self, data: bytes, kind: str, at_least: int | None, max_pixels: int) -> None:
        if kind == "JPEG" and data.count(b"\xff\xda") > _MAX_SCANS:
            message = f"JPEG of more than {_MAX_SCANS} scans"
            raise ImageError(message, "Convert it to PNG, or leave it out.", "too_many_frames")
        self._data, self._kind, self._max_pixels = data, kind, max_pixels
        self._image = image = _openers()[kind](io.BytesIO(data))
        check_size(*image.size, max_pixels)
        if kind == "JPEG" and at_least is not None:
            image.draft(None, (at_least, at_least))
        self.n_frames = _count_frames(image, kind, data)
        self.pixels = image.width * image.height

    def read(self, indices: Sequence[int]) -> Iterator[Frame]:
        work = max(indices) * max(self.pixels, MIN_FRAME_PIXELS)
        if self._kind in ("GIF", "PNG", "WebP") and work > _MAX_ANIMATION_PIXELS:
            message = f"{self._kind} animation of too many frames"
            raise ImageError(message, SMALLER_HINT, "too_many_frames")
        total = 0
        for index in indices:
            image = self._at(index)
            total += image.width * image.height
            if total > MAX_TOTAL_PIXELS and index != indices[0]:
                message = f"{len(indices)} frames are over the limit of {MAX_TOTAL_PIXELS} pixels"
                raise ImageError(message, SMALLER_HINT, "too_large")
            image.load()
            yield Frame(_upright(_to_8bit(image), image))

    def _at(self, index: int) -> ImageFile.ImageFile:
        """The opened image at a frame."""
        if self._kind == "TIFF":  # counting its pages left it on the last
            self._image.seek(index)
            check_size(*self._image.size, self._max_pixels)
            _check_tile(self._image, self._max_pixels)
        elif index != self._image.tell():
            if index < self._image.tell():  # Pillow cannot go back in every animation
                self._image = _openers()[self._kind](io.BytesIO(self._data))
            self._image.seek(index)
            check_size(*self._image.size, self._max_pixels)
        return self._image


def _count_frames(image: ImageFile.ImageFile, kind: str, data: bytes) -> int:
    """Number of frames, counted without decoding any of them."""
    if kind == "GIF":
        return max(1, _count_gif_frames(data))
    if kind == "TIFF":
        return _count_pages(image)
    return int(getattr(image, "n_frames", 1)) if kind in ("PNG", "WebP") else 1


def _count_gif_frames(data: bytes) -> int:
    """Walk the blocks of a GIF (GIF89a specification, appendix B) and count its pictures.

    Pillow's own count has no bound, and costs far more per frame.
    """

    def colour_table(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    count = 0
    position = 13 + colour_table(data[10])
    while position + 9 < len(data):
        if data[position] == 0x2C:  # image descriptor
            count += 1
            position += 11 + colour_table(data[position + 9])
        elif data[position] == 0x21:  # extension
            position += 2
        else:
            break
        while position < len(data) and data[position]:  # data sub-blocks
            position += 1 + data[position]
        position += 1
    return count


def _count_pages(image: ImageFile.ImageFile) -> int:
    """Number of pages of a TIFF; a page that cannot be read ends the chain."""
    for page in range(1, _MAX_PAGES + 1):
        try:
            image.seek(page)
        except Exception:
            return page
    message = f"TIFF of more than {_MAX_PAGES} pages"
    raise ImageError(message, "Split it into smaller files.", "too_many_frames")


def _check_tile(image: ImageFile.ImageFile, max_pixels: int) -> None:
    """Refuse a TIFF whose tiles are larger than any picture may be: each is held in memory."""
    width, length = (getattr(image, "tag_v2", {}).get(tag) for tag in (322, 323))
    if width is not None and length is not None:
        check_size(int(width), int(length), max_pixels)


def _to_8bit(image: Image.Image) -> Image.Image:
    """Convert any of Pillow's modes to a new picture in mode "L" or "RGB"."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = stretch(np.asarray(image))
        if getattr(image, "tag_v2", {}).get(262) == 0:
            grey = 255 - grey  # TIFF WhiteIsZero, which Pillow applies to 8 bits and fewer only
        return Image.fromarray(grey)
    if image.mode == "1":
        return image.convert("L")
    # Pillow says "P" of some frames of GIFs that are grey, and asks their missing palette in vain.
    no_palette = image.mode == "P" and image.palette is None
    mode = "L" if no_palette or image.mode in ("L", "LA", "La") else "RGB"
    if not no_palette and image.has_transparency_data:
        # On black: the background of radiographs, and what most tools show, since they drop the
        # alpha channel and transparent pixels are usually stored as black.
        opaque = image.convert("LA" if mode == "L" else "RGBA")
        picture = Image.new(mode, image.size)
        picture.paste(opaque.convert(mode), mask=opaque.getchannel("A"))
        return picture
    return image.copy() if image.mode == mode else image.convert(mode)


def _upright(picture: Image.Image, source: Image.Image) -> Image.Image:
    """Apply the EXIF orientation of `source`; broken metadata never costs a good picture."""
    try:
        orientation = source.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:
        return picture
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture
