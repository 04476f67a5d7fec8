"""References to images, which are read on demand, and image ids."""

# os.path rather than pathlib: Path objects of 80,000 names take a second.
# ruff: noqa: PTH119, PTH122

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from annotator.errors import ImageError

#: Largest image file that is read, in bytes.
MAX_BYTES = 1 << 30

IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".tif", ".tiff", ".bmp", ".dib"}
    | {".webp", ".gif", ".dcm", ".dicom", ".ima"}
)


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Reference to an image, which is read on demand.

    Attributes:
        id: The file name without its image extension, or a table's image id.
        where: The file's path or "file.parquet row 12", for messages; always printable.
        read: Returns the encoded image, and may be called from any thread. Raises ImageError for
            a file that is missing, unreadable, not a file or over `MAX_BYTES`; its message does
            not repeat ``where``.
    """

    id: str
    where: str
    read: Callable[[], bytes]


def image_id(name: str) -> str:
    """The image id of a path or file name: its last part, less an image extension.

    Only the extension of an image format is one: the dots of a DICOM UID stay.
    """
    name = os.path.basename(name)
    stem, extension = os.path.splitext(name)
    return printable(stem if extension.lower() in IMAGE_EXTENSIONS else name)


def printable(path: str) -> str:
    r"""A path as text that can be written as UTF-8: bytes that are not become ``\xNN``."""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")


def in_order_of(ids: Sequence[str], images: Sequence[ImageRef]) -> list[ImageRef]:
    """One image for each id, in that order; an id without an image fails when it is read."""
    by_id = {ref.id: ref for ref in images}
    return [by_id.get(id_) or ImageRef(id_, id_, _no_image) for id_ in ids]


def check_file_size(size: int) -> None:
    """Refuse an image file of more than `MAX_BYTES`.

    Raises:
        ImageError: It is larger.
    """
    if size > MAX_BYTES:
        message = f"{size} bytes are over the limit of {MAX_BYTES}"
        raise ImageError(message, "Scale the image down or leave it out.", "too_large")


def _no_image() -> bytes:
    raise ImageError("no image has this id", "Check the ids against the file names.")
