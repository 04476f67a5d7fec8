"""Image ids: how file names become ids, their order, and how the ids of tables match them.

Tables often name files (`x.jpg`, `images/x.png`, `C:\\data\\x.png`) where the images' ids are names
without extension, or spell a name in another Unicode form than the disk.
"""

# os.path rather than pathlib: Path objects of 80,000 names take a second.
# ruff: noqa: PTH119, PTH122

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

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

T = TypeVar("T")


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


@dataclass(frozen=True)
class IdMatch:
    """Result of `match_ids`.

    Attributes:
        image_of: Image id by table id, of those that match.
        differing: The table ids among them that are not the same text.
        ambiguous: Table ids that match several images, or an image that others match as well.
    """

    image_of: Mapping[str, str]
    differing: tuple[str, ...]
    ambiguous: tuple[str, ...]

    def notes(self, source: Path | str) -> list[str]:
        """Say which ids of the table `source` differ from the images', one line each."""
        lines = []
        if self.differing:
            first = self.differing[0]
            lines.append(
                f"{len(self.differing)} ids of {source} are file names, paths or in another "
                f"Unicode form; matched as such, for example {first!r} -> {self.image_of[first]!r}"
            )
        if self.ambiguous:
            examples = ", ".join(repr(id_) for id_ in self.ambiguous[:3])
            more = ", …" if len(self.ambiguous) > 3 else ""
            lines.append(
                f"{len(self.ambiguous)} ids of {source} are not matched, since more than one id or "
                f"image would fit: {examples}{more}"
            )
        return lines


def match_ids(ids: Iterable[str], images: Iterable[str]) -> IdMatch:
    """Match the ids of a table with image ids.

    An id matches the image of the same id. One that has none matches the image whose id is the same
    less its image extension, its Unicode form (NFC) and invisible characters, or also less some of
    its leading folders, of which as many as possible are kept. It matches none where several
    images or several ids of the table would do.

    Args:
        ids: Unique ids of the table.
        images: Unique image ids.
    """
    known = set(images)
    exact: dict[str, str] = {}
    others: list[str] = []
    for id_ in ids:
        if id_ in known:
            exact[id_] = id_
        else:
            others.append(id_)
    if not others:
        return IdMatch(exact, (), ())
    by_form: dict[str, list[str]] = {}
    for image in known:
        by_form.setdefault(_plain(image), []).append(image)
    fits: dict[str, list[str]] = {}
    for id_ in others:
        fitting = next((by_form[form] for form in _forms(id_) if form in by_form), [])
        if fitting and not (len(fitting) == 1 and fitting[0] in exact):
            fits[id_] = fitting
    claims = Counter(image for fitting in fits.values() for image in fitting)
    matched = {
        id_: fitting[0]
        for id_, fitting in fits.items()
        if len(fitting) == 1 and claims[fitting[0]] == 1
    }
    ambiguous = tuple(id_ for id_ in fits if id_ not in matched)
    return IdMatch({**exact, **matched}, tuple(matched), ambiguous)


def by_image(
    table: Mapping[str, T], images: Iterable[str], source: Path | str, notes: list[str]
) -> dict[str, T]:
    """A table by image id instead of its own ids, in its order; ids without an image stay.

    Args:
        table: Values by the table's ids.
        images: Unique image ids.
        source: The table's file, for the notes.
        notes: `IdMatch.notes` are added to it.
    """
    match = match_ids(table, images)
    notes.extend(match.notes(source))
    if table and not (match.image_of or match.ambiguous):
        first = next(iter(table))
        notes.append(
            f"None of the {len(table)} ids of {source} is that of an image, such as {first!r}"
        )
    return {match.image_of.get(id_, id_): value for id_, value in table.items()}


def unknown_hint(id_: str, truth: Iterable[str]) -> str:
    """Hint for an id of a run that the ground truth lacks, since scorers compare exactly."""
    image = match_ids([id_], truth).image_of.get(id_)
    if image is None:
        return "A run has the images of the ground truth and no others."
    return f"The ground truth has {image!r}; ids are compared exactly, so write them as it does."


def _forms(id_: str) -> Iterator[str]:
    """The plain forms of an id, less more and more of its leading folders."""
    form = _plain(id_)
    yield form
    while "/" in form:
        form = form.partition("/")[2]
        yield form


def _plain(id_: str) -> str:
    """An id less its image extension, in NFC, without invisible characters, with `/`."""
    if not id_.isascii():
        id_ = unicodedata.normalize("NFC", id_)
        id_ = "".join(c for c in id_ if unicodedata.category(c) != "Cf")
    return path_id(id_.replace("\\", "/"))
