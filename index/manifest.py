"""The manifest of a version: its contents, and verification of its files.

A manifest is untrusted input: it is validated before use.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem

# 1 had no arrays, 2 no kinds of search, no added and no removed rows, 3 no corrections.
FORMAT = 4
METRIC = "cosine"
FILES = ("vectors.npy", "labels.indptr.npy", "labels.indices.npy", "cuis.tsv", "ids.txt")
REMOVED = "removed.npy"
HISTORY = "history.jsonl"  # the corrections of its images
# Files of each kind of index beside the vectors. "hnsw" is only read: it is built no more.
SEARCH_FILES: Mapping[str, tuple[str, ...]] = {
    "flat": (),
    "scan": ("scan.axes.npy", "scan.table.npy"),
    "hnsw": ("structure.faiss",),
    "ivf": ("structure.faiss",),
    "compressed": ("structure.faiss",),
}
# Arrays up to this size are read into memory, so that nothing done to their files can matter.
IN_MEMORY = 32 * 2**20
# Checksums of larger files are verified only on request.
LARGE = 512 * 2**20
# A number, and a digest of what the version holds; early versions have none.
VERSION = re.compile(r"v[0-9]{6,12}(?:-[0-9a-f]{8})?")
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
REBUILD = "Build the index again, or restore the folder from a copy."
_PREFIX = re.compile(r"added-[0-9]{6,12}\.")
_POINTER = re.compile(rf"({VERSION.pattern}) ([0-9a-f]{{64}})\n")


@dataclass(frozen=True)
class SegmentEntry:
    """Segment of rows added after the build.

    Attributes:
        rows: Number of rows.
        prefix: Prefix of the file names.
        arrays: Names of the arrays.
    """

    rows: int
    prefix: str = ""
    arrays: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileEntry:
    """Size and hex digest of a file."""

    bytes: int
    sha256: str = ""


@dataclass(frozen=True)
class Manifest:
    """The manifest of a version; the attributes are the keys of its JSON object.

    An index on a server has a JSON object of its own, with these keys and others: there `rows` is
    `n`, segments have no files, and files have no digest.

    Attributes:
        version: Such as "v000001-5f3a09bc".
        n: Rows that searches find.
        dim: Length of the vectors.
        index_type: How they are searched.
        search: Parameters of the search, and why this index type was chosen.
        columns: Names of the text columns.
        arrays: Names of the further arrays.
        about: Metadata of the builder, as JSON types.
        files: Size and digest by name.
        rows: Rows of the base segment.
        removed: How many stored rows were removed.
        segments: Rows that were added after the build.
        corrections: Number of the last correction in its history; 0 without any.
        libraries: Versions of what wrote it.
        format: Of the stored files.
        metric: Of similarity.
    """

    version: str
    n: int
    dim: int
    index_type: str
    search: Mapping[str, Any]
    columns: tuple[str, ...]
    arrays: tuple[str, ...]
    about: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    rows: int
    removed: int = 0
    segments: tuple[SegmentEntry, ...] = ()
    corrections: int = 0
    libraries: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT
    metric: str = METRIC

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> Manifest:
        """The manifest of a checked JSON object; what earlier formats lack is filled in."""
        return cls(
            version=entries["version"],
            n=entries["n"],
            dim=entries["dim"],
            index_type=entries["index_type"],
            search=entries.get("search", {}),
            columns=tuple(entries["columns"]),
            arrays=tuple(entries.get("arrays", ())),
            about=entries["about"],
            files={
                name: FileEntry(file["bytes"], file.get("sha256", ""))
                for name, file in entries["files"].items()
            },
            rows=entries.get("rows", entries["n"]),
            removed=entries.get("removed", 0),
            segments=tuple(
                SegmentEntry(s["rows"], s.get("prefix", ""), tuple(s.get("arrays", ())))
                for s in entries.get("segments", ())
            ),
            corrections=entries.get("corrections", 0),
            libraries=entries["libraries"],
            format=entries["format"],
            metric=entries["metric"],
        )

    @property
    def digest(self) -> str:
        """8 hex digits by all that the version holds; not by its number, or by what wrote it."""
        contents = replace(self, version="", libraries={})
        return hashlib.sha256(contents.to_json().encode()).hexdigest()[:8]

    def to_json(self) -> str:
        """The manifest file: its entries as an indented JSON object."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def read_manifest(directory: Path) -> Manifest:
    """The manifest of the current version, without opening anything else.

    Raises:
        IndexProblem: There is no index, or its manifest is damaged or of a newer format.
    """
    version, raw = _published(directory)
    path = directory / version / "manifest.json"
    try:
        entries = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise IndexProblem(f"{path} is not JSON: {error}.", REBUILD) from error
    try:
        fault = _fault(entries)
        if not fault:
            return Manifest.from_json({**entries, "version": version})
    except (KeyError, TypeError, AttributeError) as error:
        raise IndexProblem(f"{path} is damaged: {error!r}.", REBUILD) from error
    raise IndexProblem(f"{path}: {fault}.", REBUILD)


def _published(directory: Path) -> tuple[str, bytes]:
    """Name and manifest file of the current version."""
    pointer = directory / "current"
    if not pointer.is_file():
        there = "is a file" if directory.exists() else "does not exist"
        if directory.is_dir():
            there = "is no index: it has no file `current`"
        raise IndexProblem(
            f"{directory} {there}.", "Build one: annotator build-index IMAGES CONCEPTS"
        )
    text = pointer.read_text(encoding="utf-8", errors="replace")
    named = _POINTER.fullmatch(text)
    if named is None:
        raise IndexProblem(f"{pointer} is damaged: it names no version.", REBUILD)
    version, digest = named.groups()
    path = directory / version / "manifest.json"
    try:
        raw = path.read_bytes()
    except OSError as error:
        if not is_current(directory, version):  # another was published, and this one removed
            return _published(directory)
        raise IndexProblem(
            f"{pointer} names {version}, whose {path} cannot be read: {error.strerror}.", REBUILD
        ) from error
    if hashlib.sha256(raw).hexdigest() != digest:
        raise IndexProblem(f"{path} is not the manifest that was published.", REBUILD)
    return version, raw


def number_of(version: str) -> int:
    """The number in the name of a version."""
    return int(version[1:].partition("-")[0])


def is_current(directory: Path, version: str) -> bool:
    """Return whether `version` is still the current one."""
    try:
        return (directory / "current").read_text(encoding="utf-8").startswith(f"{version} ")
    except (OSError, UnicodeDecodeError):
        return False


def check_files(folder: Path, manifest: Manifest, *, whole: bool = True) -> list[str]:
    """Problems with the files of a version, as sentences; empty if there are none.

    Args:
        folder: Of the version.
        manifest: Of the version.
        whole: Check the digest of every file; otherwise only the size of files over 512 MiB,
            except of those that FAISS parses.
    """
    files = manifest.files
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda name: _file_fault(folder / name, files[name], whole), files)
        problems = [fault for fault in found if fault]
    try:
        present = {path.name for path in folder.iterdir()}
    except OSError as error:
        return [f"it cannot be read: {error.strerror}."]
    extra = present - set(files) - {"manifest.json"}
    return problems + [f"{name} does not belong there." for name in sorted(extra)]


def _file_fault(path: Path, expected: FileEntry, whole: bool) -> str:
    name = path.name
    try:
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            return f"{name} is missing."
        if size != expected.bytes:
            return f"{name} has {size} bytes, {expected.bytes} were written."
        read = whole or size <= LARGE or path.suffix == ".faiss"
        if read and _sha256(path) != expected.sha256:
            return f"{name} has changed since it was written (sha256 differs)."
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}."
    return ""


def _fault(manifest: Any) -> str:
    """Validate an untrusted manifest; returns the problem, or "" if there is none."""
    if not isinstance(manifest, dict):
        return "it is not a JSON object"
    number: Any = manifest.get("format")
    if not _is_count(number):
        return "it has no format number"
    if number > FORMAT:
        libraries = manifest.get("libraries")
        writer = libraries.get("annotator") if isinstance(libraries, dict) else None
        return (
            f"it has format {number}, this annotator reads up to {FORMAT}; install a newer one "
            f"(it was written by {writer or 'an unknown version'})"
        )
    for key in ("n", "dim"):
        if not _is_count(manifest.get(key)):
            return f"its {key} is not a positive whole number"
    if manifest.get("metric") != METRIC or manifest.get("index_type") not in list(SEARCH_FILES):
        return (
            f"it has metric {manifest.get('metric')!r} and index type "
            f"{manifest.get('index_type')!r}, which this annotator does not know"
        )
    for key in ("about", "libraries", "files"):
        if not isinstance(manifest.get(key), dict):
            return f"its {key} is not a JSON object"
    columns, arrays = manifest.get("columns"), manifest.get("arrays", [])
    files = manifest["files"]
    for what, names in (("columns", columns), ("arrays", arrays)):
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return f"its {what} are not a list of names"
    assert columns is not None
    fault = _fault_of_rows(manifest) if number >= 3 else ""
    if fault:
        return fault
    wanted = _files_of(manifest)
    if files.keys() != wanted:
        return f"it lists files other than {', '.join(sorted(wanted))}"
    for name, facts in files.items():
        if PLAIN_NAME.fullmatch(name) is None:
            return f"it lists {name!r}, which is not a plain file name"
        if (
            not isinstance(facts, dict)
            or not _is_count(facts.get("bytes"), least=0)
            or not isinstance(facts.get("sha256"), str)
        ):
            return f"it does not say size and sha256 of {name}"
    return ""


def _fault_of_rows(manifest: Mapping[str, Any]) -> str:
    """Validate the entries of a manifest about rows and search."""
    segments = manifest.get("segments")
    if not isinstance(manifest.get("search"), dict):
        return "its search is not a JSON object"
    if not isinstance(segments, list):
        return "its segments are not a list"
    rows = [manifest.get("rows")]
    for segment in segments:
        if not isinstance(segment, dict) or not _PREFIX.fullmatch(str(segment.get("prefix"))):
            return "a segment has no prefix"
        arrays = segment.get("arrays")
        if not isinstance(arrays, list) or not all(isinstance(name, str) for name in arrays):
            return "a segment's arrays are not a list of names"
        rows.append(segment.get("rows"))
    removed = manifest.get("removed")
    if not _is_count(manifest.get("corrections", 0), least=0):
        return "its corrections are not a whole number"
    if not all(_is_count(count) for count in rows) or not _is_count(removed, least=0):
        return "its rows are not positive whole numbers"
    if sum(rows) - removed != manifest["n"]:  # type: ignore[arg-type, operator]
        return "its rows do not add up"
    return ""


def _files_of(manifest: Mapping[str, Any]) -> set[str]:
    """Expected files of a version, from its manifest."""
    columns, arrays = manifest["columns"], manifest.get("arrays", [])
    rows = {*FILES, *(f"{name}.jsonl" for name in columns)}
    files = rows | {f"{name}.npy" for name in arrays}
    files |= set(SEARCH_FILES[manifest["index_type"]])
    files |= {REMOVED} if manifest.get("removed") else set()
    files |= {HISTORY} if manifest.get("corrections") else set()
    for segment in manifest.get("segments", []):
        own = rows | {f"{name}.npy" for name in segment["arrays"]}
        files |= {f"{segment['prefix']}{name}" for name in own}
    return files


def _is_count(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def load_array(path: Path) -> NDArray[Any]:
    """The array in an .npy file, read-only: in memory, or mapped if it is over `IN_MEMORY`.

    Raises:
        ValueError, EOFError, OSError: The file is not what its name says.
    """
    if path.stat().st_size > IN_MEMORY:
        mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped
    array: NDArray[Any] = np.load(path, allow_pickle=False)
    array.flags.writeable = False
    return array


@dataclass(frozen=True)
class FileStamps:
    """What the mapped files of a version were like when it was opened.

    A file that was replaced by another one (renamed over it) is still there for those who have it
    mapped. One that was written over in place is not: its new content would be mixed with what is
    in memory, and where it has become shorter, reading it ends the process (SIGBUS).
    """

    stamps: Mapping[Path, tuple[int, int, int, int]]

    @classmethod
    def of(cls, folder: Path, manifest: Manifest) -> FileStamps:
        """Look at the files that are going to be mapped."""
        large = [folder / name for name, file in manifest.files.items() if file.bytes > IN_MEMORY]
        return cls({path: _stamp(path) for path in large if path.exists()})

    def changed(self) -> str:
        """The first file that was written over in place, as a sentence; "" if there is none."""
        for path, before in self.stamps.items():
            with contextlib.suppress(OSError):  # removed: what is mapped stays
                now = _stamp(path)
                if now[:2] == before[:2] and now != before:
                    return f"{path} was written over while it was in use."
        return ""


def _stamp(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def describe_file(path: Path) -> FileEntry:
    """Size and sha256 of a file."""
    return FileEntry(path.stat().st_size, _sha256(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
