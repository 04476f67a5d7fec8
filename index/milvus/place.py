"""A Milvus server as a place where an index lies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from index.folder.publish import only_writer
from index.manifest import Manifest
from index.milvus import change, check
from index.milvus.address import Address
from index.milvus.compact import compact
from index.milvus.kinds import choose_milvus_kind
from index.milvus.opened import MilvusIndex
from index.milvus.ready import open_rows
from index.milvus.server import Server
from index.milvus.state import current
from index.milvus.writer import MilvusWriter
from index.protocols import PATIENCE_S, Changed, Device, Index, Writer
from index.segments import Segment


@dataclass(frozen=True)
class MilvusLocation:
    """An index in Milvus (`index.protocols.IndexLocation`).

    Attributes:
        address: Of it.
    """

    address: Address
    disk = "the server's disk"
    after_compact = "are dropped, and the server deletes their files by itself some hours later"

    @classmethod
    def at(cls, text: str) -> MilvusLocation:
        """The place that an address names.

        Raises:
            IndexProblem: It cannot be read.
        """
        return cls(Address.parse(text))

    def __str__(self) -> str:
        return str(self.address)

    @property
    def folder(self) -> Path:
        """In the user's cache: vectors that this machine has computed for the index."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        digest = hashlib.sha256(str(self).encode()).hexdigest()[:8]
        folder = cache / "annotator" / f"{self.address.name}-{digest}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def open(
        self, *, whole: bool = False, device: Device = "cpu", patience: float = PATIENCE_S
    ) -> Index:
        """The current version; the server has checked what it loads, so `whole` changes nothing."""
        server = self._server(patience)
        state = current(server)
        open_rows(server, state.collection)
        return MilvusIndex(server, state.collection, state.revision, state.manifest)

    def manifest(self) -> Manifest:
        """That of the current version."""
        return Manifest.from_json(current(self._server()).manifest)

    def check_index_type(self, index_type: str) -> None:
        """ "auto" or one of `kinds.TYPES`."""
        choose_milvus_kind(index_type, 1, None)

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """`writer.MilvusWriter`."""
        with only_writer(self.folder), MilvusWriter(self._server(), self.folder) as writer:
            yield writer

    def add_rows(self, rows: Segment, *, of: str, over: bool = False) -> Changed:
        """`change.add_rows`."""
        with only_writer(self.folder):
            return change.add_rows(self._server(), rows, of=of, over=over)

    def remove_rows(self, ids: Collection[str], *, missing_ok: bool = False) -> Changed:
        """`change.remove_rows`."""
        with only_writer(self.folder):
            return change.remove_rows(self._server(), ids, missing_ok=missing_ok)

    def compact(
        self,
        *,
        of: str,
        index_type: Any = None,
        target_recall: float | None = None,
        arrays: Mapping[str, NDArray[Any]],
    ) -> Changed:
        """`compact.compact`."""
        with only_writer(self.folder):
            return compact(
                self._server(),
                self.folder,
                of=of,
                index_type=index_type,
                target_recall=target_recall,
                arrays=arrays,
            )

    def change_about(self, about: Mapping[str, Any], *, of: str) -> str:
        """`change.change_about`."""
        with only_writer(self.folder):
            return change.change_about(self._server(), about, of=of)

    def problems(self) -> list[str]:
        """`check.problems`."""
        return check.problems(self._server())

    def _server(self, patience: float = PATIENCE_S) -> Server:
        return Server(self.address, patience)
