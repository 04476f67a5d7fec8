"""Whether an index in Milvus is sound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from index.errors import IndexProblem, IndexUnreachable
from index.milvus.kinds import EXACT
from index.milvus.opened import MilvusIndex
from index.milvus.rows import DIGEST, count, digest_of, every_row, fields_of, vectors_of
from index.milvus.server import Server
from index.milvus.state import State, current, numbers, sample_rows
from index.search.base import check_unit

_ROWS_AT_ONCE = 1024


def problems(server: Server) -> list[str]:
    """Everything that is wrong with the current version, as sentences; empty if it is sound.

    Checks the sha256 of the documents and of each row, that each row is there once and none that
    was removed, that the CUIs are as often as the documents say, that every vector is finite and of
    unit norm, and that a search for the vectors of some rows finds those rows. Repairs nothing.

    Raises:
        IndexUnreachable: The server is away, so nothing can be said.
    """
    found: list[str] = []
    try:
        state = current(server)
        for name in sorted(state.manifest["documents"]):
            state.documents.read(state.manifest, name, now=True)
        index = MilvusIndex(server, state.collection, state.revision, state.manifest)
        found += _rows(server, state, index)
        if not found:
            found += _lost(index)
    except IndexUnreachable:
        raise
    except IndexProblem as problem:
        found.append(problem.message)
    return found


def _rows(server: Server, state: State, index: MilvusIndex) -> list[str]:
    manifest, found = state.manifest, []
    place = numbers(manifest["stored"], index.removed)
    seen: Counter[int] = Counter()
    concepts: Counter[str] = Counter()
    sample: dict[int, list[str]] = {}
    standing = set(sample_rows(manifest["stored"], index.removed).tolist())
    changed: list[str] = []
    fields = fields_of(manifest)
    for block in _blocks(
        every_row(server, state.collection, manifest["stored"], fields, step=_ROWS_AT_ONCE)
    ):
        try:
            check_unit(vectors_of(block, manifest["dim"]), manifest["dim"], "vectors")
        except IndexProblem as problem:
            found.append(problem.message)
        for entity in block:
            seen[entity["row"]] += 1
            concepts.update(entity["cuis"])
            if entity["row"] in standing:
                sample[entity["row"]] = list(entity["cuis"])
            if digest_of(entity) != entity[DIGEST]:
                changed.append(entity["id"])
    if changed:
        found.append(f"{len(changed)} rows have changed since they were written: {changed[0]}.")
    missing = [row for row in np.flatnonzero(place >= 0).tolist() if row not in seen]
    if missing:
        found.append(f"{len(missing)} rows are missing, such as row {missing[0]}.")
    removed = [row for row in seen if place[row] < 0]
    if removed:
        found.append(f"{len(removed)} removed rows are still there: annotator compact.")
    twice = [row for row, times in seen.items() if times > 1]
    if twice:
        found.append(f"{len(twice)} row numbers are there twice, such as row {twice[0]}.")
    more = count(server, state.collection) - sum(seen.values())
    if more:
        found.append(
            f"{more} rows more are counted: of a change that was stopped; the next one mends it."
        )
    if not found and dict(concepts) != dict(index.concepts):
        found.append("The concepts of the rows are not as often as the documents say.")
    if not found and [sample[row] for row in sorted(sample)] != manifest["sample"]:
        found.append("The rows that stand for all are not those of the documents.")
    return found


def _blocks(entities: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    rows = iter(entities)
    while block := list(islice(rows, _ROWS_AT_ONCE)):
        yield block


def _lost(index: MilvusIndex) -> list[str]:
    """Rows that a search for their own vectors does not find."""
    rows = sample_rows(index.entries["stored"], index.removed)
    listed = list(index.at_rows(rows.tolist(), ["vector"]))
    vectors = vectors_of(listed, index.entries["dim"])
    result = index.find(vectors, 1)
    lost = [
        entity["id"]
        for i, entity in enumerate(listed)
        if result.cases.ids[result.neighbors.rows[i, 0]] != entity["id"]
        and result.neighbors.similarities[i, 0] < 1 - 1e-5
    ]
    if index.entries["index_type"] in EXACT:
        return [f"A search for {id_} does not find it." for id_ in lost]
    if len(lost) > len(listed) // 10:
        return [f"Searches for {len(listed)} of its own rows do not find {len(lost)} of them."]
    return []
