"""Frames of an image: which are used, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from PIL import Image

from annotator.errors import ImageError
from annotator.images.notes import Note
from annotator.images.pixels import (
    MAX_TOTAL_PIXELS,
    MIN_FRAME_PIXELS,
    Levels,
    Window,
    is_blank,
)

Frames = Literal["middle", "all"]

#: Most frames that one image gives with ``frames="all"``.
MAX_FRAMES = 64

# Frames that are tried at first in place of blank ones, and then twice as many each time.
_TRIED_FIRST = 8
_BLANK_HINT = "Check it in an image viewer; --allow-blank of most commands uses it all the same."


@dataclass(frozen=True)
class View:
    """How a person looks at a frame.

    Attributes:
        window: Shown instead of what the file asks for; None for that.
    """

    window: Window | None = None


@dataclass(frozen=True)
class Frame:
    """A decoded frame.

    Attributes:
        picture: Upright, 8 bits, mode "L" or "RGB".
        notes: What was done to it that the file did not ask for.
        levels: Its grey values, for a `View` of a picture that has other than 8 bits.
    """

    picture: Image.Image
    notes: tuple[Note, ...] = ()
    levels: Levels | None = None


class FrameReader(Protocol):
    """Interface of opened image files, of which no frame is decoded yet.

    Attributes:
        n_frames: Number of frames; thumbnails, masks and pyramid levels are none.
        pixels: Width x height of a frame.
        needs_process: Whether a thread that decodes it may stop all others for as long, or be
            stopped by nothing: it is better decoded in a process of its own.
    """

    n_frames: int
    pixels: int
    needs_process: bool

    def read(self, indices: Sequence[int], view: View | None = None) -> Iterator[Frame]:
        """Decode the frames with these indices, lazily and in their order.

        With a view they have levels, and the window that it asks for if they have other than 8
        bits.
        """
        ...


@dataclass(frozen=True)
class Decoded:
    """The decoded frames of an image.

    Attributes:
        frames: Pictures in mode "L" or "RGB", at least one. Sizes may differ.
        notes: What was done to any of them that the file did not ask for, without repeats.
    """

    frames: list[Image.Image]
    notes: tuple[Note, ...] = ()


def choose_frames(
    reader: FrameReader, frames: Frames, *, max_frames: int = MAX_FRAMES, allow_blank: bool = False
) -> Decoded:
    """Decode the middle frame or evenly spaced ones; blank ones give way to others.

    Args:
        reader: The opened file.
        frames: "middle" or "all".
        max_frames: Most frames that "all" takes.
        allow_blank: Return blank frames where there are no others.

    Raises:
        ImageError: All frames are blank (code "blank"), or as `reader`.
    """
    wanted = frame_indices(reader.n_frames, reader.pixels, frames, max_frames)
    read = list(reader.read(wanted))
    kept = [frame for frame in read if not is_blank(frame.picture)]
    notes: tuple[Note, ...] = ()
    if not kept:
        nearest = _nearest_shown(reader, wanted)
        if nearest is not None:
            kept, notes = [nearest[1]], ("frame_replaced",)
        elif allow_blank:
            kept, notes = read, ("blank",)
        else:
            message = "blank: all pixels have (nearly) the same value"
            raise ImageError(message, _BLANK_HINT, "blank")
    elif len(kept) < len(read):
        notes = ("frames_left_out",)
    for frame in kept:
        notes += frame.notes
    return Decoded([frame.picture for frame in kept], tuple(dict.fromkeys(notes)))


def shown_frame(reader: FrameReader, index: int | None, view: View) -> tuple[int, Frame]:
    """Decode one frame for a person to look at, who may well want to see that it is blank.

    Args:
        reader: The opened file.
        index: Of the frame; None for the middle one or, if that is blank, the nearest that is not.
        view: How it is shown.

    Returns:
        Its index, and the frame.

    Raises:
        Exception: As `reader`.
    """
    wanted = reader.n_frames // 2 if index is None else index
    (frame,) = reader.read([wanted], view)
    if index is None and is_blank(frame.picture):
        other = _nearest_shown(reader, [wanted], view)
        if other is not None:
            return other
    return wanted, frame


def frame_indices(n_frames: int, pixels: int, frames: Frames, max_frames: int) -> list[int]:
    """Indices of the frames to use: the middle one, or evenly spaced ones.

    Args:
        n_frames: Frames in the image, at least 1.
        pixels: Width x height of one frame; "all" takes no more frames than fit in
            `MAX_TOTAL_PIXELS`, but always one.
        frames: "middle" for index ``n_frames // 2`` alone, or "all".
        max_frames: Most frames that "all" takes.

    Returns:
        Increasing indices without repeats: the midpoints of equal parts of the sequence.
    """
    count = 1
    if frames == "all":
        count = max(1, min(n_frames, max_frames, MAX_TOTAL_PIXELS // pixels))
    return [(2 * i + 1) * n_frames // (2 * count) for i in range(count)]


def _nearest_shown(
    reader: FrameReader, tried: Sequence[int], view: View | None = None
) -> tuple[int, Frame] | None:
    """The frame nearest to the middle that is not blank, the later one of two equally near."""
    middle = reader.n_frames // 2

    def distance(index: int) -> tuple[int, int]:
        return abs(index - middle), -index

    others = sorted(set(range(reader.n_frames)).difference(tried), key=distance)
    others = others[: MAX_TOTAL_PIXELS // max(reader.pixels, MIN_FRAME_PIXELS)]
    start, size = 0, _TRIED_FIRST
    while start < len(others):
        # Upwards, since an animation has to be read from its beginning for each step back.
        some = sorted(others[start : start + size])
        nearest: tuple[int, Frame] | None = None
        try:
            for index, frame in zip(some, reader.read(some, view), strict=True):
                closer = nearest is None or distance(index) < distance(nearest[0])
                if closer and not is_blank(frame.picture):
                    nearest = index, frame
        except MemoryError:
            raise
        except Exception:  # a frame that nobody asked for: the image is what it was without it
            return nearest
        if nearest is not None:
            return nearest
        start, size = start + size, 2 * size
    return None
