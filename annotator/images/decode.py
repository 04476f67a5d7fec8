"""From bytes to pixels: the only place that opens an image, for every front door.

Formats: JPEG (with MPO, of which the primary picture is used), PNG, TIFF, BMP, WebP, GIF, AVIF,
JPEG 2000, NIfTI and DICOM. Nothing else is ever parsed. Input is not trusted: sizes and frame
counts are checked before pixels are decoded, and whatever is wrong with a file comes out as an
`ImageError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from annotator.errors import ImageError
from annotator.images.frames import (
    MAX_FRAMES,
    Decoded,
    FrameReader,
    Frames,
    View,
    choose_frames,
    frame_indices,
    shown_frame,
)
from annotator.images.kinds import recognise
from annotator.images.notes import Note
from annotator.images.pixels import (
    MAX_DEFLATED_BYTES,
    MAX_NIFTI_BYTES,
    MAX_PIXELS,
    Levels,
    Window,
)

__all__ = ["MAX_FRAMES", "MAX_PIXELS", "Decoded", "Frames", "Shown", "decode", "show"]

#: Memory that decoding takes at most, for each pixel of the first frame: measured on pictures of
#: 64 million pixels, 19.4 for JPEG 2000, 16 for WebP, 12 for PNG of 16 bits, 7 for TIFF.
BYTES_PER_PIXEL = 20

_MOST_INFLATED = 1032  # bytes for each deflated one
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # transfer syntax UID (PS3.5, A.5)
_VIEWER_HINT = "Open it in an image viewer to check it, and fetch or export it again."


def decode(
    data: bytes,
    *,
    frames: Frames = "middle",
    at_least: int | None = None,
    allow_blank: bool = False,
    max_pixels: int = MAX_PIXELS,
    max_frames: int = MAX_FRAMES,
    claim: Callable[[int], object] | None = None,
    apart: Callable[[int], Decoded] | None = None,
) -> Decoded:
    """Decode an image file, from its content alone, to 8-bit pictures.

    The pictures are upright (EXIF orientation), in mode "L" where the file is grey and "RGB"
    otherwise. Alpha is composited on black, palettes are resolved, values of other than 8 bits are
    scaled by percentiles (`pixels.stretch`), DICOM is windowed (`dicom.DicomReader`). A
    transformation that leaves a (nearly) constant picture of values that are not is not applied,
    and a blank frame gives way to the nearest that is not; `Decoded.notes` tells of it.
    Safe to call from many threads; the same bytes always give the same pixels.

    Args:
        data: The whole file.
        frames: What to use of a multi-frame DICOM, an animation, a TIFF of several pages or a
            NIfTI volume: the "middle" one (index n // 2), or "all", which takes up to
            ``max_frames`` evenly spaced ones (fewer where frames are very large).
        at_least: The smallest width and height, in pixels, that the caller will scale to. A JPEG
            is then decoded at a half, a quarter or an eighth of its size, which is much quicker,
            but never below ``at_least`` on either side.
        allow_blank: Return a picture that is (nearly) constant instead of refusing it.
        max_pixels: Largest width x height of one frame.
        max_frames: Most frames that "all" gives.
        claim: Called with the most bytes of memory that the file is going to take in all, before
            it takes them; may refuse that by raising.
        apart: Decodes the file in another process, given the most bytes of memory that it is going
            to take. Called for files that a thread had better not decode (JPEG 2000, compressed
            DICOM; see `FrameReader.needs_process`); without it, they are decoded here.

    Returns:
        One picture per used frame, so one for ordinary images, and what was done to them that the
        file did not ask for. Sizes may differ between the pages of a TIFF.

    Raises:
        ImageError: The file is empty, of another format, truncated, corrupt, too large or blank.
            The message holds neither pixels nor DICOM values, nor the file's name, which is not
            known here.
        ValueError: ``frames``, ``at_least``, ``max_pixels`` or ``max_frames`` is out of range.
    """
    if frames not in ("middle", "all"):
        raise ValueError(f"frames must be 'middle' or 'all', not {frames!r}")
    if min(max_pixels, max_frames, 1 if at_least is None else at_least) < 1:
        raise ValueError("at_least, max_pixels and max_frames must be 1 or more")
    kind, data, reader = _opened(data, at_least, max_pixels, claim)
    n = len(frame_indices(reader.n_frames, reader.pixels, frames, max_frames))
    memory = reader.pixels * (BYTES_PER_PIXEL + 3 * (n - 1)) + _opening_bytes(data, kind)
    if claim is not None:
        claim(memory)
    if apart is not None and reader.needs_process:
        return apart(memory)
    with _understood(kind):
        return choose_frames(reader, frames, max_frames=max_frames, allow_blank=allow_blank)


@dataclass(frozen=True)
class Shown:
    """A frame as a person looks at it.

    Attributes:
        picture: Upright, mode "L" or "RGB".
        frame: Its index.
        n_frames: Frames in the file.
        levels: Its grey values, and the window that is shown. Those of a picture of 8 bits a sample
            are 0 to 255, also in colour.
        notes: What was done to it that the file did not ask for.
    """

    picture: Image.Image
    frame: int
    n_frames: int
    levels: Levels
    notes: tuple[Note, ...]


def show(
    data: bytes,
    *,
    frame: int | None = None,
    window: Window | None = None,
    side: int | None = None,
    max_pixels: int = MAX_PIXELS,
    claim: Callable[[int], object] | None = None,
    apart: Callable[[int], Shown] | None = None,
) -> Shown:
    """Decode one frame of an image file for a person to look at.

    Without a window it is the picture that `decode` gives.

    Args:
        data: The whole file.
        frame: Index of the frame; None for the one that ``decode(frames="middle")`` uses.
        window: Instead of what the file asks for: in the file's values, after any rescale.
        side: The picture is scaled down to this longer side, in pixels.
        max_pixels: As for `decode`.
        claim: As for `decode`.
        apart: As for `decode`.

    Raises:
        ImageError: As `decode`, but for blank frames.
        IndexError: There is no such frame; the message says how many there are.
        ValueError: The window has no width.
    """
    if window is not None and not window.width > 0:
        raise ValueError(f"a window has a width above 0, not {window.width}")
    kind, data, reader = _opened(data, side, max_pixels, claim)
    if frame is not None and not 0 <= frame < reader.n_frames:
        raise IndexError(f"there are {reader.n_frames} frames")
    memory = reader.pixels * BYTES_PER_PIXEL + _opening_bytes(data, kind)
    if claim is not None:
        claim(memory)
    if apart is not None and reader.needs_process:
        return apart(memory)
    with _understood(kind):
        index, decoded = shown_frame(reader, frame, View(window))
    picture, levels = decoded.picture, decoded.levels
    if side is not None:
        picture.thumbnail((side, side), Image.Resampling.BICUBIC)
    if levels is None:
        levels = Levels(0.0, 255.0, window or Window.between(0.0, 255.0))
        if window is not None:
            table = window(np.arange(256)).tolist()
            picture = picture.point(table * len(picture.getbands()))
    return Shown(picture, index, reader.n_frames, levels, decoded.notes)


def _opened(
    data: bytes,
    at_least: int | None,
    max_pixels: int,
    claim: Callable[[int], object] | None,
) -> tuple[str, bytes, FrameReader]:
    """Format, content and reader of a file, as for `decode`."""
    kind, data = recognise(data)
    if claim is not None:
        claim(_opening_bytes(data, kind))
    with _understood(kind):
        return kind, data, _open(data, kind, at_least, max_pixels)


@contextmanager
def _understood(kind: str) -> Iterator[None]:
    """Turn whatever a parser says of a file into an `ImageError`."""
    try:
        with np.errstate(all="ignore"):  # of this thread alone; hostile floats overflow
            yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        # Parsers of hostile bytes fail in many ways (struct.error, SyntaxError, zlib.error, ...)
        # and their messages may quote the content, so the cause is left out on purpose.
        cut_off = isinstance(error, EOFError) or "truncated" in str(error).lower()
        reason = f"truncated {kind}" if cut_off else f"corrupt or unsupported {kind}"
        raise ImageError(reason, _VIEWER_HINT, "broken") from None


def _opening_bytes(data: bytes, kind: str) -> int:
    """The most memory that opening a file takes: that of what it inflates to."""
    if kind == "NIfTI" and data.startswith(b"\x1f\x8b"):
        return min(MAX_NIFTI_BYTES, _MOST_INFLATED * len(data))
    if kind == "DICOM" and _DEFLATED in data[:1024]:
        return min(3 * MAX_DEFLATED_BYTES, _MOST_INFLATED * len(data))
    return 0


def looks_like_image(head: bytes) -> bool:
    """Whether a file is of a format that `decode` reads, by its first bytes (512 suffice)."""
    try:
        recognise(head)
    except ImageError:
        return False
    return True


def _open(data: bytes, kind: str, at_least: int | None, max_pixels: int) -> FrameReader:
    # Imported where they are needed: most runs have files of one kind.
    if kind == "DICOM":
        from annotator.images.dicom import DicomReader

        return DicomReader(data, max_pixels)
    if kind == "TIFF":
        from annotator.images.tiff import TiffReader

        return TiffReader(data, max_pixels)
    if kind == "NIfTI":
        from annotator.images.nifti import NiftiReader

        return NiftiReader(data, max_pixels)
    from annotator.images.raster import RasterReader

    return RasterReader(data, kind, at_least, max_pixels)
