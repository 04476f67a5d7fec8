"""A folder as a place where an index lies."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index.errors import IndexProblem
from index.protocols import PATIENCE_S, Device, Index, Writer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from index.folder.change import Changed
    from index.segments import Segment


@dataclass(frozen=True)
class FolderLocation:
    """An index in a folder (`place.Place`).

    Attributes:
        folder: That folder.
    """

    folder: Path
    disk = "the disk"
    after_compact = "are gone from the disk"

    def __str__(self) -> str:
        return str(self.folder)

    def open(
        self, *, whole: bool = False, device: Device = "cpu", patience: float = PATIENCE_S
    ) -> Index:
        """`store.open_index`."""
        from index.folder.store import open_index

        return open_index(self.folder, whole=whole, device=device)

    def manifest(self) -> Mapping[str, Any]:
        """`manifest.read_manifest`."""
        from index.manifest import read_manifest

        return read_manifest(self.folder)[1]

    def check_index_type(self, index_type: str) -> None:
        """ "auto" or one of `manifest.SEARCH_FILES`."""
        from index.manifest import SEARCH_FILES

        if index_type != "auto" and index_type not in SEARCH_FILES:
            raise IndexProblem(
                f"A folder has no index of the type {index_type}.",
                f"It has: {', '.join(SEARCH_FILES)}.",
            )

    def writer(self) -> AbstractContextManager[Writer]:
        """`writer.VersionWriter`."""
        from index.folder.writer import VersionWriter

        return VersionWriter(self.folder)

    def add_rows(self, rows: Segment, *, of: str, over: bool = False) -> Changed:
        """`change.add_rows`."""
        from index.folder.change import add_rows

        return add_rows(self.folder, rows, of=of, over=over)

    def remove_rows(self, ids: Collection[str], *, missing_ok: bool = False) -> Changed:
        """`change.remove_rows`."""
        from index.folder.change import remove_rows

        return remove_rows(self.folder, ids, missing_ok=missing_ok)

    def compact(
        self,
        *,
        of: str,
        index_type: Any = None,
        target_recall: float | None = None,
        arrays: Mapping[str, NDArray[Any]],
    ) -> Changed:
        """`change.compact`."""
        from index.folder.change import compact

        return compact(
            self.folder,
            of=of,
            index_type=index_type,
            target_recall=target_recall,
            arrays=arrays,
        )

    def change_about(self, about: Mapping[str, Any], *, of: str) -> str:
        """`publish.change_about`."""
        from index.folder.publish import change_about

        return change_about(self.folder, about, of=of)

    def problems(self) -> list[str]:
        """`check.problems`."""
        from index.folder.check import problems

        return problems(self.folder)
