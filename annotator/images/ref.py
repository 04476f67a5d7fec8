"""References to images, which are read on demand, and image ids."""

# os.path rather than pathlib: Path objects of 80,000 names take a second.
# ruff: noqa: PTH119, PTH122

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from annotator.errors import ImageError

#: Largest image file that is read, in bytes.
MAX_BYTES = 1 << 30

#: Extensions that settle that a file is an image.
IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".tif", ".tiff", ".bmp", ".dib"}
    | {".webp", ".gif", ".avif", ".jp2", ".j2k", ".j2c", ".jpf", ".jpx"}
    | {".dcm", ".dicom", ".ima", ".nii", ".nii.gz"}
)
# Of DICOM files too, but of others as well (.img is also Analyze's).
_DICOM_EXTENSIONS = frozenset({".dcm30", ".dic", ".img", ".acr"})

_DIGITS = re.compile("([0-9]+)")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


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


def image_extension(name: str) -> str:
    """The extension of a path or file name in lower case if it is an image's, or ""."""
    extension = _extension(name)
    return extension if extension in IMAGE_EXTENSIONS else ""


def image_id(name: str) -> str:
    """The image id of a path or file name: its last part, less an image extension.

    Only the extension of an image format is one: the dots of a DICOM UID stay.
    """
    return path_id(os.path.basename(name))


def path_id(path: str) -> str:
    """The image id of a whole path, as it is given: with `/`, less an image extension."""
    extension = _extension(path)
    known = extension in IMAGE_EXTENSIONS or extension in _DICOM_EXTENSIONS
    stem = path[: -len(extension)] if known else path
    return _decoded(stem.replace(os.sep, "/"))


def _extension(name: str) -> str:
    """The extension in lower case, of which `.nii.gz` is one."""
    stem, extension = os.path.splitext(name)
    if extension.lower() == ".gz" and os.path.splitext(stem)[1].lower() == ".nii":
        return ".nii.gz"
    return extension.lower()


def natural_key(text: str) -> tuple[tuple[object, ...], str]:
    """Key for a natural order, in which `test_2` comes before `test_10`.

    Runs of digits are compared as numbers, all else by code points. Texts that differ only in
    leading zeros are in the order of their code points, so that this is a total order.
    """
    parts: list[object] = _DIGITS.split(text)  # text, digits, text, ...
    for i in range(1, len(parts), 2):
        number = str(parts[i]).lstrip("0")
        parts[i] = (len(number), number)  # int() refuses numbers of many digits
    return tuple(parts), text


def has_controls(text: str) -> bool:
    """Whether a text holds line ends or other control characters."""
    return not text.isprintable() and _CONTROLS.search(text) is not None


def printable(path: str) -> str:
    r"""A path as one line of UTF-8: control characters and stray bytes become ``\xNN``."""
    if path.isascii() and path.isprintable():
        return path
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], _decoded(path))


def _decoded(path: str) -> str:
    r"""A path as text that can be written as UTF-8: bytes that are not become ``\xNN``."""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")


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
