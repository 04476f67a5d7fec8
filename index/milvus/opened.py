"""An index in Milvus, opened for reading."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.labels import LabelTable
from index.manifest import Manifest
from index.milvus.documents import Documents, array_from_bytes
from index.milvus.nearest import Searcher
from index.milvus.rows import (
    SEPARATOR,
    THUMBNAIL,
    conditions,
    every_row,
    get_entities,
    query,
    vectors_of,
)
from index.milvus.server import Absent, Server
from index.milvus.state import numbers, read_concepts, removed_rows
from index.rows import Rows, SearchResult, sample_rows
from index.search.base import Neighbors, check_search
from index.segments import CONTENT

_HOLDERS_AT_ONCE = 16384  # rows of which those with a concept are asked for; Milvus gives no more


@dataclass(frozen=True)
class FoundLabels(LabelTable):
    """Labels of some rows of an index, with what has to be known of all of it.

    Attributes:
        counts: int64[len(cuis)], in how many rows of the index each CUI occurs.
        standing: int64[m], the rows that stand for all.
    """

    counts: NDArray[np.int64]
    standing: NDArray[np.int64]

    @property
    def frequencies(self) -> NDArray[np.int64]:
        """`counts`."""
        return self.counts

    @property
    def sample(self) -> NDArray[np.int64]:
        """`standing`."""
        return self.standing


class FoundCases:
    """Rows that a search found. What it did not bring along is fetched when it is asked for.

    Args:
        index: Where they are from.
        ids: Image id of each row.
        labels: CUIs of each row, followed by those of rows that stand for all.
    """

    def __init__(self, index: MilvusIndex, ids: Sequence[str], labels: LabelTable) -> None:
        self._index = index
        self.ids = ids
        self.labels = labels

    @cached_property
    def columns(self) -> Mapping[str, Sequence[str]]:
        """Further text of each row by column name."""
        names = self._index.entries["columns"]
        found = self._fetch(names) if names else {}
        return {
            name: [found[id_][name] if id_ in found else "" for id_ in self.ids] for name in names
        }

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[m, dim]: the vectors of some rows."""
        wanted = [self.ids[row] for row in rows.tolist()]
        found = {e["id"]: e for e in self._index.entities(sorted(set(wanted)), ["vector"])}
        gone = next((id_ for id_ in wanted if id_ not in found), None)
        if gone is not None:
            raise IndexProblem(f"{gone} was removed from the index meanwhile.", "Try again.")
        return vectors_of([found[id_] for id_ in wanted], self._index.entries["dim"])

    def thumbnail(self, row: int) -> bytes | None:
        """The small picture of a row, a JPEG; None where there is none."""
        return self._index.thumbnail_of(self.ids[row])

    def _fetch(self, fields: Sequence[str]) -> dict[str, dict[str, Any]]:
        return {e["id"]: e for e in self._index.entities(sorted(set(self.ids)), fields)}


class MilvusIndex:
    """A version of an index in Milvus (`index.protocols.Index`).

    Rows that are added later are not found; those that are removed later are not found either.

    Args:
        server: To talk to.
        collection: Of the rows.
        revision: Of the documents.
        manifest: The same revision's.
    """

    def __init__(
        self, server: Server, collection: str, revision: int, manifest: Mapping[str, Any]
    ) -> None:
        self._server = server
        self.collection = collection
        self.revision = revision
        self.entries = manifest
        self.manifest = Manifest.from_json(manifest)
        self._documents = Documents(server, f"{collection}_documents")
        self.arrays: Mapping[str, NDArray[Any]] = _Arrays(self._documents, manifest)
        concepts = read_concepts(self._documents, manifest)
        self.concepts: Mapping[str, int] = {cui: images for cui, (images, _) in concepts.items()}
        self.names: Mapping[str, str] = {cui: name for cui, (_, name) in concepts.items() if name}
        self.removed = removed_rows(self._documents, manifest)
        self._standing = [SEPARATOR.join(cuis) for cuis in manifest["sample"]]
        self._searcher = Searcher(server, collection, manifest, self.removed)

    @property
    def version(self) -> str:
        """Such as "v000001.2": the second revision of the first version."""
        return str(self.entries["version"])

    @property
    def has_thumbnails(self) -> bool:
        """Whether its rows have small pictures."""
        return bool(self.entries["thumbnails"])

    def __len__(self) -> int:
        return int(self.entries["n"])

    @cached_property
    def labels(self) -> LabelTable:
        """CUIs of each row, read from the server."""
        stored = self.entries["stored"]
        place = numbers(stored, self.removed)
        found = {
            entity["row"]: list(entity["cuis"])
            for entity in every_row(self._server, self.collection, stored, ["cuis"])
            if place[entity["row"]] >= 0
        }
        if len(found) != len(self):
            raise IndexProblem(
                f"{self._server.address} has {len(found)} rows, and {len(self)} were expected.",
                "It was changed meanwhile: try again. If that does not help: annotator verify.",
            )
        return LabelTable.from_sets(list(found.values()))

    def find(self, vectors: NDArray[np.float32], k: int) -> SearchResult:
        """The k nearest rows of each vector, float32[q, dim] of unit norm.

        Where fewer than k are found for some, by an approximate search or because rows were
        removed meanwhile, theirs are filled up with rows of similarity -inf, no neighbours.

        Raises:
            IndexProblem: Vectors of another length or not of unit norm; k below 1; the server
                cannot be reached; this version was dropped.
        """
        queries = check_search(vectors, self.entries["dim"], k)
        try:
            near = self._searcher.nearest(queries, k)
        except Absent as problem:
            raise IndexProblem(
                f"{self._server.address}: {self.version} is gone: the index was built or compacted "
                "anew.",
                "Open the index again.",
            ) from problem
        found, position = np.unique(near.rows, return_inverse=True)
        some = found.tolist()
        ids = [near.cases[row].id for row in some]
        labels = self._labels_of([near.cases[row].cuis for row in some])
        return SearchResult(
            Neighbors(position.reshape(near.rows.shape), near.similarities),
            FoundCases(self, ids, labels),
        )

    def with_ids(self, ids: Sequence[str]) -> Rows:
        """The images with these ids, in their order; those that are not there are left out."""
        some = self._of_this_version(self.entities(sorted(set(ids)), ["row", "cuis"]))
        found = {entity["id"]: entity for entity in some}
        return self._cases([found[id_] for id_ in ids if id_ in found])

    def with_concept(self, cui: str, most: int) -> Rows:
        """Images that hold a CUI by ascending row; of more than `most`, so many spread evenly."""
        holding = every_row(
            self._server,
            self.collection,
            self.entries["stored"],
            ["cuis"],
            _HOLDERS_AT_ONCE,
            which=f"array_contains(cuis, {json.dumps(cui, ensure_ascii=False)})",
        )
        found = self._of_this_version(holding)
        return self._cases([found[i] for i in sample_rows(len(found), most).tolist()])

    def thumbnail_of(self, image_id: str) -> bytes | None:
        """The small picture of an image, a JPEG; None where there is none."""
        if not self.has_thumbnails:
            return None
        for entity in self.entities([image_id], [THUMBNAIL]):
            return base64.b64decode(entity[THUMBNAIL]) or None
        return None

    def contents_of_only(self, ids: Collection[str]) -> set[bytes] | None:
        """The sha256 of the files of some images that no other image of the index has."""
        if not self.entries["content"]:
            return None
        some = get_entities(self._server, self.collection, sorted(ids), [CONTENT])
        theirs = {entity[CONTENT] for entity in some} - {""}
        others = set()
        for condition in conditions(CONTENT, sorted(theirs)):
            found = query(self._server, self.collection, condition, ["id", CONTENT])
            others |= {e[CONTENT] for e in found if e["id"] not in ids}
        return {bytes.fromhex(key) for key in theirs - others}

    def renumber(self, stored: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows as they were numbered when they were written by today's number; -1 for removed."""
        return numbers(self.entries["stored"], self.removed)[stored]

    def entities(self, ids: Sequence[str], fields: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Some images' entities, those that are there, as of some seconds ago."""
        return get_entities(self._server, self.collection, ids, fields, "Bounded")

    def at_rows(self, rows: Sequence[int], fields: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The entities of rows by the numbers that they were written with, those that are there."""
        for condition in conditions("row", rows):
            yield from query(self._server, self.collection, condition, ["id", *fields])

    def _of_this_version(self, entities: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those that were neither removed before nor added since."""
        stored = self.entries["stored"]
        place = numbers(stored, self.removed)
        return [e for e in entities if e["row"] < stored and place[e["row"]] >= 0]

    def _cases(self, entities: Sequence[Mapping[str, Any]]) -> FoundCases:
        labels = self._labels_of([SEPARATOR.join(entity["cuis"]) for entity in entities])
        return FoundCases(self, [entity["id"] for entity in entities], labels)

    def _labels_of(self, texts: Sequence[str]) -> FoundLabels:
        return found_labels(texts, self._standing, self.concepts)


def found_labels(
    texts: Sequence[str], standing: Sequence[str], concepts: Mapping[str, int]
) -> FoundLabels:
    """The labels of rows, followed by those of rows that stand for all.

    Args:
        texts: The CUIs of each row, ascending, in one text.
        standing: The same of the others.
        concepts: In how many images of the index each CUI occurs.
    """
    rows = [*texts, *standing]
    # As few objects as can be: a list for each of thousands of rows costs more than the rest.
    sizes = [text.count(SEPARATOR) + 1 if text else 0 for text in rows]
    held = SEPARATOR.join(filter(None, rows)).split(SEPARATOR) if any(sizes) else []
    cuis = tuple(sorted(set(held)))
    position = {cui: j for j, cui in enumerate(cuis)}
    return FoundLabels(
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        np.fromiter(map(position.__getitem__, held), np.int32, len(held)),
        cuis,
        np.array([concepts.get(cui, 0) for cui in cuis], np.int64),
        np.arange(len(texts), len(rows)),
    )


class _Arrays(Mapping[str, NDArray[Any]]):
    """Arrays that are read from the server when they are first asked for."""

    def __init__(self, documents: Documents, manifest: Mapping[str, Any]) -> None:
        self._documents, self._manifest = documents, manifest
        self._read: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._manifest["arrays"]:
            raise KeyError(name)
        if name not in self._read:
            self._read[name] = array_from_bytes(self._documents.read(self._manifest, name))
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._manifest["arrays"])

    def __len__(self) -> int:
        return len(self._manifest["arrays"])
