"""Frames of an image: which are used, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from PIL import Image

from annotator.errors import ImageError
from annotator.images.pixels import MAX_TOTAL_PIXELS, MIN_FRAME_PIXELS, is_blank

Frames = Literal["middle", "all"]

#: Most frames that one image gives with ``frames="all"``.
MAX_FRAMES = 64

#: What was done to a picture that its file did not ask for; stable codes.
Note = Literal[
    "window_ignored",
    "rescale_ignored",
    "alpha_ignored",
    "frame_replaced",
    "frames_left_out",
    "blank",
]

#: Each note in words.
NOTES: Mapping[Note, str] = {
    "window_ignored": "window or VOI LUT not applied, since it leaves a blank picture",
    "rescale_ignored": "rescale or modality LUT not applied, since it leaves a blank picture",
    "alpha_ignored": "transparency not applied, since it leaves a blank picture",
    "frame_replaced": "middle frame is blank; the nearest one that is not is used",
    "frames_left_out": "blank frames left out",
    "blank": "blank: all pixels have (nearly) the same value",
}

_TRIED_AT_ONCE = 8


@dataclass(frozen=True)
class Frame:
    """A decoded frame.

    Attributes:
        picture: Upright, 8 bits, mode "L" or "RGB".
        notes: What was done to it that the file did not ask for.
    """

    picture: Image.Image
    notes: tuple[Note, ...] = ()


class FrameReader(Protocol):
    """Interface of opened image files, of which no frame is decoded yet.

    Attributes:
        n_frames: Number of frames; thumbnails, masks and pyramid levels are none.
        pixels: Width x height of a frame.
    """

    n_frames: int
    pixels: int

    def read(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Decode the frames with these indices, lazily and in their order."""
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
            kept, notes = [nearest], ("frame_replaced",)
        elif allow_blank:
            kept, notes = read, ("blank",)
        else:
            message = "blank: all pixels have (nearly) the same value"
            raise ImageError(message, "Check it in an image viewer.", "blank")
    elif len(kept) < len(read):
        notes = ("frames_left_out",)
    for frame in kept:
        notes += frame.notes
    return Decoded([frame.picture for frame in kept], tuple(dict.fromkeys(notes)))


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


def _nearest_shown(reader: FrameReader, tried: Sequence[int]) -> Frame | None:
    """The frame nearest to the middle that is not blank, the later one of two equally near."""
    middle = reader.n_frames // 2
    others = sorted(
        set(range(reader.n_frames)).difference(tried), key=lambda i: (abs(i - middle), -i)
    )
    most = MAX_TOTAL_PIXELS // max(reader.pixels, MIN_FRAME_PIXELS)
    others = others[:most]
    for start in range(0, len(others), _TRIED_AT_ONCE):
        for frame in reader.read(others[start : start + _TRIED_AT_ONCE]):
            if not is_blank(frame.picture):
                return frame
    return None
