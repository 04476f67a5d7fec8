"""Checking an index in Milvus for damage."""

from __future__ import annotations

from collections import Counter

import numpy as np

from index.errors import IndexProblem, IndexUnreachable
from index.milvus.documents import current
from index.milvus.index import MilvusIndex, live_sample
from index.milvus.kinds import EXACT
from index.milvus.rows import DIGEST, digest_of, fields_of, vectors_of
from index.milvus.server import Server
from index.search.base import check_unit


def problems(server: Server) -> list[str]:
    """Everything that is wrong with the current version, as sentences; empty if it is sound.

    Checks the sha256 of the documents and of each row, that each row is there once and none that
    was removed, that the CUIs are as often as the documents say, that every vector is finite and of
    unit norm, and that a search for the vectors of some rows finds those rows. Repairs nothing.

    Raises:
        IndexUnreachable: The server is away, so nothing can be said.
    """
    try:
        version = current(server)
        for name in sorted(version.manifest["documents"]):
            version.documents.read(version.manifest, name, now=True)
        index = MilvusIndex(version)
        return _row_problems(index) or _search_problems(index)
    except IndexUnreachable:
        raise
    except IndexProblem as problem:
        return [problem.message]


def _row_problems(index: MilvusIndex) -> list[str]:
    manifest, found = index.entries, []
    seen: Counter[int] = Counter()
    concepts: Counter[str] = Counter()
    cuis_of = {row: [""] for row in live_sample(index.stored, index.removed).tolist()}
    changed: list[str] = []
    for entity in index.rows.in_row_order(index.stored, fields_of(manifest), step=1024):
        try:
            check_unit(vectors_of([entity], manifest["dim"]), manifest["dim"], "vectors")
        except IndexProblem:
            found.append(f"The vector of {entity['id']} is not of unit norm.")
        seen[entity["row"]] += 1
        concepts.update(entity["cuis"])
        if entity["row"] in cuis_of:
            cuis_of[entity["row"]] = list(entity["cuis"])
        if digest_of(entity) != entity[DIGEST]:
            changed.append(entity["id"])
    if changed:
        found.append(f"{len(changed)} rows have changed since they were written: {changed[0]}.")
    live = index.current_rows >= 0
    missing = [row for row in np.flatnonzero(live).tolist() if row not in seen]
    if missing:
        found.append(f"{len(missing)} rows are missing, such as row {missing[0]}.")
    removed = [row for row in seen if not live[row]]
    if removed:
        found.append(f"{len(removed)} removed rows are still there: annotator compact.")
    twice = [row for row, times in seen.items() if times > 1]
    if twice:
        found.append(f"{len(twice)} row numbers are there twice, such as row {twice[0]}.")
    more = index.rows.count() - sum(seen.values())
    if more:
        found.append(
            f"{more} rows more are counted: of a change that was stopped; the next one mends it."
        )
    if not found and dict(concepts) != dict(index.concepts):
        found.append("The concepts of the rows are not as often as the documents say.")
    if not found and list(cuis_of.values()) != manifest["sample"]:
        found.append("The sample rows are not those of the documents.")
    return found


def _search_problems(index: MilvusIndex) -> list[str]:
    """Sample rows that a search for their own vectors does not find."""
    rows = live_sample(index.stored, index.removed).tolist()
    entities = list(index.rows.select("row", rows, ["id", "vector"]))
    result = index.find(vectors_of(entities, index.entries["dim"]), 1)
    nearest = [result.cases.ids[row] for row in result.neighbors.rows[:, 0].tolist()]
    similar = (result.neighbors.similarities[:, 0] >= 1 - 1e-5).tolist()
    lost = [
        entity["id"]
        for entity, id_, close in zip(entities, nearest, similar, strict=True)
        if id_ != entity["id"] and not close
    ]
    if index.entries["index_type"] in EXACT:
        return [f"A search for {id_} does not find it." for id_ in lost]
    if len(lost) > len(entities) // 10:
        return [f"Searches for {len(entities)} of its own rows do not find {len(lost)} of them."]
    return []
