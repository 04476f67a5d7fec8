"""From bytes to pixels: the only place that opens an image, for every front door.

Formats: JPEG (with MPO, of which the primary picture is used), PNG, TIFF, BMP, WebP, GIF and
DICOM. Nothing else is ever parsed. Input is not trusted: sizes and frame counts are checked
before pixels are decoded, and whatever is wrong with a file comes out as an `ImageError`.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageFile

from annotator.errors import ImageError
from annotator.images import dicom
from annotator.images.pixels import (
    MAX_FRAMES,
    MAX_PIXELS,
    MAX_TOTAL_PIXELS,
    SMALLER_HINT,
    Frames,
    check_size,
    frame_indices,
    stretch,
)

__all__ = ["MAX_FRAMES", "MAX_PIXELS", "Frames", "decode"]

# An animation's frame needs all frames before it: a bound on that work, in pixels. Even the
# smallest frame costs about as much as one of this many pixels.
_MAX_ANIMATION_PIXELS = 1_000_000_000
_MIN_FRAME_PIXELS = 50_000
# A TIFF may chain pages, and a progressive JPEG scans, that are almost free to write but not to
# read. Real files hold about ten scans.
_MAX_PAGES = 10_000
_MAX_SCANS = 100

_VIEWER_HINT = "Open it in an image viewer to check it, and fetch or export it again."
_FORMATS_HINT = "Convert it to PNG, or leave it out."

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

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
)

# Pillow warns about odd metadata, which says nothing of use about the picture. Done once, for
# Pillow's modules alone: warnings.catch_warnings changes global state and so is no use here.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(
    data: bytes,
    *,
    frames: Frames = "middle",
    at_least: int | None = None,
    max_pixels: int = MAX_PIXELS,
    max_frames: int = MAX_FRAMES,
) -> list[Image.Image]:
    """Decode an image file, from its content alone, to 8-bit pictures.

    The pictures are upright (EXIF orientation), in mode "L" where the file is grey and "RGB"
    otherwise. Alpha is composited on black, palettes are resolved, greys of more than 8 bits are
    scaled by percentiles (`pixels.stretch`), DICOM is windowed (`dicom.decode`).
    Safe to call from many threads; the same bytes always give the same pixels.

    Args:
        data: The whole file.
        frames: What to use of a multi-frame DICOM, an animated GIF, WebP or PNG, or a TIFF of
            several pages: the "middle" one (index n // 2), or "all", which takes up to
            ``max_frames`` evenly spaced ones (fewer where frames are very large).
        at_least: The smallest width and height, in pixels, that the caller will scale to. A JPEG
            is then decoded at a half, a quarter or an eighth of its size, which is much quicker,
            but never below ``at_least`` on either side.
        max_pixels: Largest width x height of one frame.
        max_frames: Most frames that "all" gives.

    Returns:
        One picture per used frame, so one for ordinary images. Sizes may differ between the
        pages of a TIFF.

    Raises:
        ImageError: The file is empty, of another format, truncated, corrupt or too large. The
            message holds neither pixels nor DICOM values, nor the file's name, which is not
            known here.
        ValueError: ``frames``, ``at_least``, ``max_pixels`` or ``max_frames`` is out of range.
    """
    if frames not in ("middle", "all"):
        raise ValueError(f"frames must be 'middle' or 'all', not {frames!r}")
    if min(max_pixels, max_frames, 1 if at_least is None else at_least) < 1:
        raise ValueError("at_least, max_pixels and max_frames must be 1 or more")
    kind = _kind(data)
    try:
        with np.errstate(all="ignore"):  # of this thread alone; hostile floats overflow
            if kind == "DICOM":
                limits = {"max_pixels": max_pixels, "max_frames": max_frames}
                return dicom.decode(data, frames=frames, **limits)
            return _decode_with_pillow(data, kind, frames, at_least, max_pixels, max_frames)
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        # Parsers of hostile bytes fail in many ways (struct.error, SyntaxError, zlib.error, ...)
        # and their messages may quote the content, so the cause is left out on purpose.
        cut_off = isinstance(error, EOFError) or "truncated" in str(error).lower()
        reason = f"truncated {kind}" if cut_off else f"corrupt or unsupported {kind}"
        raise ImageError(reason, _VIEWER_HINT, "broken") from None


def _kind(data: bytes) -> str:
    """Name the format by its first bytes."""
    if not data:
        raise ImageError("empty file", "Fetch or export it again.", "empty")
    if data[128:132] == b"DICM":
        return "DICOM"
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if dicom.looks_like_dicom(data[:132]):
        return "DICOM"
    message = "not a JPEG, PNG, TIFF, BMP, WebP, GIF or DICOM image"
    raise ImageError(message, _FORMATS_HINT, "unknown_format")


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


def _decode_with_pillow(
    data: bytes,
    kind: str,
    frames: Frames,
    at_least: int | None,
    max_pixels: int,
    max_frames: int,
) -> list[Image.Image]:
    if kind == "JPEG" and data.count(b"\xff\xda") > _MAX_SCANS:
        message = f"JPEG of more than {_MAX_SCANS} scans"
        raise ImageError(message, _FORMATS_HINT, "too_many_frames")
    with _openers()[kind](io.BytesIO(data)) as image:
        check_size(*image.size, max_pixels)
        if kind == "JPEG" and at_least is not None:
            image.draft(None, (at_least, at_least))
        pixels = image.width * image.height
        indices = frame_indices(_count_frames(image, kind, data), pixels, frames, max_frames)
        work = indices[-1] * max(pixels, _MIN_FRAME_PIXELS)
        if kind in ("GIF", "PNG", "WebP") and work > _MAX_ANIMATION_PIXELS:
            message = f"{kind} animation of too many frames"
            raise ImageError(message, SMALLER_HINT, "too_many_frames")
        pictures: list[Image.Image] = []
        total = 0
        for index in indices:
            if index or kind == "TIFF":  # counting a TIFF's pages leaves it on its last one
                image.seek(index)
                check_size(*image.size, max_pixels)
                _check_tile(image, max_pixels)
            total += image.width * image.height
            if total > MAX_TOTAL_PIXELS and pictures:
                message = f"{len(indices)} frames are over the limit of {MAX_TOTAL_PIXELS} pixels"
                raise ImageError(message, SMALLER_HINT, "too_large")
            image.load()
            pictures.append(_upright(_to_8bit(image), image))
        return pictures


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
