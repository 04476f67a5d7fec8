"""Writing an index in Milvus anew, without what was removed from it."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.labels import LabelTable
from index.milvus.opened import MilvusIndex
from index.milvus.rows import THUMBNAIL, digest_of, every_row, fields_of, vectors_of
from index.milvus.server import Server
from index.milvus.state import current, numbers, removed_rows
from index.milvus.writer import MilvusWriter
from index.progress import track
from index.protocols import Changed
from index.segments import CONTENT, THUMBNAIL_ENDS, THUMBNAILS


def compact(
    server: Server,
    folder: Path,
    *,
    of: str,
    index_type: str | None,
    target_recall: float | None,
    arrays: Mapping[str, NDArray[Any]],
) -> Changed:
    """Copy the rows into a new collection, drop every other version (as `folder.change.compact`).

    The server deletes the files of what was dropped by itself, some hours later.

    Args:
        server: To talk to.
        folder: Where rows are kept on their way.
        of: The version that `arrays` were made for.
        index_type: Another kind of index; None for the same.
        target_recall: For approximate kinds; None for the same.
        arrays: Instead of those of the index.

    Raises:
        IndexProblem: There is no index, it is damaged or has got a new version, or the server is
            away for longer than the patience.
    """
    state = current(server)
    manifest = state.manifest
    if manifest["version"] != of:
        raise IndexProblem(f"{server.address} has got a new version meanwhile.", "Try again.")
    index = MilvusIndex(server, state.collection, state.revision, manifest)
    live = numbers(manifest["stored"], removed_rows(state.documents, manifest)) >= 0
    ids: list[str] = []
    sets: list[list[str]] = []
    columns: dict[str, list[str]] = {name: [] for name in manifest["columns"]}
    contents: list[bytes] = []
    ends: list[int] = []
    fields = fields_of(manifest)
    with (
        MilvusWriter(server, folder) as writer,
        tempfile.TemporaryFile(dir=folder) as pictures,
    ):
        rows = every_row(server, state.collection, manifest["stored"], fields, step=1024)
        for entity in track(rows, total=len(index), label="Reading"):
            if not live[entity["row"]]:
                continue
            if digest_of(entity) != entity["sha256"]:
                raise IndexProblem(
                    f"{server.address}: {entity['id']} is not what was written.",
                    "Build the index again.",
                )
            writer.add(vectors_of([entity], manifest["dim"]))
            ids.append(entity["id"])
            sets.append(list(entity["cuis"]))
            for name, column in columns.items():
                column.append(entity[name])
            contents.append(bytes.fromhex(entity.get(CONTENT, "")))
            pictures.write(base64.b64decode(entity.get(THUMBNAIL, "")))
            ends.append(pictures.tell())
        if len(ids) != len(index):
            raise IndexProblem(
                f"{server.address} has {len(ids)} rows, and {len(index)} were expected.",
                "See what is wrong: annotator verify.",
            )
        own: dict[str, NDArray[Any]] = {}
        if all(len(content) == 32 for content in contents):
            own[CONTENT] = np.frombuffer(b"".join(contents), np.uint8).reshape(len(ids), -1)
        if manifest["thumbnails"]:
            pictures.flush()
            own[THUMBNAILS] = np.zeros(0, np.uint8)
            if ends[-1]:
                own[THUMBNAILS] = np.memmap(pictures, np.uint8, "r", 0, (ends[-1],))
            own[THUMBNAIL_ENDS] = np.array(ends, np.int64)
        search = manifest["search"]
        version = writer.publish(
            ids,
            LabelTable.from_sets(sets),
            names=index.names,
            columns=columns,
            about=manifest["about"],
            arrays={**arrays, **own},
            index_type=index_type or manifest["index_type"],
            target_recall=target_recall or search.get("target_recall"),
            reason=None if index_type else search["reason"],
            only=True,
        )
    return Changed(version, len(ids), removed=manifest["removed"])
