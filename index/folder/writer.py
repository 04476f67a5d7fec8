"""Writing a new version of an index from scratch."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.corrections import history_from_bytes, history_to_bytes
from index.errors import IndexProblem
from index.folder.publish import new_folder, only_writer, publish
from index.labels import LabelTable
from index.manifest import (
    FILES,
    HISTORY,
    PLAIN_NAME,
    REMOVED,
    SEARCH_FILES,
    Manifest,
    describe_file,
    read_manifest,
)
from index.search.base import check_unit
from index.search.build import IndexType, build_search
from index.segments import Segment, check_rows, npy_header, write_rows


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
            self._folder = new_folder(self.directory)
            stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._vectors = stack.enter_context((self._folder / "vectors.npy").open("wb"))
            self._vectors.write(npy_header(0, 0))
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
        concepts: Sequence[Sequence[str]] | LabelTable,
        *,
        names: Mapping[str, str],
        columns: Mapping[str, Sequence[str]],
        about: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]] | None = None,
        index_type: IndexType = "flat",
        target_recall: float | None = None,
    ) -> str:
        """Complete the version and make it the current one.

        What is published already (the same files, columns and `about`) is not published again: the
        current version stays. The version before the new one is kept for readers that are still
        opening it; older ones are removed. The history of corrections stays, of images that are in
        both; whether the labels given here have these corrections is the caller's business.

        Args:
            ids: Image id of each row, unique, without tabs and line breaks.
            concepts: CUIs of each row.
            names: Names of CUIs; those of other CUIs are left out.
            columns: Further text of each row by column name.
            about: Metadata of the builder, as JSON types.
            arrays: Further arrays by name; those of `ROW_ARRAYS` belong to the rows.
            index_type: How the vectors are searched; "auto" chooses by their number and length.
            target_recall: For approximate kinds, the share of the true neighbours to find, and for
                "auto" whether an approximate kind will do.

        Returns:
            The name of the current version.

        Raises:
            IndexProblem: There are no rows, the parts do not have one entry a row, ids repeat, or
                an id or CUI holds a tab or a line break.
        """
        arrays = arrays or {}
        if self._n == 0:
            raise IndexProblem("An index needs at least one vector.")
        check_rows(self._n, ids, concepts, columns)
        _check_names(list(columns), list(arrays))
        folder = self._folder
        self._vectors.seek(0)
        self._vectors.write(npy_header(self._n, self._dim or 0))
        self._vectors.flush()
        if not isinstance(concepts, LabelTable):
            concepts = LabelTable.from_sets(concepts)
        vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
        write_rows(folder, Segment(vectors, ids, concepts, names, columns, arrays))
        kind, search = build_search(folder, index_type, target_recall)
        corrections = self._keep_history(ids)
        manifest = Manifest(
            version="",
            n=self._n,
            dim=vectors.shape[1],
            index_type=kind,
            search=search,
            columns=tuple(sorted(columns)),
            arrays=tuple(sorted(arrays)),
            about=json.loads(json.dumps(about)),
            files={path.name: describe_file(path) for path in sorted(folder.iterdir())},
            rows=self._n,
            corrections=corrections,
        )
        return publish(self.directory, folder, manifest)

    def _keep_history(self, ids: Sequence[str]) -> int:
        """Take over the history of images that stay; the number of its last correction."""
        try:
            before = read_manifest(self.directory)
            if not before.corrections:
                return 0
            raw = (self.directory / before.version / HISTORY).read_bytes()
            kept = set(ids)
            history = [one for one in history_from_bytes(raw) if one.image_id in kept]
        except (IndexProblem, OSError):  # there was no index, or a damaged one
            return 0
        (self._folder / HISTORY).write_bytes(history_to_bytes(history))
        return before.corrections


def _check_names(columns: Sequence[str], arrays: Sequence[str]) -> None:
    taken = {*FILES, REMOVED, *(name for names in SEARCH_FILES.values() for name in names)}
    taken = {name.removesuffix(".npy") for name in taken}
    for name in (*columns, *arrays):
        if (
            PLAIN_NAME.fullmatch(f"{name}.jsonl") is None
            or name in taken
            or name.startswith("added-")
        ):
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
