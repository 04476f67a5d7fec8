"""Raster image files but TIFF: JPEG, PNG, BMP, WebP, GIF, AVIF and JPEG 2000, read by Pillow.

Input is not trusted: sizes and frame counts are checked before pixels are decoded.
"""

from __future__ import annotations

import importlib
import io
import logging
import re
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from PIL import Image, ImageFile

from annotator.errors import ImageError
from annotator.images.frames import Frame, View
from annotator.images.pixels import (
    MIN_FRAME_PIXELS,
    SMALLER_HINT,
    check_size,
    check_total,
    stretch,
    stripes,
)
from annotator.images.samples import frame_of, frame_of_image

# An animation's frame needs all frames before it: a bound on that work, in pixels.
_MAX_ANIMATION_PIXELS = 1_000_000_000
_ANIMATIONS = ("GIF", "PNG", "WebP", "AVIF")
# Scans of a progressive JPEG are almost free to write but not to read. Real files hold about ten.
_MAX_SCANS = 100
# Real files hold some tens of segments of metadata, or boxes, before the picture.
_MAX_SEGMENTS = 10_000
_CONVERT_HINT = "Convert it to PNG, or leave it out."

# The start of a frame (ITU-T T.81, B.2.2) of 9 to 16 bits a sample and at most 4 components.
_JPEG_OF_MANY_BITS = re.compile(rb"\xff[\xc0-\xc3\xc5-\xcf]\0[\x0b\x0e\x11\x14]([\x09-\x10])")

_EXIF_ORIENTATION = 0x0112
# Exif 2.3, 4.6.4 A "Orientation": what brings the stored picture upright. TIFF 6.0 says the same.
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
logging.getLogger("PIL").setLevel(logging.CRITICAL)


# Pillow's reader of each format: module and class.
_READERS = {
    "JPEG": ("JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PngImagePlugin", "PngImageFile"),
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "WebP": ("WebPImagePlugin", "WebPImageFile"),
    "AVIF": ("AvifImagePlugin", "AvifImageFile"),
    "JPEG 2000": ("Jpeg2KImagePlugin", "Jpeg2KImageFile"),
}


@cache
def _reader_of(kind: str) -> Callable[[io.BytesIO], ImageFile.ImageFile]:
    """Pillow's reader of a format.

    It is called directly because `PIL.Image.open` refuses large images before it tells their size,
    and because no other format can then be reached, whatever is registered with Pillow.
    """
    module, name = _READERS[kind]
    reader: Callable[[io.BytesIO], ImageFile.ImageFile]
    reader = getattr(importlib.import_module(f"PIL.{module}"), name)
    return reader


class RasterReader:
    """A raster image file, opened; see `annotator.images.frames.FrameReader`.

    Args:
        data: The whole file.
        kind: Its format, a key of `_READERS`.
        at_least: The smallest width and height that the caller will scale to, or None; see
            `annotator.images.decode`.
        max_pixels: Largest width x height of one frame.

    Raises:
        ImageError: The image is too large, has too many scans, or is encoded in a way that is not
            read.
        Exception: Pillow's own, on corrupt input.
    """

    def __init__(self, data: bytes, kind: str, at_least: int | None, max_pixels: int) -> None:
        if kind == "JPEG" and _has_several_scans(data) and data.count(b"\xff\xda") > _MAX_SCANS:
            message = f"JPEG of more than {_MAX_SCANS} scans"
            raise ImageError(message, _CONVERT_HINT, "too_many_frames")
        self._data, self._kind, self._max_pixels = data, kind, max_pixels
        self._image = image = self._opened()
        check_size(*image.size, max_pixels)
        self._is_deep = _is_deep(image, data)
        if kind == "JPEG" and at_least is not None:
            image.draft(None, (at_least, at_least))
        self.n_frames = _count_frames(image, kind, data)
        self.pixels = image.width * image.height
        self.needs_process = kind == "JPEG 2000"  # Pillow holds Python's lock meanwhile
        self._work = 0

    def read(self, indices: Sequence[int], view: View | None = None) -> Iterator[Frame]:
        total = 0
        for index in indices:
            if index < self._image.tell():  # Pillow cannot go back in every animation
                self._image = self._opened()
            self._count_work(index - self._image.tell())
            if index != self._image.tell():
                self._image.seek(index)
                check_size(*self._image.size, self._max_pixels)
            total += self._image.width * self._image.height
            check_total(total, len(indices))
            yield self._frame(self._image, view)

    def _count_work(self, frames: int) -> None:
        """Refuse an animation once too many frames had to be decoded to get to others."""
        self._work += frames * max(self.pixels, MIN_FRAME_PIXELS)
        if self._kind in _ANIMATIONS and self._work > _MAX_ANIMATION_PIXELS:
            message = f"{self._kind} animation of too many frames"
            raise ImageError(message, SMALLER_HINT, "too_many_frames")

    def _opened(self) -> ImageFile.ImageFile:
        try:
            return _reader_of(self._kind)(io.BytesIO(self._data))
        except SyntaxError:  # Pillow's word for a file that it does not understand
            if self._kind == "JPEG" and (bits := _JPEG_OF_MANY_BITS.search(self._data)):
                message = f"JPEG of {bits[1][0]} bits a sample"
                raise ImageError(message, _CONVERT_HINT, "unsupported") from None
            raise

    def _frame(self, image: ImageFile.ImageFile, view: View | None) -> Frame:
        if self._is_deep and self._kind == "PNG" and self.n_frames == 1:
            frame = _deep_png(image, self._opened(), view)
        else:
            image.load()
            frame = frame_of_image(image if self.n_frames == 1 else image.copy(), view)
            if self._is_deep and not image.mode.startswith("I"):
                # Pillow gives the high bytes alone, of which a file may use a few levels.
                frame = Frame(Image.fromarray(stretch(np.asarray(frame.picture))), frame.notes)
        return replace(frame, picture=upright(frame.picture, _orientation(image)))


def upright(picture: Image.Image, orientation: int) -> Image.Image:
    """Bring a picture upright by its EXIF or TIFF orientation, 1 to 8; others mean nothing."""
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; broken metadata never costs a good picture."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:
        return 1


def _is_deep(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Whether an image has more than 8 bits a sample."""
    if image.format == "PNG":
        return str(image.tile[0].args).endswith(";16B")
    return image.format == "JPEG2000" and _codestream_depth(data, image.size) > 8


def _deep_png(image: ImageFile.ImageFile, again: ImageFile.ImageFile, view: View | None) -> Frame:
    """A PNG of 16 bits a sample, of which Pillow's own modes hold 8 but for plain grey.

    Args:
        image: The file, opened.
        again: The same, for a second pass: Pillow gives the high bytes of colours in one and,
            told that they are little-endian, the low bytes in another.
        view: As for `FrameReader.read`.

    Both are closed early, which frees 4 bytes a pixel each.
    """
    (tile,) = image.tile
    width, height = image.size
    key = image.info.get("transparency")  # the stored value that is transparent
    alpha = None
    if image.mode.startswith("I"):
        image.load()
        values = np.array(image, np.uint16)
    elif tile.args == "LA;16B":
        image.tile = [tile._replace(args="RGBA")]  # as stored: two bytes of grey, two of alpha
        image.load()
        values, alpha = np.empty((2, height, width), np.uint16)
        for rows in stripes(height, width):
            pairs = np.asarray(image.crop((0, rows.start, width, rows.stop))).view(">u2")
            values[rows], alpha[rows] = pairs[..., 0], pairs[..., 1]
        image.close()
    else:
        values = np.zeros((height, width, 3), np.uint16)
        alpha = np.zeros((height, width), np.uint16) if image.mode == "RGBA" else None
        again.tile = [tile._replace(args=str(tile.args).replace(";16B", ";16L"))]
        for part, shift in ((image, 8), (again, 0)):
            part.load()
            for rows in stripes(height, width):
                pixels = np.asarray(part.crop((0, rows.start, width, rows.stop)), np.uint16)
                values[rows] |= pixels[..., :3] << shift
                if alpha is not None:
                    alpha[rows] |= pixels[..., 3] << shift
            part.close()
    if key is not None:
        hidden = values == np.array(key, np.uint16)
        alpha = np.where(hidden.all(axis=2) if values.ndim == 3 else hidden, 0, 255).astype(
            np.uint8
        )
    return frame_of(values, alpha, view=view)


def _codestream_depth(data: bytes, size: tuple[int, int]) -> int:
    """Bits a sample of a JPEG 2000 image, by the SIZ marker of its codestream.

    See ISO 15444-1, A.5.1 (SIZ) and I.4 (boxes).

    Raises:
        ImageError: The codestream is missing, or of another size than the header says: it would be
            decoded at its own.
    """
    position, is_file = 0, data[4:8] == b"jP  "
    for _ in range(_MAX_SEGMENTS if is_file else 0):
        length, kind = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        if kind == b"jp2c":
            position = start
            break
        position += length
    _, _, _, *sides, n = struct.unpack_from(">HHH8IH", data, position + 2)
    width, height, left, top = sides[:4]
    if (width - left, height - top) != size:
        message = "JPEG 2000 codestream of another size than its header says"
        raise ImageError(message, _CONVERT_HINT, "broken")
    return max(1 + (bits & 0x7F) for bits in data[position + 42 : position + 42 + 3 * n : 3])


def _has_several_scans(data: bytes) -> bool:
    """Whether a JPEG may have several scans: unless it is sequential and its first has all.

    Walks the marker segments up to the first scan (ITU-T T.81, B.1.1).
    """
    position, n_components, is_progressive = 2, 0, False
    for _ in range(_MAX_SEGMENTS):
        if data[position : position + 1] != b"\xff" or position + 10 > len(data):
            break
        marker = data[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of a frame
            is_progressive = marker in (0xC2, 0xC6, 0xCA, 0xCE)
            n_components = data[position + 9]
        elif marker == 0xDA:
            return is_progressive or data[position + 4] < n_components
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return True


def _count_frames(image: ImageFile.ImageFile, kind: str, data: bytes) -> int:
    """Number of frames, counted without decoding any of them."""
    if kind == "GIF":
        return max(1, _count_gif_frames(data))
    return int(getattr(image, "n_frames", 1)) if kind in _ANIMATIONS else 1


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
