"""References to images, which are read on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from annotator.errors import ImageError

#: Largest image file that is read, in bytes.
MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Reference to an image, which is read on demand.

    Attributes:
        id: The file name without its image extension, or another id as `find_images` says.
        where: The file's path or "file.parquet row 12", for messages; always printable.
        read: Returns the encoded image, and may be called from any thread. Raises ImageError for
            a file that is missing, unreadable, not a file or over `MAX_BYTES`; its message does
            not repeat ``where``.
    """

    id: str
    where: str
    read: Callable[[], bytes]


def in_order_of(ids: Sequence[str], images: Sequence[ImageRef]) -> list[ImageRef]:
    """One image for each id, in that order; an id without an image fails when it is read."""
    by_id = {ref.id: ref for ref in images}
    return [
        by_id.get(id_)
        or unusable(id_, id_, "no image has this id", "Check the ids against the file names.")
        for id_ in ids
    ]


def check_file_size(size: int) -> None:
    """Refuse an image file of more than `MAX_BYTES`.

    Raises:
        ImageError: It is larger.
    """
    if size > MAX_BYTES:
        message = f"{size} bytes are over the limit of {MAX_BYTES}"
        raise ImageError(message, "Scale the image down or leave it out.", "too_large")


def unusable(id_: str, where: str, message: str, hint: str = "") -> ImageRef:
    """Reference to an image that cannot be used, whose `read` raises ImageError."""
    return ImageRef(id_, where, partial(_fail, message, hint))


def _fail(message: str, hint: str) -> bytes:
    raise ImageError(message, hint)
