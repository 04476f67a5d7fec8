"""Writing a whole version of an index into Milvus."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from index.distribution import DISTRIBUTION
from index.errors import IndexProblem
from index.labels import LabelTable
from index.manifest import FORMAT, METRIC
from index.milvus.collection import Collection
from index.milvus.documents import (
    Documents,
    array_to_bytes,
    current,
    current_collection,
    number_of,
    render_concepts,
)
from index.milvus.kinds import EXACT, build_params, choose_milvus_kind, efforts, search_params
from index.milvus.rows import check_entities, create_rows, send_rows, settle
from index.milvus.server import ABSENT, Server
from index.search.base import check_unit
from index.search.build import DEFAULT_RECALL
from index.search.flat import FlatIndex
from index.segments import CONTENT, ROW_ARRAYS, THUMBNAIL_ENDS, Segment, check_rows

_NOTE = "annotator build "
_HASHED = 65536  # rows at once
_PROBES, _K = 200, 50
_SAME = 1e-5  # the server's and FAISS's similarities of a pair of vectors differ by less


class MilvusWriter:
    """Writes one version into new collections, then lets the alias point to them.

    Use as a context manager. A build that was stopped leaves its rows on the server; the next one
    of the same images goes on with them, and of others removes them. If one index is built from two
    machines at a time, one gets an error or the later one's index: there is no lock.

    Args:
        server: Where to write.
        folder: For vectors until they are sent.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._dim: int | None = None
        self._n = 0

    def __enter__(self) -> MilvusWriter:
        current_collection(self._server)  # fail before the work is done if it cannot be reached
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Append float32[m, dim] of unit norm to the rows; the first ones determine dim."""
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

        Args:
            ids, concepts, names, columns, about, arrays, index_type, target_recall: As there.
            reason: Recorded in place of why the index type was chosen.
            only: Drop the version before at once, even if a reader is just opening it.

        Raises:
            IndexProblem: As there; something that Milvus cannot keep; the server is away for longer
                than the patience (what was sent stays, and the next build goes on with it).
        """
        if self._n == 0:
            raise IndexProblem("An index needs at least one vector.")
        check_rows(self._n, ids, concepts, columns)
        self._file.flush()
        arrays = arrays or {}
        table = concepts if isinstance(concepts, LabelTable) else LabelTable.from_sets(concepts)
        own = {name: array for name, array in arrays.items() if name in ROW_ARRAYS}
        others = {name: array for name, array in arrays.items() if name not in ROW_ARRAYS}
        shape = (self._n, self._dim or 0)
        vectors: NDArray[np.float32] = np.memmap(self._file, "<f4", "r", 0, shape)
        rows = Segment(vectors, ids, table, names, columns, own)
        check_entities(rows)
        kind, why = choose_milvus_kind(index_type, self._n, target_recall)
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
            "documents": {},
            "files": {"vectors": {"bytes": 4 * self._n * (self._dim or 0)}},
        }
        counts = dict(zip(table.cuis, table.frequencies.tolist(), strict=True))
        texts = {"concepts": render_concepts(counts, names)}
        texts |= {name: array_to_bytes(array) for name, array in others.items()}
        target = None if kind in EXACT else target_recall or DEFAULT_RECALL
        manifest["build_sha256"] = _digest(rows, texts, {**manifest, "target_recall": target})
        return self._publish(rows, manifest, texts, reason or why, target, only)

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
        former = number_of(name, before) if before else None
        if before and (same := self._published(manifest)):
            if only:
                self._drop_all_but({former})
            return same
        number = (former or 0) + 1
        collection = Collection(server, f"{name}_v{number:06d}")
        resumed = self._create(collection, rows, f"{_NOTE}{manifest['build_sha256']}")
        documents = Documents(server, collection.name)
        documents.create()
        kind, n = manifest["index_type"], len(rows)
        params = build_params(kind, n)
        if resumed:
            collection.make_searchable(params, n)  # to ask what is there
        send_rows(collection, rows, 0, resumed=resumed)
        collection.make_searchable(params, n)
        settle(collection, rows, 0, expected=n)
        search: dict[str, Any] = {"params": next(iter(efforts(kind, n)))}
        if target_recall is not None:
            search = _tune_search(collection, kind, np.asarray(rows.vectors), target_recall)
        manifest |= {
            "version": f"v{number:06d}.0",
            "search": {**search, "reason": reason},
            "libraries": self._libraries(),
        }
        documents.collection.wait_until_loaded()
        written = documents.publish(manifest, texts)
        server.retry(lambda client, seconds: _point(client, seconds, name, collection.name))
        self._drop_all_but({number} if only else {number, former})
        return str(written["version"])

    def _published(self, manifest: Mapping[str, Any]) -> str | None:
        """The current version if it is this build, unchanged; otherwise None."""
        try:
            now = current(self._server)
        except IndexProblem:
            return None
        version = str(now.manifest["version"])
        same = now.manifest.get("build_sha256") == manifest["build_sha256"]
        unchanged = version.endswith(".1") and now.rows.count() == manifest["n"]
        return version if same and unchanged else None

    def _create(self, collection: Collection, rows: Segment, note: str) -> bool:
        """Create the collection of rows, unless the same build, stopped, has: then True."""
        server, name = self._server, collection.name
        if name in server.call("list_collections"):
            if server.call("describe_collection", name).get("description") == note:
                return True
            server.call("drop_collection", name)

        def create(client: Any, seconds: float) -> None:
            if not client.has_collection(name, timeout=seconds):
                create_rows(client, seconds, name, rows, note)

        server.retry(create)
        return False

    def _drop_all_but(self, kept: set[int | None]) -> None:
        """Drop the collections of all other versions."""
        name = self._server.address.name
        for collection in self._server.call("list_collections"):
            number = number_of(name, collection.removesuffix("_documents"))
            if number is not None and number not in kept:
                self._server.call("drop_collection", collection)

    def _libraries(self) -> dict[str, str]:
        """Versions of what writes the index."""
        versions = {"milvus": str(self._server.call("get_server_version"))}
        for key, name in (("annotator", DISTRIBUTION), ("numpy", "numpy"), ("pymilvus",) * 2):
            with suppress(importlib.metadata.PackageNotFoundError):
                versions[key] = importlib.metadata.version(name)
        return versions


def _tune_search(
    rows: Collection, kind: str, vectors: NDArray[np.float32], target: float
) -> dict[str, Any]:
    """Find the quickest search parameters with a recall, measured on rows of the index.

    Args:
        rows: The collection, loaded.
        kind: An approximate index type.
        vectors: float32[n, dim] of the rows.
        target: Share of the 50 nearest to find.

    Returns:
        "params", "target_recall" and the measured "recall".
    """
    n = len(vectors)
    k = min(_K + 1, n)  # each row finds itself, too
    probes = np.unique(np.linspace(0, n - 1, min(_PROBES, n)).astype(np.int64))
    queries = np.ascontiguousarray(vectors[probes])
    # By similarity, so that it does not matter which of several equal rows are found.
    least = FlatIndex(vectors).search(queries, k).similarities[:, -1] - _SAME
    chosen: dict[str, Any] = {}
    aim = target + 0.25 * (1 - target)  # new images are harder than these
    for params in efforts(kind, n):
        found = rows.server.call(
            "search",
            rows.name,
            data=list(queries),
            limit=k,
            search_params=search_params(params, k),
            consistency_level="Bounded",
        )
        hits = sum(
            sum(hit["distance"] >= bound for hit in near)
            for near, bound in zip(found, least.tolist(), strict=True)
        )
        wanted = len(probes) * max(k - 1, 1)
        recall = min(1.0, (hits - len(probes) * min(1, k - 1)) / wanted)
        chosen = {"params": params, "target_recall": target, "recall": round(recall, 4)}
        if recall >= aim:
            break
    return chosen


def _point(client: Any, seconds: float, alias: str, collection: str) -> None:
    """Let an alias, new or not, point to a collection."""
    from pymilvus.exceptions import MilvusException

    try:
        client.alter_alias(collection, alias, timeout=seconds)
    except MilvusException as error:
        if error.code not in ABSENT:
            raise
        client.create_alias(collection, alias, timeout=seconds)


def _digest(rows: Segment, texts: Mapping[str, bytes], manifest: Mapping[str, Any]) -> str:
    """sha256 of everything that makes a build."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode())
    columns = {name: list(column) for name, column in rows.columns.items()}
    listed = [list(rows.ids), list(rows.labels.cuis), columns]
    digest.update(json.dumps(listed, sort_keys=True).encode())
    for name, raw in sorted(texts.items()):
        digest.update(f"{name} {len(raw)} ".encode() + raw)
    arrays = {"indptr": rows.labels.indptr, "indices": rows.labels.indices, **rows.arrays}
    for name, array in sorted(arrays.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    for start in range(0, len(rows), _HASHED):
        digest.update(np.ascontiguousarray(rows.vectors[start : start + _HASHED]).tobytes())
    return digest.hexdigest()
