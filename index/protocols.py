"""Interfaces of index storage, which `index.folder` and `index.milvus` implement.

An `IndexLocation` says where an index is stored and changes it; an `Index` is one opened version of
it, which does not change any more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from index.corrections import Correction
    from index.labels import LabelTable
    from index.manifest import Manifest
    from index.rows import Rows, SearchResult
    from index.segments import Segment

Device = Literal["auto", "cpu", "cuda"]
PATIENCE_S = 120.0  # a command outlives a restart of the server


@dataclass(frozen=True)
class Changed:
    """Result of a change.

    Attributes:
        version: The current version.
        rows: Number of rows after the change.
        added: Number of added rows.
        removed: Number of removed rows.
    """

    version: str
    rows: int
    added: int = 0
    removed: int = 0


class Index(Protocol):
    """A version of an index, opened for reading. Later changes do not show in it.

    Attributes:
        version: Such as "v000001".
        manifest: What the index says of itself; `manifest.about` is what its builder put there.
        names: Name of each CUI that has one.
        arrays: Further arrays by name, read-only.
    """

    @property
    def version(self) -> str: ...
    @property
    def manifest(self) -> Manifest: ...
    @property
    def names(self) -> Mapping[str, str]: ...
    @property
    def arrays(self) -> Mapping[str, NDArray[Any]]: ...

    def __len__(self) -> int: ...

    @property
    def labels(self) -> LabelTable:
        """CUIs of each row; from a server, read when it is first asked for."""
        ...

    @property
    def concepts(self) -> Mapping[str, int]:
        """Number of images by CUI, in ascending order."""
        ...

    @property
    def has_thumbnails(self) -> bool:
        """Whether rows have thumbnails."""
        ...

    def check_unchanged(self) -> None:
        """Refuse an index whose files were written over since it was opened; costs microseconds.

        Raises:
            IndexProblem: Says which.
        """
        ...

    def find(self, vectors: NDArray[np.float32], k: int) -> SearchResult:
        """The k nearest rows of each vector, float32[q, dim] of unit norm.

        Raises:
            IndexProblem: Vectors of another length or not of unit norm; k below 1; the server
                cannot be reached.
        """
        ...

    def with_ids(self, ids: Sequence[str]) -> Rows:
        """The images with these ids, in their order; unknown ids are left out."""
        ...

    def with_concept(self, cui: str, most: int) -> Rows:
        """Images that hold a CUI by ascending row; of more than `most`, an even sample."""
        ...

    def thumbnail_of(self, image_id: str) -> bytes | None:
        """The thumbnail of an image, a JPEG; None where there is none."""
        ...

    def contents_of_only(self, ids: Collection[str]) -> set[bytes] | None:
        """The sha256 of the files of some images, without those that other images share.

        None where the index does not record its images' files.
        """
        ...

    def contents_of_removed(self) -> set[bytes] | None:
        """The sha256 of the files of removed rows that are still stored, less those in use.

        None where the index does not record its images' files.
        """
        ...

    def renumber(self, stored: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows as they were numbered when they were written, int64 of any shape, by today's number;
        -1 for those that were removed since.
        """
        ...


class Writer(Protocol):
    """Writes a whole index: vectors as they come, then the rest, then publishes it."""

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Append float32[m, dim] of unit norm to the rows."""
        ...

    def publish(
        self,
        ids: Sequence[str],
        concepts: Sequence[Sequence[str]] | LabelTable,
        *,
        names: Mapping[str, str],
        columns: Mapping[str, Sequence[str]],
        about: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]] | None = None,
        index_type: Any = "flat",
        target_recall: float | None = None,
    ) -> str:
        """Complete the index and let readers see it; the name of its version."""
        ...


class IndexLocation(Protocol):
    """Where an index is stored. Its text is what `locate` takes.

    Attributes:
        folder: On this machine, for the cache of vectors and temporary files.
        disk: Where its rows are kept, for messages.
        after_compact: What becomes of removed rows after `compact`, for messages.
    """

    @property
    def folder(self) -> Path: ...
    @property
    def disk(self) -> str: ...
    @property
    def after_compact(self) -> str: ...

    def open(
        self, *, whole: bool = False, device: Device = "cpu", patience: float = PATIENCE_S
    ) -> Index:
        """Open the current version.

        Args:
            whole: Also verify the checksums of files over 512 MiB.
            device: "cuda" searches on this machine's GPUs, if the vectors are on this machine.
            patience: Seconds for which a server that is away or busy is tried again, now and in
                searches.

        Raises:
            IndexProblem: The index is missing, damaged or unreachable.
        """
        ...

    def manifest(self) -> Manifest:
        """Read the manifest of the current version, without opening it."""
        ...

    def check_index_type(self, index_type: str) -> None:
        """Refuse an index type that this storage does not have, before any work is done.

        Raises:
            IndexProblem: Says which there are.
        """
        ...

    def writer(self) -> AbstractContextManager[Writer]:
        """Begin to write an index; leaving it without `publish` changes nothing for readers."""
        ...

    def add_rows(self, rows: Segment, *, of: str, over: bool = False) -> Changed:
        """Add rows to the version `of`; with `over` in place of those with their ids."""
        ...

    def remove_rows(self, ids: Collection[str], *, missing_ok: bool = False) -> Changed:
        """Remove rows: no search finds them any more."""
        ...

    def correct(self, corrections: Sequence[Correction], *, of: str | None = None) -> Changed:
        """Publish changes of labels, and keep them in the history of the index.

        Raises:
            IndexProblem: The storage cannot do that; or as for the other changes.
        """
        ...

    def history(self) -> Sequence[Correction]:
        """The corrections of the current version, oldest first."""
        ...

    def settle(self) -> None:
        """Publish corrections that were accepted by a service that was killed before it could."""
        ...

    def compact(
        self,
        *,
        of: str,
        index_type: Any = None,
        target_recall: float | None = None,
        arrays: Mapping[str, NDArray[Any]],
    ) -> Changed:
        """Write the rows of the version `of` anew, without those that were removed.

        Args:
            of: The version that `arrays` were made for; a newer one is not overwritten.
            index_type: Another kind of index; None for the same.
            target_recall: Of an approximate kind; None for the same.
            arrays: Instead of the index's own: those that refer to rows by number have to be
                renumbered (`Index.renumber`).
        """
        ...

    def change_about(self, about: Mapping[str, Any], *, of: str) -> str:
        """Put another `about` into the manifest of the version `of`; the new version."""
        ...

    def problems(self) -> list[str]:
        """List all problems of the stored index, as sentences."""
        ...
