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

from index.errors import IndexProblem, IndexUnreachable
from index.labels import SAMPLE, LabelTable
from index.manifest import Manifest
from index.milvus.collection import Entity
from index.milvus.documents import Documents, Version, read_concepts
from index.milvus.kinds import EXACT, search_params
from index.milvus.rows import SEPARATOR, SUMMARY, THUMBNAIL, vectors_of
from index.milvus.server import Absent
from index.rows import Neighbors, Rows, SearchResult
from index.sampling import sample_rows
from index.search.base import check_search
from index.segments import CONTENT

_MOST_K = 16384  # neighbours, or rows of a query, that Milvus gives
_AT_ONCE = 256  # queries in a message


class MilvusIndex:
    """A version of an index in Milvus (`index.protocols.Index`).

    Rows that were added or removed later, or by a change that has not ended, are not found. Such
    rows are rare, so the server is asked to leave them out only once one was found.

    Args:
        version: To read from.
    """

    def __init__(self, version: Version) -> None:
        self.rows, self.documents, self.entries = version
        self.manifest = Manifest.from_json(self.entries)
        self.stored = int(self.entries["stored"])
        self.arrays: Mapping[str, NDArray[Any]] = _Arrays(self.documents, self.entries)
        concepts = read_concepts(version)
        self.concepts: Mapping[str, int] = {cui: images for cui, (images, _) in concepts.items()}
        self.names: Mapping[str, str] = {cui: name for cui, (_, name) in concepts.items() if name}
        self.removed = np.empty(0, np.int64)  # int64[r], ascending: numbers of removed rows
        if self.entries["removed"]:
            self.removed = self.documents.read_array(self.entries, "removed").astype(np.int64)
        self._sample = [SEPARATOR.join(cuis) for cuis in self.entries["sample"]]
        self._condition = ""  # of searches

    @property
    def version(self) -> str:
        return str(self.entries["version"])

    @property
    def has_thumbnails(self) -> bool:
        return bool(self.entries["thumbnails"])

    def __len__(self) -> int:
        return int(self.entries["n"])

    @cached_property
    def current_rows(self) -> NDArray[np.int64]:
        """int64[stored]: today's number of each row that was ever written, -1 if it was removed."""
        live = np.ones(self.stored, bool)
        live[self.removed] = False
        return np.where(live, np.cumsum(live) - 1, -1)

    @cached_property
    def labels(self) -> LabelTable:
        found = [e["cuis"] for e in self.live(self.rows.in_row_order(self.stored, ["cuis"]))]
        if len(found) != len(self):
            raise IndexProblem(
                f"{self.rows.server.address} has {len(found)} rows, and {len(self)} were expected.",
                "It was changed meanwhile: try again. If that does not help: annotator verify.",
            )
        return LabelTable.from_sets(found)

    def check_unchanged(self) -> None:
        """Nothing: the server has the files."""

    def find(self, vectors: NDArray[np.float32], k: int) -> SearchResult:
        """The k nearest rows of each vector, float32[q, dim] of unit norm.

        Where fewer than k are found for some, by an approximate search or because rows were
        removed meanwhile, theirs are filled up with rows of similarity -inf, no neighbours.

        Raises:
            IndexProblem: Vectors of another length or not of unit norm; k below 1; the server
                cannot be reached; this version was dropped.
        """
        queries = check_search(vectors, self.entries["dim"], k)
        k = min(k, len(self), _MOST_K)
        rows = np.full((len(queries), k), -1, np.int64)
        similarities = np.full((len(queries), k), -np.inf, np.float32)
        hits: dict[int, tuple[str, str]] = {}
        try:
            for start in range(0, len(queries), _AT_ONCE):
                block = slice(start, start + _AT_ONCE)
                rows[block], similarities[block] = self._nearest(queries[block], k, k + 1, hits)
        except Absent as problem:
            raise IndexProblem(
                f"{self.rows.server.address}: {self.version} is gone: the index was built or "
                "compacted anew.",
                "Open the index again.",
            ) from problem
        width = int(np.isfinite(similarities).sum(axis=1).max(initial=0))
        if len(queries) and not width:
            raise IndexProblem(
                f"{self.rows.server.address}: the rows of this version were all removed meanwhile.",
                "Open the index again.",
            )
        rows, similarities = rows[:, :width], similarities[:, :width]
        rows = np.where(rows < 0, rows.max(initial=0), rows)
        found, position = np.unique(rows, return_inverse=True)
        theirs = [hits[row] for row in found.tolist()]
        ids = [id_ for id_, _ in theirs]
        labels = found_labels([cuis for _, cuis in theirs], self._sample, self.concepts)
        neighbors = Neighbors(position.reshape(rows.shape), similarities)
        return SearchResult(neighbors, FoundRows(self, ids, labels))

    def with_ids(self, ids: Sequence[str]) -> Rows:
        some = self.rows.select("id", sorted(set(ids)), ["row", "cuis"], "Bounded")
        found = {entity["id"]: entity for entity in self.live(some)}
        return self._found_rows([found[id_] for id_ in ids if id_ in found])

    def with_concept(self, cui: str, most: int) -> Rows:
        where = f"array_contains(cuis, {json.dumps(cui, ensure_ascii=False)})"
        found = self.live(self.rows.in_row_order(self.stored, ["cuis"], where=where, step=_MOST_K))
        return self._found_rows([found[i] for i in sample_rows(len(found), most).tolist()])

    def thumbnail_of(self, image_id: str) -> bytes | None:
        if self.has_thumbnails:
            for entity in self.rows.select("id", [image_id], [THUMBNAIL], "Bounded"):
                return base64.b64decode(entity[THUMBNAIL]) or None
        return None

    def contents_of_only(self, ids: Collection[str]) -> set[bytes] | None:
        if not self.entries["content"]:
            return None
        theirs = {e[CONTENT] for e in self.rows.select("id", sorted(ids), [CONTENT])} - {""}
        sharing = self.rows.select(CONTENT, sorted(theirs), ["id"])
        others = {entity[CONTENT] for entity in sharing if entity["id"] not in ids}
        return {bytes.fromhex(key) for key in theirs - others}

    def contents_of_removed(self) -> set[bytes] | None:
        return set()  # a removal deletes the rows themselves

    def renumber(self, stored: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.current_rows[stored]

    def live(self, entities: Iterable[Entity]) -> list[Entity]:
        """Filter out entities removed before this version or added after it."""
        return [e for e in entities if e["row"] < self.stored and self.current_rows[e["row"]] >= 0]

    def _found_rows(self, entities: Sequence[Entity]) -> FoundRows:
        texts = [SEPARATOR.join(entity["cuis"]) for entity in entities]
        labels = found_labels(texts, self._sample, self.concepts)
        return FoundRows(self, [entity["id"] for entity in entities], labels)

    def _nearest(
        self,
        queries: NDArray[np.float32],
        k: int,
        limit: int,
        hits: dict[int, tuple[str, str]],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Row numbers and similarities, [q, k], equally similar rows by number.

        The server does not say which of several equally similar rows it gives. One more than
        wanted shows whether some were left out; if so, more are asked for.
        """
        most = min(len(self), _MOST_K)
        limit = min(limit, most)
        rows, similarities = self._search(queries, limit, hits)
        if not self._condition and (
            (rows >= self.stored).any() or np.isin(rows, self.removed).any()
        ):
            self._condition = f"row < {self.stored}"
            if len(self.removed):
                self._condition += f" and row not in {self.removed.tolist()}"
            rows, similarities = self._search(queries, limit, hits)
        order = np.lexsort((rows, -similarities))
        rows = np.take_along_axis(rows, order, 1)
        similarities = np.take_along_axis(similarities, order, 1)
        if limit < most:
            last = similarities[:, -1]
            tied = np.flatnonzero((similarities[:, k - 1] == last) & np.isfinite(last))
            if len(tied):
                nearest = self._nearest(queries[tied], k, 4 * limit + 16, hits)
                rows[tied, :k], similarities[tied, :k] = nearest
        return rows[:, :k], similarities[:, :k]

    def _search(
        self, queries: NDArray[np.float32], limit: int, hits: dict[int, tuple[str, str]]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Raw search results of the server, [q, limit], padded with -1 and -inf.

        Id and CUIs of the results are added to `hits` by row number.
        """
        least = limit if self.entries["index_type"] in EXACT else 1

        def search(client: Any, seconds: float) -> list[list[dict[str, Any]]]:
            found: list[list[dict[str, Any]]] = client.search(
                self.rows.name,
                data=list(queries),
                limit=limit,
                filter=self._condition,
                output_fields=[SUMMARY],
                search_params=search_params(self.entries["search"]["params"], limit),
                # What was changed seconds ago may be missed; what was built is all there.
                consistency_level="Bounded",
                timeout=seconds,
            )
            if any(len(near) < least for near in found):
                self._check_loaded_whole()
            return found

        rows = np.full((len(queries), limit), -1, np.int64)
        similarities = np.full((len(queries), limit), -np.inf, np.float32)
        row_of: dict[str, int] = {}  # of this answer alone: in another an id may be of another row
        for i, near in enumerate(self.rows.server.retry(search)):
            similarities[i, : len(near)] = [hit["distance"] for hit in near]
            for hit in near:
                if (id_ := hit["id"]) not in row_of:
                    row_of[id_], cuis = read_summary(hit["entity"][SUMMARY])
                    hits[row_of[id_]] = (id_, cuis)
            rows[i, : len(near)] = [row_of[hit["id"]] for hit in near]
        return rows, similarities

    def _check_loaded_whole(self) -> None:
        """Check that few rows were found because there are few: a server that has just started may
        have loaded only some.
        """
        found = self.rows.count()
        where = f"{self.rows.server.address}: {self.rows.name}"
        if found >= len(self):
            raise IndexUnreachable(
                f"{where} gives only a part of its rows.",
                "The server may still be loading them: try again later.",
            )
        if found == 0:
            raise IndexProblem(f"{where} has no rows left.", "Open the index again.")


class FoundRows:
    """Rows that a search found (`index.rows.Rows`); what it did not bring is fetched when needed.

    Args:
        index: Of the rows.
        ids: Image id of each row.
        labels: CUIs of each row, followed by those of the sample rows.
    """

    def __init__(self, index: MilvusIndex, ids: Sequence[str], labels: LabelTable) -> None:
        self._index = index
        self.ids = ids
        self.labels = labels

    @cached_property
    def columns(self) -> Mapping[str, Sequence[str]]:
        names = self._index.entries["columns"]
        found = self._fetch(self.ids, names) if names else {}
        return {
            name: [found[id_][name] if id_ in found else "" for id_ in self.ids] for name in names
        }

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        wanted = [self.ids[row] for row in rows.tolist()]
        found = self._fetch(wanted, ["vector"])
        gone = next((id_ for id_ in wanted if id_ not in found), None)
        if gone is not None:
            raise IndexProblem(f"{gone} was removed from the index meanwhile.", "Try again.")
        return vectors_of([found[id_] for id_ in wanted], self._index.entries["dim"])

    def thumbnail(self, row: int) -> bytes | None:
        return self._index.thumbnail_of(self.ids[row])

    def _fetch(self, ids: Sequence[str], fields: Sequence[str]) -> dict[str, Entity]:
        found = self._index.rows.select("id", sorted(set(ids)), fields, "Bounded")
        return {entity["id"]: entity for entity in found}


@dataclass(frozen=True)
class FoundLabels(LabelTable):
    """Labels of some rows of an index, with what has to be known of all of it.

    Attributes:
        counts: int64[len(cuis)], in how many rows of the index each CUI occurs.
        sampled: int64[m], the sample rows.
    """

    counts: NDArray[np.int64]
    sampled: NDArray[np.int64]

    @property
    def frequencies(self) -> NDArray[np.int64]:
        return self.counts

    @property
    def ranks(self) -> NDArray[np.int64]:
        """Rank of each concept by falling frequency and id: not all of its rows are known."""
        ranks = np.empty(len(self.cuis), np.int64)
        ranks[np.argsort(-self.counts, kind="stable")] = np.arange(len(self.cuis))
        return ranks

    @property
    def sample(self) -> NDArray[np.int64]:
        return self.sampled


def found_labels(
    texts: Sequence[str], sample: Sequence[str], concepts: Mapping[str, int]
) -> FoundLabels:
    """The labels of rows, followed by those of the sample rows.

    Args:
        texts: The CUIs of each row, ascending, in one text.
        sample: The same of the sample rows.
        concepts: In how many images of the index each CUI occurs.
    """
    rows = [*texts, *sample]
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


def read_summary(text: str) -> tuple[int, str]:
    """Row number of an entity, and its CUIs in one text, ascending."""
    row, _, cuis = text.partition(SEPARATOR)
    return int(row), cuis


def live_sample(stored: int, removed: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row numbers of the sample rows: those that `LabelTable.sample` takes."""
    live = np.delete(np.arange(stored), removed)
    return live[sample_rows(len(live), SAMPLE)]


class _Arrays(Mapping[str, NDArray[Any]]):
    """Arrays that are read from the server when they are first asked for."""

    def __init__(self, documents: Documents, manifest: Mapping[str, Any]) -> None:
        self._documents, self._manifest = documents, manifest
        self._read: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._manifest["arrays"]:
            raise KeyError(name)
        if name not in self._read:
            self._read[name] = self._documents.read_array(self._manifest, name)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._manifest["arrays"])

    def __len__(self) -> int:
        return len(self._manifest["arrays"])
