"""Rows that come to and go from an index in Milvus.

An addition sends rows and then the documents that count them; a removal writes the documents and
then deletes. What a process leaves that was killed in between is put right by the next change, and
by the same command at once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.milvus.documents import array_to_bytes
from index.milvus.rows import (
    check_count,
    check_entities,
    count,
    delete_rows,
    get_entities,
    query,
    rows_of,
    send_all,
    settle,
)
from index.milvus.server import Server
from index.milvus.state import (
    State,
    current,
    read_concepts,
    read_sample,
    removed_rows,
    render_concepts,
    sample_rows,
    version_name,
)
from index.protocols import Changed
from index.search.base import check_unit
from index.segments import CONTENT, THUMBNAIL_ENDS, THUMBNAILS, Segment, check_rows


def add_rows(server: Server, rows: Segment, *, of: str, over: bool = False) -> Changed:
    """Add rows; see `FolderLocation.add_rows`. Rows are found as they arrive.

    Raises:
        IndexProblem: As there; something that Milvus cannot keep; the server is away for longer
            than the patience (the same command goes on).
    """
    check_unit(rows.vectors, None, "vectors")
    check_rows(len(rows.vectors), rows.ids, rows.labels, rows.columns)
    if len(rows) == 0:
        raise IndexProblem("There is nothing to add; at least one row is needed.")
    state = _state(server, of)
    check_unit(rows.vectors[:1], state.manifest["dim"], "vectors")
    rows = _fitted(rows, state.manifest)
    check_entities(rows)
    there = sorted(_there(server, state, rows.ids))
    if there and not over:
        raise IndexProblem(
            f"{len(there)} of the {len(rows.ids)} images are in the index already, such as "
            f"{there[0]}.",
            "Leave them out, or take the new ones for them with --replace.",
        )
    if there:
        state = _remove(server, state, there)
    first = int(state.manifest["stored"])
    resumed = _clear_unfinished(server, state, {id_: first + i for i, id_ in enumerate(rows.ids)})
    n = int(state.manifest["n"]) + len(rows)
    send_all(server, state.collection, rows, first, resumed=resumed)
    settle(server, state.collection, rows, first, expected=n)
    concepts = read_concepts(state.documents, state.manifest)
    counts = Counter({cui: images for cui, (images, _) in concepts.items()})
    counts.update(dict(zip(rows.labels.cuis, rows.labels.frequencies.tolist(), strict=True)))
    names = {cui: name for cui, (_, name) in concepts.items()} | dict(rows.names)
    stored = first + len(rows)
    removed = removed_rows(state.documents, state.manifest)
    changes = {
        "n": n,
        "stored": stored,
        "segments": [*state.manifest["segments"], {"rows": len(rows)}],
        "sample": read_sample(server, state.collection, sample_rows(stored, removed)),
    }
    state = _publish(server, state, changes, {"concepts": render_concepts(counts, names)})
    return Changed(str(state.manifest["version"]), n, len(rows), len(there))


def remove_rows(server: Server, ids: Collection[str], *, missing_ok: bool = False) -> Changed:
    """Remove rows: no search finds them any more; see `FolderLocation.remove_rows`.

    They are gone from the disk some time after `compact`.

    Raises:
        IndexProblem: As there; the server is away for longer than the patience (the same command
            goes on).
    """
    state = current(server)
    wanted = set(ids)
    known = _there(server, state, sorted(wanted), removed_too=True)
    unknown = wanted - set(known)
    if unknown and not missing_ok:
        raise IndexProblem(
            f"{len(unknown)} of the {len(wanted)} images are not in the index, such as "
            f"{min(unknown)}.",
            "Check the ids, or pass over those that are not there with --missing-ok.",
        )
    gone = set(removed_rows(state.documents, state.manifest).tolist())
    fresh = [id_ for id_, row in known.items() if row not in gone]
    if len(fresh) == state.manifest["n"]:
        raise IndexProblem(
            "No image would be left.", "Drop the collection on the server to remove the index."
        )
    state = _remove(server, state, sorted(fresh))
    return Changed(str(state.manifest["version"]), state.manifest["n"], removed=len(known))


def change_about(server: Server, about: Mapping[str, Any], *, of: str) -> str:
    """Another `about` in the manifest; see `FolderLocation.change_about`."""
    state = _state(server, of)
    new = json.loads(json.dumps(about))
    if new == state.manifest["about"]:
        return str(state.manifest["version"])
    return str(_publish(server, state, {"about": new}, {}).manifest["version"])


def _state(server: Server, of: str) -> State:
    state = current(server)
    if state.manifest["version"] != of:
        raise IndexProblem(f"{server.address} has got a new version meanwhile.", "Try again.")
    return state


def _fitted(rows: Segment, manifest: Mapping[str, Any]) -> Segment:
    """Rows with what the collection keeps of each, and nothing else."""
    n = len(rows)
    columns = {name: rows.columns.get(name, [""] * n) for name in manifest["columns"]}
    arrays: dict[str, NDArray[Any]] = {}
    if manifest["content"]:
        arrays[CONTENT] = rows.arrays.get(CONTENT, np.zeros((n, 0), np.uint8))
    if manifest["thumbnails"]:
        arrays[THUMBNAILS] = rows.arrays.get(THUMBNAILS, np.zeros(0, np.uint8))
        arrays[THUMBNAIL_ENDS] = rows.arrays.get(THUMBNAIL_ENDS, np.zeros(n, np.int64))
    return replace(rows, columns=columns, arrays=arrays)


def _there(
    server: Server, state: State, ids: Collection[str], *, removed_too: bool = False
) -> dict[str, int]:
    """Numbers of those of the images that the index has."""
    found = rows_of(server, state.collection, list(ids))
    gone: set[int] = set()
    if not removed_too:
        gone = set(removed_rows(state.documents, state.manifest).tolist())
    stored = state.manifest["stored"]
    return {
        id_: row
        for id_, numbers in found.items()
        for row in numbers
        if row < stored and row not in gone
    }


def _clear_unfinished(server: Server, state: State, wanted: Mapping[str, int]) -> bool:
    """Delete what changes have left that were stopped; whether rows that are wanted were there."""
    n = int(state.manifest["n"])
    more = count(server, state.collection) - n
    if more == 0:
        return False
    condition = f"row >= {state.manifest['stored']}"
    left = query(server, state.collection, condition, ["id", "row"])
    stale = [entity["row"] for entity in left if wanted.get(entity["id"]) != entity["row"]]
    delete_rows(server, state.collection, sorted(set(stale)))
    if more != len(left):
        gone = removed_rows(state.documents, state.manifest)
        delete_rows(server, state.collection, gone.tolist())
    return len(left) > len(stale)


def _remove(server: Server, state: State, ids: list[str]) -> State:
    """Write that rows are removed, then delete them and what former removals have left."""
    before = removed_rows(state.documents, state.manifest)
    known = set(before.tolist())
    stored = int(state.manifest["stored"])
    found = [
        entity
        for entity in get_entities(server, state.collection, ids, ["row", "cuis"])
        if entity["row"] < stored and entity["row"] not in known
    ]
    if found:
        fresh = np.array([entity["row"] for entity in found], np.int64)
        removed = np.union1d(before, fresh).astype(np.int64)
        concepts = read_concepts(state.documents, state.manifest)
        counts = Counter({cui: images for cui, (images, _) in concepts.items()})
        counts.subtract(Counter(cui for entity in found for cui in entity["cuis"]))
        names = {cui: name for cui, (_, name) in concepts.items()}
        rows = sample_rows(stored, removed)
        changes = {
            "n": int(state.manifest["n"]) - len(found),
            "removed": len(removed),
            "sample": read_sample(server, state.collection, rows),
        }
        texts = {
            "concepts": render_concepts(counts, names),
            "removed": array_to_bytes(removed),
        }
        state = _publish(server, state, changes, texts)
        delete_rows(server, state.collection, fresh.tolist())
    _clear_unfinished(server, state, {})
    check_count(server, state.collection, int(state.manifest["n"]))
    return state


def _publish(
    server: Server, state: State, changes: Mapping[str, Any], texts: Mapping[str, bytes]
) -> State:
    """A new revision of the documents."""
    revision = state.revision + 1
    number = int(str(state.manifest["version"]).partition(".")[0][1:])
    manifest = {**state.manifest, **changes, "version": version_name(number, revision)}
    written = state.documents.publish(revision, manifest, texts)
    return replace(state, revision=revision, manifest=written)
