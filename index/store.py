"""The index on disk: written whole, published at once, checked before it is believed.

    DIR/current                 the version that readers open: "v000001 <sha256 of its manifest>"
    DIR/v000001/manifest.json   format, counts, encoder, voting, and each file's size and sha256
    DIR/v000001/vectors.npy     float32[n, dim], unit norm; memory-mapped by readers
    DIR/v000001/labels.indptr.npy, labels.indices.npy
    DIR/v000001/cuis.tsv        the vocabulary in order, one "CUI<TAB>name" a line
    DIR/v000001/ids.txt         one image id a line, in row order
    DIR/v000001/COLUMN.jsonl    further text of each row, if given: captions, groups
    DIR/v000001/ARRAY.npy       further arrays, if given; memory-mapped by readers

A version is written into a temporary folder, synced, renamed, and only then named by `current`,
which is replaced atomically. A reader keeps the version that it opened. Nothing is ever pickled.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.backends import FlatIndex, VectorIndex, check_unit, import_faiss
from index.errors import IndexProblem
from index.labels import LabelTable
from index.manifest import (
    FILES,
    FORMAT,
    METRIC,
    PLAIN_NAME,
    REBUILD,
    check_files,
    describe_file,
    read_manifest,
)
from index.publish import only_writer, publish

# All small pictures in a row, and where each one ends: uint8[bytes] and int64[n].
THUMBNAILS, THUMBNAIL_ENDS = "thumbnails", "thumbnails.ends"
_UNWRITABLE = re.compile(r"[\t\r\n\ud800-\udfff]")  # in a line of a UTF-8 file with tabs


@dataclass(frozen=True)
class StoredIndex:
    """An opened version of an index. Rows, ids and labels agree: that is checked on opening.

    Attributes:
        version: Such as "v000001".
        index: The vectors.
        ids: Image id of each row.
        labels: CUIs of each row.
        names: Name of each CUI that has one.
        columns: Further text of each row by column name ("captions", "groups").
        arrays: Further arrays by name, mapped read-only.
        manifest: The manifest as read; `manifest["about"]` is what the builder put there.
    """

    version: str
    index: VectorIndex
    ids: tuple[str, ...]
    labels: LabelTable
    names: Mapping[str, str]
    columns: Mapping[str, tuple[str, ...]]
    arrays: Mapping[str, NDArray[Any]]
    manifest: Mapping[str, Any]

    @property
    def has_thumbnails(self) -> bool:
        """Whether its rows have small pictures."""
        return THUMBNAIL_ENDS in self.arrays

    def thumbnail(self, row: int) -> bytes | None:
        """The small picture of a row, a JPEG; None where there is none."""
        if not self.has_thumbnails:
            return None
        ends = self.arrays[THUMBNAIL_ENDS]
        start = int(ends[row - 1]) if row else 0
        return self.arrays[THUMBNAILS][start : int(ends[row])].tobytes() or None


class VersionWriter:
    """Writes one version: vectors as they come, then the rest, then publishes it.

    Use as a context manager; leaving it without `publish` removes what was written. One writer at a
    time: a second one on the same folder is refused.

    Args:
        directory: The index; created if it is not there.

    Raises:
        IndexProblem: Another process is writing to this index, or the folder is something else.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._dim: int | None = None
        self._n = 0

    def __enter__(self) -> VersionWriter:
        _refuse_foreign_folder(self.directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            stack.enter_context(only_writer(self.directory))
            for stale in self.directory.glob(".writing-*"):
                shutil.rmtree(stale, ignore_errors=True)  # left by a writer that was killed
            self._folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=self.directory))
            stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._vectors = stack.enter_context((self._folder / "vectors.npy").open("wb"))
            self._vectors.write(_npy_header(0, 0))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Append float32[m, dim] of unit norm to the rows; the first ones say what dim is."""
        check_unit(vectors, self._dim, "vectors")
        self._dim = vectors.shape[1]
        self._vectors.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
        self._n += len(vectors)

    def publish(
        self,
        ids: Sequence[str],
        concepts: Sequence[Sequence[str]],
        *,
        names: Mapping[str, str],
        columns: Mapping[str, Sequence[str]],
        about: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]] | None = None,
    ) -> str:
        """Complete the version and make it the current one.

        What is published already (the same files, columns and `about`) is not published again: the
        current version stays. The version before the new one is kept for readers that are still
        opening it; older ones are removed.

        Args:
            ids: Image id of each row, unique, without tabs and line breaks.
            concepts: CUIs of each row.
            names: Names of CUIs; those of other CUIs are left out.
            columns: Further text of each row by column name.
            about: Whatever the builder wants to find again, as JSON types.
            arrays: Further arrays to find again, by name.

        Returns:
            The name of the current version.

        Raises:
            IndexProblem: There are no rows, the parts do not have one entry a row, ids repeat, or
                an id or CUI holds a tab or a line break.
        """
        arrays = arrays or {}
        _check_rows(self._n, ids, concepts, columns, arrays)
        labels = LabelTable.from_sets(concepts)
        folder = self._folder
        self._vectors.seek(0)
        self._vectors.write(_npy_header(self._n, self._dim or 0))
        self._vectors.flush()
        np.save(folder / "labels.indptr.npy", labels.indptr, allow_pickle=False)
        np.save(folder / "labels.indices.npy", labels.indices, allow_pickle=False)
        _write_lines(
            folder / "cuis.tsv", (f"{c}\t{_one_line(names.get(c, ''))}" for c in labels.cuis)
        )
        _write_lines(folder / "ids.txt", ids)
        for name, column in columns.items():
            _write_lines(folder / f"{name}.jsonl", (json.dumps(text) for text in column))
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        content = {
            "format": FORMAT,
            "n": self._n,
            "dim": self._dim,
            "metric": METRIC,
            "index_type": FlatIndex.kind,
            "columns": sorted(columns),
            "arrays": sorted(arrays),
            "about": json.loads(json.dumps(about)),
            "files": {path.name: describe_file(path) for path in sorted(folder.iterdir())},
        }
        return publish(self.directory, folder, content)


def open_index(directory: Path) -> StoredIndex:
    """Open the current version, after checking every file against the manifest.

    Raises:
        IndexProblem: There is no index, or it is damaged, or of a newer format; says where.
    """
    version, manifest = read_manifest(directory)
    folder = directory / version
    problems = check_files(folder, manifest)
    if problems:
        raise IndexProblem(f"{folder}: {problems[0]}", REBUILD)
    import_faiss()  # that it is not there is no fault of the index
    try:
        return _read_version(folder, version, manifest)
    except IndexProblem as problem:
        raise IndexProblem(f"{folder}: {problem.message}", REBUILD) from problem
    except (ValueError, EOFError, OSError) as error:  # written wrong, or removed meanwhile
        raise IndexProblem(f"{folder} cannot be read: {error}", REBUILD) from error


def _read_version(folder: Path, version: str, manifest: Mapping[str, Any]) -> StoredIndex:
    vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
    lines = [line.partition("\t") for line in _read_lines(folder / "cuis.tsv")]
    labels = LabelTable(
        np.load(folder / "labels.indptr.npy", allow_pickle=False),
        np.load(folder / "labels.indices.npy", allow_pickle=False),
        tuple(cui for cui, _, _ in lines),
    )
    ids = tuple(_read_lines(folder / "ids.txt"))
    columns = {
        name: tuple(str(json.loads(line)) for line in _read_lines(folder / f"{name}.jsonl"))
        for name in manifest["columns"]
    }
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        for name in manifest.get("arrays", ())
    }
    _check_thumbnails(arrays, manifest["n"])
    counts = {"vectors": len(vectors), "labels": len(labels), "ids": len(set(ids))}
    counts |= {name: len(column) for name, column in columns.items()}
    wrong = {name: count for name, count in counts.items() if count != manifest["n"]}
    if wrong or vectors.shape[1:] != (manifest["dim"],):
        found = ", ".join(f"{count} {name}" for name, count in wrong.items())
        raise IndexProblem(
            f"{manifest['n']} rows of {manifest['dim']} dimensions were expected; there are "
            f"{found or f'vectors of shape {vectors.shape}'}."
        )
    return StoredIndex(
        version=version,
        index=FlatIndex(vectors),
        ids=ids,
        labels=labels,
        names={cui: name for cui, _, name in lines if name},
        columns=columns,
        arrays=arrays,
        manifest=manifest,
    )


def _check_thumbnails(arrays: Mapping[str, NDArray[Any]], n: int) -> None:
    ends = arrays.get(THUMBNAIL_ENDS)
    if ends is None:
        return
    pictures = arrays.get(THUMBNAILS)
    fits = (
        pictures is not None
        and (pictures.dtype, pictures.ndim) == (np.dtype(np.uint8), 1)
        and (ends.dtype, ends.shape) == (np.dtype(np.int64), (n,))
        and int(ends[0]) >= 0
        and not np.any(np.diff(ends) < 0)
        and int(ends[-1]) == len(pictures)
    )
    if not fits:
        raise IndexProblem("The small pictures do not fit the rows.")


def _check_rows(
    n: int,
    ids: Sequence[str],
    concepts: Sequence[Sequence[str]],
    columns: Mapping[str, Sequence[str]],
    arrays: Mapping[str, NDArray[Any]],
) -> None:
    if n == 0:
        raise IndexProblem("An index needs at least one vector.")
    for name, rows in {"ids": ids, "concepts": concepts, **columns}.items():
        if len(rows) != n:
            raise IndexProblem(f"{n} vectors but {len(rows)} {name}.")
    if len(set(ids)) != n:
        raise IndexProblem("Image ids repeat.")
    for what, texts in (("image id", ids), ("CUI", {cui for row in concepts for cui in row})):
        bad = next((text for text in texts if _UNWRITABLE.search(text)), None)
        if bad is not None:
            raise IndexProblem(f"The {what} {bad!r} holds a tab, a line break or a half character.")
    taken = {name.removesuffix(".npy") for name in FILES}
    for name in (*columns, *arrays):
        if PLAIN_NAME.fullmatch(f"{name}.jsonl") is None or name in taken:
            raise IndexProblem(f"{name!r} cannot be the name of a column or an array.")


def _refuse_foreign_folder(directory: Path) -> None:
    """Do not write an index between somebody's other files."""
    if directory.exists() and not directory.is_dir():
        raise IndexProblem(f"{directory} is a file.", "Give a folder for the index.")
    ours = ("current", "lock", "embeddings.sqlite")
    if directory.is_dir() and not any((directory / name).exists() for name in ours):
        others = [path.name for path in directory.iterdir()]
        if others:
            raise IndexProblem(
                f"{directory} is not an index and not empty (it holds {others[0]}).",
                "Give an empty or a new folder with --index.",
            )


def _npy_header(n: int, dim: int) -> bytes:
    """The header of a .npy file (NumPy format 1.0), always 128 bytes so that n can be set last."""
    fields = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({n}, {dim}), }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + fields.ljust(117).encode() + b"\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _write_lines(path: Path, lines: Iterator[str] | Sequence[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(f"{line}\n" for line in lines)


def _read_lines(path: Path) -> list[str]:
    return path.read_bytes().decode("utf-8").split("\n")[:-1]
