"""Writing a whole index into Milvus: what a build does."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.labels import LabelTable
from index.manifest import FORMAT, METRIC
from index.milvus.documents import Documents, array_to_bytes
from index.milvus.kinds import EXACT, build_params, choose_milvus_kind, efforts
from index.milvus.ready import make_ready, tune_search, wait_until_loaded
from index.milvus.rows import check_entities, count, create_rows, send_all, settle
from index.milvus.server import ABSENT, Server
from index.milvus.state import (
    current,
    current_collection,
    libraries,
    number_of,
    render_concepts,
    version_name,
)
from index.search.base import check_unit
from index.search.build import DEFAULT_RECALL
from index.segments import CONTENT, ROW_ARRAYS, THUMBNAIL_ENDS, Segment, check_rows

_NOTE = "annotator build "
_HASHED = 65536  # rows at once


class MilvusWriter:
    """Writes one version into new collections, then lets the alias point to them.

    Use as a context manager. A build that was stopped leaves its rows on the server; the next one
    of the same images goes on with them, and of others removes them. Who builds one index from two
    places at a time gets an error or the later one's index: there is no lock.

    Args:
        server: To talk to.
        folder: Where vectors are kept until they are sent.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._dim: int | None = None
        self._n = 0

    def __enter__(self) -> MilvusWriter:
        current_collection(self._server)  # that it can be reached is known before the work is done
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Append float32[m, dim] of unit norm to the rows; the first ones say what dim is."""
        check_unit(vectors, self._dim, "vectors")
        self._dim = vectors.shape[1]
        self._file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
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
        index_type: str = "flat",
        target_recall: float | None = None,
        reason: str | None = None,
        only: bool = False,
    ) -> str:
        """Send the rows and let readers see them; see `index.folder.writer.VersionWriter.publish`.

        A `reason` is recorded in place of why the kind was chosen. With `only`, the version before
        goes at once, even if a reader is just opening it.

        Raises:
            IndexProblem: As there; something that Milvus cannot keep; the server is away for longer
                than the patience (what was sent stays, and the next build goes on with it).
        """
        if self._n == 0:
            raise IndexProblem("An index needs at least one vector.")
        check_rows(self._n, ids, concepts, columns)
        self._file.flush()
        shape = (self._n, self._dim or 0)
        arrays = arrays or {}
        table = concepts if isinstance(concepts, LabelTable) else LabelTable.from_sets(concepts)
        own = {name: array for name, array in arrays.items() if name in ROW_ARRAYS}
        vectors: NDArray[np.float32] = np.memmap(self._file, "<f4", "r", 0, shape)
        rows = Segment(vectors, ids, table, names, columns, own)
        check_entities(rows)
        kind, why = choose_milvus_kind(index_type, self._n, target_recall)
        others = {name: array for name, array in arrays.items() if name not in ROW_ARRAYS}
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "n": self._n,
            "stored": self._n,
            "removed": 0,
            "segments": [],
            "dim": self._dim,
            "metric": METRIC,
            "index_type": kind,
            "columns": sorted(columns),
            "arrays": sorted(others),
            "thumbnails": THUMBNAIL_ENDS in own,
            "content": CONTENT in own,
            "about": json.loads(json.dumps(about)),
            "sample": [list(table.row(row)) for row in table.sample.tolist()],
            "rows_sha256": _digest(rows, kind),
            "files": {"vectors": {"bytes": 4 * self._n * (self._dim or 0)}},
        }
        counts = dict(zip(table.cuis, table.frequencies.tolist(), strict=True))
        texts = {"concepts": render_concepts(counts, names)}
        texts |= {name: array_to_bytes(array) for name, array in others.items()}
        return self._publish(rows, manifest, texts, reason or why, target_recall, only)

    def _publish(
        self,
        rows: Segment,
        manifest: dict[str, Any],
        texts: Mapping[str, bytes],
        reason: str,
        target_recall: float | None,
        only: bool,
    ) -> str:
        server, name = self._server, self._server.address.name
        before = current_collection(server)
        if before is not None and self._is_published(manifest, texts, target_recall):
            if only:
                self._drop({number_of(name, before)})
            return str(current(server).manifest["version"])
        former = number_of(name, before) if before else None
        number = (former or 0) + 1
        collection, resumed = self._collection(number, rows, manifest["rows_sha256"])
        documents = Documents(server, f"{collection}_documents")
        documents.create()
        kind, n = manifest["index_type"], len(rows)
        params = build_params(kind, n)
        if resumed:
            make_ready(server, collection, params, n)  # to ask what is there
        send_all(server, collection, rows, 0, resumed=resumed)
        make_ready(server, collection, params, n)
        settle(server, collection, rows, 0, expected=n)
        search: dict[str, Any] = {"params": next(iter(efforts(kind, n)))}
        if kind not in EXACT:
            target = target_recall or DEFAULT_RECALL
            search = tune_search(server, collection, kind, np.asarray(rows.vectors), target)
        manifest |= {
            "search": {**search, "reason": reason},
            "version": version_name(number, 1),
            "libraries": libraries(server),
        }
        wait_until_loaded(server, documents.collection)
        documents.publish(1, manifest, texts)
        server.patiently(lambda client, seconds: _swing(client, seconds, name, collection))
        self._drop({number} if only else {number, former})
        return version_name(number, 1)

    def _is_published(
        self,
        manifest: Mapping[str, Any],
        texts: Mapping[str, bytes],
        target_recall: float | None,
    ) -> bool:
        """Whether the current version says the same."""
        try:
            now = current(self._server)
        except IndexProblem:
            return False
        same = all(now.manifest.get(key) == value for key, value in manifest.items())
        if manifest["index_type"] not in EXACT:
            target = target_recall or DEFAULT_RECALL
            same = same and now.manifest["search"]["target_recall"] == target
        hashes = {name: hashlib.sha256(raw).hexdigest() for name, raw in texts.items()}
        entries = now.manifest["documents"]
        there = {name: entries[name]["sha256"] for name in hashes if name in entries}
        return same and there == hashes and count(self._server, now.collection) == manifest["n"]

    def _collection(self, number: int, rows: Segment, digest: str) -> tuple[str, bool]:
        """The collection for the rows, and whether a build that was stopped began it."""
        server, name = self._server, self._server.address.name
        collection = f"{name}_v{number:06d}"
        note = f"{_NOTE}{digest}"
        if collection in server.call("list_collections"):
            found = server.call("describe_collection", collection)
            if found.get("description") == note:
                return collection, True
            server.call("drop_collection", collection)

        def create(client: Any, seconds: float) -> None:
            if not client.has_collection(collection, timeout=seconds):
                create_rows(client, seconds, collection, rows, note)

        server.patiently(create)
        return collection, False

    def _drop(self, kept: set[int | None]) -> None:
        """Remove the versions that no reader is opening any more."""
        name = self._server.address.name
        for collection in self._server.call("list_collections"):
            number = number_of(name, collection.removesuffix("_documents"))
            if number is not None and number not in kept:
                self._server.call("drop_collection", collection)


def _swing(client: Any, seconds: float, name: str, collection: str) -> None:
    """Let an alias point to a collection, whether it is there or not."""
    from pymilvus.exceptions import MilvusException

    try:
        client.alter_alias(collection, name, timeout=seconds)
    except MilvusException as error:
        if error.code not in ABSENT:
            raise
        client.create_alias(collection, name, timeout=seconds)


def _digest(rows: Segment, kind: str) -> str:
    """sha256 of everything that makes the collection."""
    digest = hashlib.sha256(json.dumps([kind, list(rows.ids), list(rows.labels.cuis)]).encode())
    digest.update(rows.labels.indptr.tobytes())
    digest.update(rows.labels.indices.tobytes())
    digest.update(json.dumps({k: list(v) for k, v in sorted(rows.columns.items())}).encode())
    for name in sorted(rows.arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(rows.arrays[name]).tobytes())
    for start in range(0, len(rows), _HASHED):
        digest.update(np.ascontiguousarray(rows.vectors[start : start + _HASHED]).tobytes())
    return digest.hexdigest()
