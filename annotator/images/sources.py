"""Finding images in folders, files, globs, list files, Parquet tables and DICOM archives.

Images are not opened but read on demand by their `ImageRef`, so that an unreadable one never
affects the others.
"""

# os.path rather than pathlib: Path objects of 80,000 names take a second, and Path.exists raises
# where a folder may not be entered.
# ruff: noqa: PTH110, PTH111, PTH112, PTH114, PTH116, PTH118, PTH119, PTH120, PTH122, PTH123, PTH207

from __future__ import annotations

import glob
import io
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, get_args

from annotator.errors import AnnotatorError, ImageError
from annotator.ids import (
    IMAGE_EXTENSIONS,
    has_controls,
    image_extension,
    image_id,
    natural_key,
    path_id,
    printable,
)
from annotator.images import dicomweb, remote
from annotator.images.ref import ImageRef, check_file_size, unusable

if TYPE_CHECKING:
    from annotator.images.dicom.tags import Tags

_LIST_EXTENSIONS = frozenset({".txt", ".lst"})
# Extensions that settle that a file is no image; files with others, or none, are looked into.
_OTHERS = (
    ".7z .bak .bat .bz2 .cfg .ckpt .conf .crdownload .css .csv .db .doc .docx .eps .exe .gz .h5 "
    ".hdf5 .hdr .htm .html .inf .ini .ipynb .js .json .jsonl .lock .log .m .mat .md .md5 .mp3 .mp4 "
    ".ndjson .npy .npz .ods .odt .onnx .part .pdf .pkl .ppt .pptx .pt .pth .py .r .rar .rst .rtf "
    ".safetensors .sh .sha256 .sqlite .svg .swp .tar .tex .tgz .tmp .toml .tsv .wav .xls .xlsx "
    ".xml .xz .yaml .yml .zip .zst"
)
_OTHER_EXTENSIONS = _LIST_EXTENSIONS | frozenset(_OTHERS.split())
_SHOWN = 10
_HEAD = 512  # bytes that tell the format of a file
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")  # of DICOM, PS3.5, section 9

Spec = str | Path | Sequence[str | Path]
IdFrom = Literal["auto", "name", "path", "sop"]


@dataclass(frozen=True)
class FoundImages:
    """Result of `find_images`.

    Attributes:
        images: In the natural order of their ids; ids are unique.
        unreadable: Folders, links and files of unknown kind that cannot be read, and may be or hold
            images: references whose ``read`` raises, with their path and a slash as the id.
        duplicates: For each id that occurs more than once, where each of its images is, sorted;
            the first one is used.
        ignored: Paths that were passed over because they are not images, sorted.
        without_pixels: Paths of DICOM files without an image, such as DICOMDIR and SR, sorted. Only
            where headers were read are more than DICOMDIRs known.
        groups: Values of the attribute `group_by` by image id; images without it have none.
        notes: How ids were made and what was left out, one line each.
    """

    images: list[ImageRef]
    unreadable: list[ImageRef] = field(default_factory=list)
    duplicates: dict[str, list[str]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    without_pixels: list[str] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def report(self) -> list[str]:
        """Say how ids were made and what is left out, in one line each, with examples."""
        dropped = [path for places in self.duplicates.values() for path in places[1:]]
        lines = list(self.notes)
        for what, where in (
            ("DICOM files without an image are skipped", self.without_pixels),
            ("images are left out, since the first with the same id is used", dropped),
            ("files are not images and are ignored", self.ignored),
        ):
            if where:
                lines.append(f"{len(where)} {what}: {_examples(where)}")
        return lines


@dataclass(slots=True)
class _Candidate:
    """A file or row that may be an image.

    Attributes:
        id: Its id, at first by its name.
        where: Where it is, for messages.
        read: Returns its content.
        path: Its path below what it was found by; None for a row or an instance.
        open: Opens it, to look into its header; may raise OSError.
        tags: What its header says, if that was read.
    """

    id: str
    where: str
    read: Callable[[], bytes]
    path: str | None
    open: Callable[[], BinaryIO]
    tags: Tags | None = None

    @property
    def is_dicom(self) -> bool:
        """Whether its header was read and is that of a DICOM file with an image."""
        return self.tags is not None and self.tags.kind == "dicom" and self.tags.has_pixels


def find_images(
    spec: Spec,
    *,
    on_duplicate: Literal["fail", "first"] = "fail",
    id_from: IdFrom = "auto",
    where: Mapping[str, Sequence[str]] | None = None,
    group_by: str | None = None,
) -> FoundImages:
    """Find images by name, without decoding them.

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
              a prefix is a folder; a list may hold such URLs, too;
            - a query of a DICOM archive (``dicomweb://HOST/PATH?Modality=DX``), whose ids are
              SOPInstanceUIDs.

            In folders and patterns images are known by their extension. Files without one (a DICOM
            UID ends in digits, which are none) are images if they start like one, and files with an
            unknown one if they start like a DICOM.
        on_duplicate: What to do when two images have the same id: "fail", or take the "first" in
            the order of their paths, or of their rows in a table.
        id_from: What the ids of files are:

            - "name": the file name without its image extension;
            - "path": the path below the folder, below the part of a pattern without wildcards, or
              below the list's folder, likewise; the whole path of a file that lies elsewhere;
            - "sop": the SOPInstanceUID of DICOM files, and the name of others;
            - "auto": as "sop" if names repeat among DICOM files, else the name.

            A DICOM file without SOPInstanceUID then has its path as its id.
        where: Values of DICOM attributes by keyword, of which each image must have one, ignoring
            case; other files are left out.
        group_by: Keyword of a DICOM attribute to read for `FoundImages.groups`.

    Returns:
        The images in the natural order of their ids. For a table this is the order of its rows in
        practice, which reads each part of it once; any other order works, more slowly.

    Raises:
        AnnotatorError: There is no such file or folder, no image was found, an id is not unique, a
            keyword is unknown, or a Parquet file cannot be read (FormatError).
        ValueError: ``id_from`` is none of these.
    """
    if id_from not in get_args(IdFrom):
        raise ValueError(f"id_from must be one of {', '.join(get_args(IdFrom))}, not {id_from!r}")
    keywords = [*(where or ()), *([group_by] if group_by else ())]
    if keywords:
        from annotator.images.dicom.tags import check_keyword

        for keyword in keywords:
            check_keyword(keyword)
    expanded = _expand(spec)
    candidates = _candidates(expanded, keywords)
    without_pixels = sorted(map(printable, expanded.without_pixels))
    notes: list[str] = []
    if keywords or id_from == "sop":
        _look_into(candidates, keywords)
        candidates = _with_pixels(candidates, without_pixels)
    if where:
        candidates = _having(candidates, where, notes)
    _identify(candidates, id_from, notes)
    candidates = _with_pixels(candidates, without_pixels)
    images: dict[str, _Candidate] = {}
    duplicates: dict[str, list[str]] = {}
    for candidate in candidates:
        first = images.setdefault(candidate.id, candidate)
        if first is not candidate:
            duplicates.setdefault(candidate.id, [first.where]).append(candidate.where)
    if duplicates and on_duplicate == "fail":
        raise AnnotatorError(_duplicate_ids(duplicates), _DUPLICATE_HINT)
    groups = {} if group_by is None else _groups(images, group_by, notes)
    found = FoundImages(
        images=[_reference(images[key]) for key in sorted(images, key=natural_key)],
        unreadable=[_unreadable(*entry) for entry in sorted(expanded.unreadable.items())],
        duplicates=dict(sorted(duplicates.items())),
        ignored=sorted(map(printable, expanded.ignored)),
        without_pixels=without_pixels,
        groups=groups,
        notes=notes,
    )
    if not images:
        raise AnnotatorError(_nothing_found(spec, found), _NOTHING_HINT)
    return found


def _candidates(expanded: _Expanded, keywords: Sequence[str]) -> list[_Candidate]:
    """Files in the order of their paths, then rows and instances; ids are their names."""
    candidates = [
        _Candidate(
            image_id(path),
            printable(path),
            _reader(path),
            _below(folder, path),
            partial(_open, path),
        )
        for path, folder in sorted(expanded.files.items())
    ]
    if expanded.tables:
        from annotator.images.parquet import parquet_images

        candidates += [
            _Candidate(ref.id, ref.where, ref.read, None, partial(_open_read, ref.read))
            for ref in parquet_images(sorted(expanded.tables))
        ]
    instances = {
        one: tags
        for archive in sorted(expanded.archives)
        for one, tags in dicomweb.find(archive, keywords)
    }
    candidates += [
        _Candidate(one.uid, one.where, one, None, partial(_open_read, one), tags)
        for one, tags in instances.items()
    ]
    return candidates


def _unreadable(path: str, reason: str) -> ImageRef:
    where = printable(path)
    hint = "Check the link or the access rights, or leave it out."
    return unusable(f"{where}/", where, f"cannot be read: {reason}", hint)


def _reference(candidate: _Candidate) -> ImageRef:
    if has_controls(candidate.id):  # an index and a run are files of lines
        message = "its name holds a line end or another control character"
        return unusable(candidate.id, candidate.where, message, "Rename it.")
    return ImageRef(candidate.id, candidate.where, candidate.read)


def _look_into(candidates: Iterable[_Candidate], keywords: Iterable[str] = ()) -> None:
    """Read the headers that were not read yet, with these attributes and the SOPInstanceUID."""
    unread = [candidate for candidate in candidates if candidate.tags is None]
    if not unread:
        return
    from annotator.images.dicom.tags import read_tags

    openers = [candidate.open for candidate in unread]
    for candidate, tags in zip(
        unread, read_tags(openers, [*keywords, "SOPInstanceUID"]), strict=True
    ):
        candidate.tags = tags


def _with_pixels(candidates: list[_Candidate], without: list[str]) -> list[_Candidate]:
    """Those that are not known to lack an image; the places of others are added to `without`."""
    kept = []
    for candidate in candidates:
        if candidate.tags is None or candidate.tags.has_pixels:
            kept.append(candidate)
        else:
            without.append(candidate.where)
    return kept


def _having(
    candidates: list[_Candidate], where: Mapping[str, Sequence[str]], notes: list[str]
) -> list[_Candidate]:
    """Those that have one of the values of each attribute, or cannot be read."""
    wanted = {keyword: {value.casefold() for value in where[keyword]} for keyword in where}
    kept = []
    others = 0
    for candidate in candidates:
        assert candidate.tags is not None
        values = candidate.tags.values
        if candidate.tags.kind == "unreadable" or all(
            any(value.casefold() in wanted[keyword] for value in values.get(keyword, ()))
            for keyword in wanted
        ):
            kept.append(candidate)
        else:
            others += candidate.tags.kind == "other"
    if left_out := len(candidates) - len(kept):
        # Without the values, which may identify a patient.
        notes.append(
            f"{left_out} images are left out by {' and '.join(where)}"
            + (f"; {others} of them are not DICOM" if others else "")
        )
    return kept


def _identify(candidates: list[_Candidate], id_from: IdFrom, notes: list[str]) -> None:
    """Give the candidates, whose ids are their names, the ids that are asked for."""
    if id_from == "name":
        return
    if id_from == "path":
        _identify_by_path(candidates)
        return
    if id_from == "auto":
        counts = Counter(candidate.id for candidate in candidates)
        _look_into(candidate for candidate in candidates if counts[candidate.id] > 1)
        counts = Counter(candidate.id for candidate in candidates if candidate.is_dicom)
        repeated = next((name for name, count in counts.items() if count > 1), None)
        if repeated is None:
            return
        _look_into(candidates)
        n = sum(candidate.is_dicom for candidate in candidates)
        notes.append(
            f"The ids of {n} DICOM files are their SOPInstanceUIDs, since names repeat among them, "
            f"such as {printable(repeated)} (--id name, path or sop chooses)."
        )
    names = {candidate.id for candidate in candidates if candidate.is_dicom}
    unnamed = []
    for candidate in candidates:
        uids = candidate.tags.values.get("SOPInstanceUID", ()) if candidate.tags else ()
        if len(uids) == 1 and _UID.fullmatch(uids[0]):
            candidate.id = uids[0]
        elif candidate.is_dicom or candidate.id in names:
            unnamed.append(candidate)
    _identify_by_path(unnamed)


def _identify_by_path(candidates: Iterable[_Candidate]) -> None:
    for candidate in candidates:
        if candidate.path is not None:
            candidate.id = path_id(candidate.path)


def _groups(images: Mapping[str, _Candidate], keyword: str, notes: list[str]) -> dict[str, str]:
    groups = {
        id_: "\\".join(values)
        for id_, candidate in images.items()
        if candidate.tags and (values := candidate.tags.values.get(keyword))
    }
    if groups:
        notes.append(f"{len(groups)} images are in {len(set(groups.values()))} groups by {keyword}")
    if missing := len(images) - len(groups):
        notes.append(f"{missing} images have no {keyword}; each of them is a group of its own")
    return groups


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

    tables = _expand(spec).tables
    if not tables:
        raise AnnotatorError(f"no Parquet file found in {_shown(spec)}", "Check the path.")
    return read_concepts(sorted(tables))


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
        # Read as it is: a buffer of the size of the limit is made for a bounded read.
        with open(path, "rb", buffering=0) as file:
            data = file.readall()
        check_file_size(len(data))
        return data
    except FileNotFoundError:
        message = "no such file (a broken link)" if os.path.islink(path) else "no such file"
        raise ImageError(message, "Check the path.") from None
    except PermissionError:
        raise ImageError("no permission to read the file", "Check its access rights.") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in a list's path
        reason = getattr(error, "strerror", None) or "not a path"
        raise ImageError(f"cannot be read: {reason}", "Check the file and its disk.") from None


def _open(path: str) -> BinaryIO:
    """Open a file to look into it.

    Raises:
        OSError: It cannot be opened.
    """
    if remote.is_url(path):
        file: BinaryIO = remote.open_file(path)
        return file
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
        raise OSError("not a regular file")
    return open(path, "rb")


def _open_read(read: Callable[[], bytes]) -> BinaryIO:
    try:
        return io.BytesIO(read())
    except ImageError as error:
        raise OSError(error.message) from None


@dataclass(frozen=True)
class _Expanded:
    """Local paths and URLs that a spec stands for.

    Attributes:
        files: Image files, each with the folder that paths are relative to ("" for none).
        tables: Parquet files.
        archives: Addresses of queries of DICOM archives.
        ignored: Files that are not images.
        without_pixels: DICOMDIR files.
        unreadable: Reasons by path of folders, links and files of unknown kind.
    """

    files: dict[str, str] = field(default_factory=dict)
    tables: set[str] = field(default_factory=set)
    archives: set[str] = field(default_factory=set)
    ignored: set[str] = field(default_factory=set)
    without_pixels: set[str] = field(default_factory=set)
    unreadable: dict[str, str] = field(default_factory=dict)


def _expand(spec: Spec) -> _Expanded:
    found = _Expanded()
    for part in [spec] if isinstance(spec, (str, Path)) else spec:
        named = os.fspath(part)
        candidates: Iterable[str]
        if dicomweb.is_archive(named):
            found.archives.add(named)
            continue
        if remote.is_url(named):
            candidates, is_file = remote.list_files(named)
        else:
            named = os.path.normpath(os.path.expanduser(named))
            candidates, is_file = _local(named, found.unreadable)
        if is_file:
            extension = os.path.splitext(named)[1].lower()
            folder = os.path.dirname(named)
            if extension in _LIST_EXTENSIONS:
                for path in _listed(named):
                    found.files.setdefault(path, folder)
            elif extension == ".parquet":
                found.tables.add(named)
            else:
                found.files.setdefault(named, folder)
            continue
        folder = _fixed_part(named)
        for candidate in candidates:
            _sort_in(found, candidate, folder)
    return found


def _sort_in(found: _Expanded, path: str, folder: str) -> None:
    """Add what a folder or pattern holds to what it is; folders that a pattern finds are none."""
    extension = os.path.splitext(path)[1].lower()
    if image_extension(path):  # settles it: asking the disk about each would take seconds
        found.files.setdefault(path, folder)
    elif extension == ".parquet":
        found.tables.add(path)
    elif not remote.is_url(path) and os.path.isdir(path):
        return
    elif os.path.basename(path).upper() == "DICOMDIR":
        found.without_pixels.add(path)
    elif extension in _OTHER_EXTENSIONS or path.endswith("~"):
        found.ignored.add(path)
    else:
        try:
            if _starts_like_image(path, extension):
                found.files.setdefault(path, folder)
            else:
                found.ignored.add(path)
        except OSError as error:
            found.unreadable[path] = _reason(error)


def _starts_like_image(path: str, extension: str) -> bool:
    """Whether a file is an image by its first bytes; one with an extension, only if it is DICOM.

    Raises:
        OSError: It cannot be read.
    """
    from annotator.images.decode import looks_like_image
    from annotator.images.kinds import looks_like_dicom

    if remote.is_url(path):
        head = remote.read_start(path, _HEAD)
    elif not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
        return False
    else:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    if not extension or extension[1:].isdigit():
        return looks_like_image(head)
    return looks_like_dicom(head[:132])


def _below(folder: str, path: str) -> str:
    """A path below a folder; one that is elsewhere stays as it is."""
    prefix = folder if folder.endswith("/") else f"{folder}/"
    return path.removeprefix(prefix) if folder else path


def _fixed_part(named: str) -> str:
    """The folder that paths found by a folder or pattern are relative to."""
    fixed = named
    if glob.has_magic(named) and not os.path.isdir(named):
        fixed = os.path.dirname(re.split(r"[*?\[]", named)[0])
    return remote.spelled(fixed) if remote.is_url(named) else fixed


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _local(named: str, unreadable: dict[str, str]) -> tuple[Iterable[str], bool]:
    """Paths that a folder or pattern of this machine stands for; whether it is a file instead."""
    if os.path.isdir(named):
        return _scan(named, unreadable), False
    if os.path.exists(named) or (image_extension(named) and os.path.islink(named)):
        return [named], True
    if glob.has_magic(named):
        return map(os.path.normpath, glob.iglob(named, recursive=True)), False
    raise AnnotatorError(f"no such file or folder: {printable(named)}", _MISSING_HINT)


def _scan(folder: str, unreadable: dict[str, str]) -> Iterator[str]:
    """Files below a folder; links are followed, but no folder is entered twice.

    Folders below it that cannot be read are added to `unreadable`, with the reason.
    """
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
            if current == folder:
                message = f"folder {printable(current)} cannot be read: {_reason(error)}"
                hint = "Check its access rights, or leave it out."
                raise AnnotatorError(message, hint) from None
            unreadable[current] = _reason(error)
            continue
        folders = []
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if _is_folder(entry):
                folders.append(entry.path)
            else:
                yield entry.path
        waiting.extend(reversed(folders))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; reading it says so
        return False


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


_MISSING_HINT = "Check the path; a pattern such as 'images/**/*.png' must be quoted."
_NOTHING_HINT = f"Images are known by their extension: {' '.join(sorted(IMAGE_EXTENSIONS))}."
_DUPLICATE_HINT = (
    "Name them by their paths with `--id path`, or take the first of each with "
    "`--on-duplicate first`."
)


def _shown(spec: Spec) -> str:
    parts = [spec] if isinstance(spec, (str, Path)) else list(spec)
    return ", ".join(printable(str(part)) for part in parts[:3]) + (
        f" and {len(parts) - 3} more" if len(parts) > 3 else ""
    )


def _nothing_found(spec: Spec, found: FoundImages) -> str:
    counts = [
        f"{len(where)} {what}, such as {where[0]}"
        for what, where in (
            ("other files", found.ignored),
            ("DICOM files without an image", found.without_pixels),
            ("that cannot be read", [ref.where for ref in found.unreadable]),
        )
        if where
    ]
    counts += found.notes
    more = f" ({'; '.join(counts)})" if counts else ""
    return f"no image found in {_shown(spec) or 'an empty list of paths'}{more}"


def _examples(where: Sequence[str]) -> str:
    more = f" and {len(where) - _SHOWN} more" if len(where) > _SHOWN else ""
    return ", ".join(where[:_SHOWN]) + more


def _duplicate_ids(duplicates: dict[str, list[str]]) -> str:
    examples = "; ".join(
        f"{printable(key)} ({', '.join(places[:3])})"
        for key, places in sorted(duplicates.items())[:3]
    )
    more = "; ..." if len(duplicates) > 3 else ""
    return f"{len(duplicates)} image ids occur more than once: {examples}{more}"
