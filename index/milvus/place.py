"""A Milvus server as a place where an index lies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.change import Changed
from index.milvus import change, check
from index.milvus.address import Address
from index.milvus.opened import MilvusIndex
from index.milvus.server import Server
from index.milvus.state import current
from index.milvus.writer import MilvusWriter
from index.place import PATIENCE_S, Device, Index, Writer
from index.progress import Progress, silent
from index.segments import Segment


@dataclass(frozen=True)
class MilvusPlace:
    """An index in Milvus (`place.Place`).

    Attributes:
        address: Of it.
    """

    address: Address

    @classmethod
    def at(cls, text: str) -> MilvusPlace:
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
        return MilvusIndex(server, state.collection, state.revision, state.manifest)

    def manifest(self) -> Mapping[str, Any]:
        """That of the current version."""
        return current(self._server()).manifest

    def writer(self) -> AbstractContextManager[Writer]:
        """`writer.MilvusWriter`."""
        return MilvusWriter(self._server(), self.folder)

    def add_rows(
        self, rows: Segment, *, of: str, over: bool = False, progress: Progress = silent
    ) -> Changed:
        """`change.add_rows`."""
        return change.add_rows(self._server(), rows, of=of, over=over, progress=progress)

    def remove_rows(self, ids: Collection[str], *, missing_ok: bool = False) -> Changed:
        """`change.remove_rows`."""
        return change.remove_rows(self._server(), ids, missing_ok=missing_ok)

    def change_about(self, about: Mapping[str, Any], *, of: str) -> str:
        """`change.change_about`."""
        return change.change_about(self._server(), about, of=of)

    def problems(self) -> list[str]:
        """`check.problems`."""
        return check.problems(self._server())

    def _server(self, patience: float = PATIENCE_S) -> Server:
        return Server(self.address, patience)
