"""Finding images in folders, files, globs, list files and Parquet tables, local or remote.

Images are not opened but read on demand by their `ImageRef`, so that an unreadable one never
affects the others.
"""

# os.path rather than pathlib: Path objects of 80,000 names take a second, and Path.exists raises
# where a folder may not be entered.
# ruff: noqa: PTH110, PTH111, PTH112, PTH113, PTH116, PTH118, PTH120, PTH122, PTH123, PTH207

from __future__ import annotations

import glob
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from annotator.errors import AnnotatorError, ImageError
from annotator.images import remote
from annotator.images.ref import (
    IMAGE_EXTENSIONS,
    MAX_BYTES,
    ImageRef,
    check_file_size,
    image_id,
    printable,
)

_LIST_EXTENSIONS = frozenset({".txt", ".lst"})

Spec = str | Path | Sequence[str | Path]


@dataclass(frozen=True, slots=True)
class FoundImages:
    """Result of `find_images`.

    Attributes:
        images: Sorted by id; ids are unique.
        duplicates: For each id that occurs more than once, where each of its images is, sorted;
            the first one is used.
        ignored: Paths that were passed over because they are not images, sorted.
    """

    images: list[ImageRef]
    duplicates: dict[str, list[str]]
    ignored: list[str]


def find_images(spec: Spec, *, on_duplicate: Literal["fail", "first"] = "fail") -> FoundImages:
    """Find images by name, without opening them.

    Args:
        spec: One of the following, or a sequence of them:

            - a folder, searched with its subfolders, hidden ones left out;
            - an image file, whatever its extension;
            - a glob pattern, with ``~`` and ``**``; it picks files, not folders;
            - a list file (.txt or .lst) with one path per line, relative to the list's folder;
              blank lines and lines that start with ``#`` are skipped, and a path that does not
              exist is found all the same, so that it is reported with the image;
            - a Parquet file with a column ``image`` of bytes or struct<bytes, path> and, without
              such a path, ``image_id``; folders and patterns may hold Parquet files too;
            - the URL of any of these in an object store (``s3://bucket/prefix``, ``gs://…``), where
              a prefix is a folder; a list may hold such URLs, too.

            In folders and patterns images are known by their extension. Files without one (a DICOM
            UID ends in digits, which are none) are images if they start like a DICOM.
        on_duplicate: What to do when two images have the same id: "fail", or take the "first" in
            the order of their paths, or of their rows in a table.

    Returns:
        The images in the order of their ids. For a table this is the order of its rows in
        practice, which reads each part of it once; any other order works, more slowly.

    Raises:
        AnnotatorError: There is no such file or folder, no image was found, an id is not unique,
            or a Parquet file cannot be read (FormatError).
    """
    files, tables, ignored = _expand(spec)
    refs = [ImageRef(image_id(path), printable(path), _reader(path)) for path in files]
    if tables:
        from annotator.images.parquet import parquet_images

        refs.extend(parquet_images(tables))
    if not refs:
        raise AnnotatorError(_nothing_found(spec, ignored), _NOTHING_HINT)
    images: dict[str, ImageRef] = {}
    duplicates: dict[str, list[str]] = {}
    for ref in refs:
        first = images.setdefault(ref.id, ref)
        if first is not ref:
            duplicates.setdefault(ref.id, [first.where]).append(ref.where)
    if duplicates and on_duplicate == "fail":
        raise AnnotatorError(_duplicate_ids(duplicates), _DUPLICATE_HINT)
    return FoundImages(
        images=[images[key] for key in sorted(images)],
        duplicates=dict(sorted(duplicates.items())),
        ignored=[printable(path) for path in ignored],
    )


def parquet_concepts(spec: Spec) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Read the concepts and captions of Parquet files, without their images.

    Args:
        spec: As for `find_images`; files that are not Parquet are passed over.

    Returns:
        The column ``cui`` and the column ``caption`` (empty if there is none) by image id, in the
        order of ids. Of an id that occurs twice the first is taken, as by
        ``find_images(..., on_duplicate="first")``.

    Raises:
        AnnotatorError: No Parquet file was found, or one cannot be read or has no lists of
            concepts in a column ``cui`` (FormatError).
    """
    from annotator.images.parquet import read_concepts

    _, tables, _ = _expand(spec)
    if not tables:
        raise AnnotatorError(f"no Parquet file found in {_shown(spec)}", "Check the path.")
    return read_concepts(tables)


def _reader(path: str) -> Callable[[], bytes]:
    return partial(remote.read_file if remote.is_url(path) else _read_file, path)


def _read_file(path: str) -> bytes:
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("a folder, not an image", "Name the image file itself.")
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            raise ImageError("not a regular file", "Leave it out.")
        check_file_size(status.st_size)
        with open(path, "rb") as file:
            return file.read(MAX_BYTES)
    except FileNotFoundError:
        raise ImageError("no such file", "Check the path.") from None
    except PermissionError:
        raise ImageError("no permission to read the file", "Check its access rights.") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in a list's path
        reason = getattr(error, "strerror", None) or "not a path"
        raise ImageError(f"cannot be read: {reason}", "Check the file and its disk.") from None


def _expand(spec: Spec) -> tuple[list[str], list[str], list[str]]:
    """Paths of image files, of Parquet files and of neither, each sorted and without repeats."""
    files: set[str] = set()
    tables: set[str] = set()
    ignored: set[str] = set()
    for part in [spec] if isinstance(spec, (str, Path)) else spec:
        named = os.fspath(part)
        candidates: Iterable[str]
        if remote.is_url(named):
            candidates, is_file = remote.list_files(named)
        else:
            named = os.path.normpath(os.path.expanduser(named))
            candidates, is_file = _local(named)
        if is_file:
            extension = os.path.splitext(named)[1].lower()
            if extension in _LIST_EXTENSIONS:
                files.update(_listed(named))
            elif extension == ".parquet":
                tables.add(named)
            else:
                files.add(named)
            continue
        for candidate in candidates:
            # An image's extension settles it: asking the disk about each would take seconds.
            extension = os.path.splitext(candidate)[1].lower()
            if extension in IMAGE_EXTENSIONS:
                files.add(candidate)
            elif extension == ".parquet":
                tables.add(candidate)
            elif not remote.is_url(candidate) and os.path.isdir(candidate):
                continue
            elif (not extension or extension[1:].isdigit()) and _starts_like_dicom(candidate):
                files.add(candidate)
            else:
                ignored.add(candidate)
    return sorted(files), sorted(tables), sorted(ignored)


def _local(named: str) -> tuple[Iterable[str], bool]:
    """Paths that a folder or pattern of this machine stands for; whether it is a file instead."""
    if os.path.isdir(named):
        return _scan(named), False
    if os.path.exists(named):
        return [named], True
    if glob.has_magic(named):
        return map(os.path.normpath, glob.iglob(named, recursive=True)), False
    raise AnnotatorError(f"no such file or folder: {printable(named)}", _MISSING_HINT)


def _scan(folder: str) -> Iterator[str]:
    """Files below a folder; links are followed, but no folder is entered twice."""
    entered: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            status = os.stat(current)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(current) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            message = f"folder {printable(current)} cannot be read: {error.strerror}"
            raise AnnotatorError(message, "Check its access rights, or leave it out.") from None
        folders = []
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir():
                folders.append(entry.path)
            else:
                yield entry.path
        waiting.extend(reversed(folders))


def _listed(path: str) -> Iterator[str]:
    """The paths in a list file, relative to its folder."""
    elsewhere = remote.is_url(path)
    try:
        with remote.open_file(path) if elsewhere else open(path, "rb") as file:
            text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape")
            lines = [line.strip() for line in text]
    except OSError as error:
        message = f"list {printable(path)} cannot be read: {error.strerror or error}"
        raise AnnotatorError(message, "Check its access rights.") from None
    folder = os.path.dirname(path)
    for line in lines:
        if not line or line.startswith("#"):
            continue
        if elsewhere or remote.is_url(line):
            yield remote.beside(path, line)
        else:
            yield os.path.normpath(os.path.join(folder, os.path.expanduser(line)))


def _starts_like_dicom(path: str) -> bool:
    from annotator.images.dicom import looks_like_dicom

    if remote.is_url(path):
        return looks_like_dicom(remote.read_start(path, 132))
    try:
        if not os.path.isfile(path):  # a pipe would be waited for
            return False
        with open(path, "rb") as file:
            return looks_like_dicom(file.read(132))
    except OSError:
        return False


_MISSING_HINT = "Check the path; a pattern such as 'images/**/*.png' must be quoted."
_NOTHING_HINT = f"Images are known by their extension: {' '.join(sorted(IMAGE_EXTENSIONS))}."
_DUPLICATE_HINT = "Rename them, or take the first of each with `--on-duplicate first`."


def _shown(spec: Spec) -> str:
    parts = [spec] if isinstance(spec, (str, Path)) else list(spec)
    return ", ".join(printable(str(part)) for part in parts[:3]) + (
        f" and {len(parts) - 3} more" if len(parts) > 3 else ""
    )


def _nothing_found(spec: Spec, ignored: list[str]) -> str:
    message = f"no image found in {_shown(spec) or 'an empty list of paths'}"
    if ignored:
        message += f" ({len(ignored)} other files, such as {printable(ignored[0])})"
    return message


def _duplicate_ids(duplicates: dict[str, list[str]]) -> str:
    examples = "; ".join(
        f"{key} ({', '.join(places[:3])})" for key, places in sorted(duplicates.items())[:3]
    )
    more = "; ..." if len(duplicates) > 3 else ""
    return f"{len(duplicates)} image ids occur more than once: {examples}{more}"
