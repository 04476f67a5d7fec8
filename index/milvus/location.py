"""An index location on a Milvus server: opening, changing and compacting an index there.

An addition sends rows and then the documents that count them; a removal writes the documents and
then deletes. What a process leaves that was killed in between is repaired by the next change, and
by the same command at once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.corrections import Correction
from index.errors import IndexProblem
from index.folder.publish import only_writer
from index.manifest import Manifest
from index.milvus import check
from index.milvus.address import Address
from index.milvus.collection import Entity
from index.milvus.documents import Version, array_to_bytes, current, render_concepts
from index.milvus.index import MilvusIndex, live_sample
from index.milvus.kinds import choose_milvus_kind
from index.milvus.rows import (
    DIGEST,
    check_entities,
    digest_of,
    fields_of,
    segment_of,
    send_rows,
    settle,
)
from index.milvus.server import Server
from index.milvus.writer import MilvusWriter
from index.progress import track
from index.protocols import PATIENCE_S, Changed, Device, Index, Writer
from index.search.base import check_unit
from index.segments import CONTENT, THUMBNAIL_ENDS, THUMBNAILS, Segment, check_rows, joined

_BLOCK = 1024  # rows that are compacted at a time


@dataclass(frozen=True)
class MilvusLocation:
    """An index in Milvus (`index.protocols.IndexLocation`).

    Attributes:
        address: Of the index.
    """

    address: Address
    disk = "the server's disk"
    after_compact = "are dropped, and the server deletes their files by itself some hours later"

    @classmethod
    def at(cls, text: str) -> MilvusLocation:
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
        version = current(Server(self.address, patience))
        version.rows.check_loaded()
        return MilvusIndex(version)

    def manifest(self) -> Manifest:
        return Manifest.from_json(current(self._server()).manifest)

    def check_index_type(self, index_type: str) -> None:
        choose_milvus_kind(index_type, 1, None)

    def problems(self) -> list[str]:
        return check.problems(self._server())

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        with only_writer(self.folder), MilvusWriter(self._server(), self.folder) as writer:
            yield writer

    def add_rows(self, rows: Segment, *, of: str, over: bool = False) -> Changed:
        """Add rows; see `FolderLocation.add_rows`.

        Raises:
            IndexProblem: As there; something that Milvus cannot keep; the server is away for longer
                than the patience (the same command goes on).
        """
        check_unit(rows.vectors, None, "vectors")
        check_rows(len(rows.vectors), rows.ids, rows.labels, rows.columns)
        if len(rows) == 0:
            raise IndexProblem("There is nothing to add; at least one row is needed.")
        with only_writer(self.folder):
            index = self._index(of)
            check_unit(rows.vectors[:1], index.entries["dim"], "vectors")
            rows = _conform(rows, index.entries)
            check_entities(rows)
            present = index.live(index.rows.select("id", rows.ids, ["row", "cuis"]))
            if present and not over:
                raise IndexProblem(
                    f"{len(present)} of the {len(rows.ids)} images are in the index already, such "
                    f"as {min(entity['id'] for entity in present)}.",
                    "Leave them out, or take the new ones for them with --replace.",
                )
            if present:
                index = _remove(index, present)
            first = index.stored
            wanted = {id_: first + i for i, id_ in enumerate(rows.ids)}
            resumed = _clear_unfinished(index, wanted)
            n = len(index) + len(rows)
            send_rows(index.rows, rows, first, resumed=resumed)
            settle(index.rows, rows, first, expected=n)
            counts = Counter(dict(index.concepts))
            frequencies = rows.labels.frequencies.tolist()
            counts.update(dict(zip(rows.labels.cuis, frequencies, strict=True)))
            changes = {
                "n": n,
                "stored": first + len(rows),
                "segments": [*index.entries["segments"], {"rows": len(rows)}],
                "sample": _read_sample(index, first + len(rows), index.removed),
            }
            concepts = render_concepts(counts, {**index.names, **rows.names})
            index = _publish(index, changes, {"concepts": concepts})
            return Changed(index.version, n, len(rows), len(present))

    def remove_rows(self, ids: Collection[str], *, missing_ok: bool = False) -> Changed:
        """Remove rows; see `FolderLocation.remove_rows`.

        They are gone from the server's disk some time after `compact`.

        Raises:
            IndexProblem: As there; the server is away for longer than the patience (the same
                command goes on).
        """
        wanted = set(ids)
        with only_writer(self.folder):
            index = self._index()
            # Also those that a removal that was stopped has written to be removed.
            found = list(index.rows.select("id", sorted(wanted), ["row", "cuis"]))
            found = [entity for entity in found if entity["row"] < index.stored]
            unknown = wanted - {entity["id"] for entity in found}
            if unknown and not missing_ok:
                raise IndexProblem(
                    f"{len(unknown)} of the {len(wanted)} images are not in the index, such as "
                    f"{min(unknown)}.",
                    "Check the ids, or pass over those that are not there with --missing-ok.",
                )
            live = index.live(found)
            if len(live) == len(index):
                raise IndexProblem(
                    "No image would be left.",
                    "Drop the collection on the server to remove the index.",
                )
            index = _remove(index, live)
            return Changed(index.version, len(index), removed=len(wanted - unknown))

    def correct(self, corrections: Sequence[Correction], *, of: str | None = None) -> Changed:
        raise IndexProblem(
            f"{self}: labels of an index in Milvus cannot be corrected.",
            "Put the images in anew with their labels (annotator add --replace), or use a folder.",
        )

    def history(self) -> Sequence[Correction]:
        return ()

    def settle(self) -> None:
        """Nothing ever waits: a server has no corrections."""

    def compact(
        self,
        *,
        of: str,
        index_type: Any = None,
        target_recall: float | None = None,
        arrays: Mapping[str, NDArray[Any]],
    ) -> Changed:
        """Copy the rows into a new collection and drop every other version.

        See `FolderLocation.compact`. The server deletes the files of what was dropped by
        itself, some hours later.

        Raises:
            IndexProblem: As there; the server is away for longer than the patience.
        """
        with only_writer(self.folder), MilvusWriter(self._server(), self.folder) as writer:
            index = self._index(of)
            manifest, parts = index.entries, []
            for found in _blocks(index):
                changed = next((e for e in found if digest_of(e) != e[DIGEST]), None)
                if changed:
                    raise IndexProblem(
                        f"{self}: {changed['id']} is not what was written.",
                        "Build the index again.",
                    )
                part = segment_of(found, manifest)
                writer.add(part.vectors)
                parts.append(replace(part, vectors=np.empty((len(part), 0), np.float32)))
            n = sum(map(len, parts))
            if n != len(index):
                raise IndexProblem(
                    f"{self} has {n} rows, and {len(index)} were expected.",
                    "See what is wrong: annotator verify.",
                )
            rows = joined(parts, [np.arange(len(part)) for part in parts])
            search = manifest["search"]
            version = writer.publish(
                rows.ids,
                rows.labels,
                names=index.names,
                columns=rows.columns,
                about=manifest["about"],
                arrays={**arrays, **rows.arrays},
                index_type=index_type or manifest["index_type"],
                target_recall=target_recall or search.get("target_recall"),
                reason=None if index_type else search["reason"],
                only=True,
            )
            return Changed(version, n, removed=manifest["removed"])

    def change_about(self, about: Mapping[str, Any], *, of: str) -> str:
        with only_writer(self.folder):
            index = self._index(of)
            new = json.loads(json.dumps(about))
            if new != index.entries["about"]:
                index = _publish(index, {"about": new}, {})
            return index.version

    def _server(self) -> Server:
        return Server(self.address, PATIENCE_S)

    def _index(self, of: str | None = None) -> MilvusIndex:
        """The current version, to be changed; `of` is the one that it has to be."""
        version = current(self._server())
        if of not in (None, version.manifest["version"]):
            raise IndexProblem(f"{self} has got a new version meanwhile.", "Try again.")
        return MilvusIndex(version)


def _conform(rows: Segment, manifest: Mapping[str, Any]) -> Segment:
    """Rows with the columns and arrays that the collection has, and no others."""
    n = len(rows)
    columns = {name: rows.columns.get(name, [""] * n) for name in manifest["columns"]}
    arrays: dict[str, NDArray[Any]] = {}
    if manifest["content"]:
        arrays[CONTENT] = rows.arrays.get(CONTENT, np.zeros((n, 0), np.uint8))
    if manifest["thumbnails"]:
        arrays[THUMBNAILS] = rows.arrays.get(THUMBNAILS, np.zeros(0, np.uint8))
        arrays[THUMBNAIL_ENDS] = rows.arrays.get(THUMBNAIL_ENDS, np.zeros(n, np.int64))
    return replace(rows, columns=columns, arrays=arrays)


def _remove(index: MilvusIndex, entities: Sequence[Entity]) -> MilvusIndex:
    """Write that rows are removed, then delete them and what former changes have left."""
    if entities:
        rows = [entity["row"] for entity in entities]
        removed = np.union1d(index.removed, rows).astype(np.int64)
        counts = Counter(dict(index.concepts))
        counts.subtract(Counter(cui for entity in entities for cui in entity["cuis"]))
        changes = {
            "n": len(index) - len(entities),
            "removed": len(removed),
            "sample": _read_sample(index, index.stored, removed),
        }
        concepts = render_concepts(counts, index.names)
        texts = {"concepts": concepts, "removed": array_to_bytes(removed)}
        index = _publish(index, changes, texts)
        index.rows.delete_rows(rows)
    _clear_unfinished(index, {})
    index.rows.check_count(len(index))
    return index


def _clear_unfinished(index: MilvusIndex, wanted: Mapping[str, int]) -> bool:
    """Delete what changes have left that were stopped.

    Args:
        index: The current version.
        wanted: Row number by id of rows that are about to be added, which may stay.

    Returns:
        Whether some of them are there.
    """
    more = index.rows.count() - len(index)
    if more == 0:
        return False
    left = index.rows.query(f"row >= {index.stored}", ["id", "row"])
    stale = [entity["row"] for entity in left if wanted.get(entity["id"]) != entity["row"]]
    index.rows.delete_rows(sorted(set(stale)))
    if more != len(left):
        index.rows.delete_rows(index.removed.tolist())
    return len(left) > len(stale)


def _read_sample(index: MilvusIndex, stored: int, removed: NDArray[np.int64]) -> list[list[str]]:
    """CUIs of the sample rows."""
    rows = live_sample(stored, removed).tolist()
    by_row = {
        entity["row"]: list(entity["cuis"]) for entity in index.rows.select("row", rows, ["cuis"])
    }
    missing = [row for row in rows if row not in by_row]
    if missing:
        where = index.rows.server.address
        raise IndexProblem(f"{where} has lost row {missing[0]}.", "Build the index again.")
    return [by_row[row] for row in rows]


def _publish(
    index: MilvusIndex, changes: Mapping[str, Any], texts: Mapping[str, bytes]
) -> MilvusIndex:
    """The index with a new revision of its documents."""
    manifest = index.documents.publish({**index.entries, **changes}, texts)
    return MilvusIndex(Version(index.rows, index.documents, manifest))


def _blocks(index: MilvusIndex) -> Iterator[list[Entity]]:
    """The live entities with all their fields, by row number."""
    rows = index.rows.in_row_order(index.stored, fields_of(index.entries), step=_BLOCK)
    tracked = track(rows, total=len(index), label="Reading", unit="vectors")
    for _, block in groupby(tracked, lambda entity: int(entity["row"]) // _BLOCK):
        if found := index.live(block):
            yield found
