"""The current version of an index in Milvus, and what its manifest says."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.distribution import DISTRIBUTION
from index.errors import IndexProblem
from index.labels import SAMPLE
from index.manifest import FORMAT
from index.milvus.documents import Documents, array_from_bytes
from index.milvus.rows import query
from index.milvus.server import Absent, Server

_TRIES = 20  # that a reader makes while versions come and go
_VERSION = re.compile(r"_v([0-9]{6})")


@dataclass(frozen=True)
class State:
    """What readers see.

    Attributes:
        collection: Of the rows.
        documents: Of the same version.
        revision: Of the documents.
        manifest: The same revision's.
    """

    collection: str
    documents: Documents
    revision: int
    manifest: Mapping[str, Any]


def current(server: Server) -> State:
    """The current version.

    Raises:
        Absent: There is none.
        IndexProblem: A newer annotator wrote it, or somebody else.
    """
    for tried in range(_TRIES):
        collection = current_collection(server)
        if collection is None:
            raise Absent(
                f"{server.address}: there is no such index.",
                f"Build one: annotator build-index IMAGES CONCEPTS --index {server.address}",
            )
        documents = Documents(server, f"{collection}_documents")
        try:
            return _checked(server, collection, documents)
        except Absent:  # others were built meanwhile
            if tried + 1 == _TRIES:
                raise
    raise AssertionError


def _checked(server: Server, collection: str, documents: Documents) -> State:
    revision, manifest = documents.newest()
    if manifest["format"] > FORMAT:
        raise IndexProblem(
            f"{server.address} has format {manifest['format']}; this version reads up to {FORMAT}.",
            "Update annotator, or build the index again.",
        )
    return State(collection, documents, revision, manifest)


def current_collection(server: Server) -> str | None:
    """The collection that the alias names; None if there is no such alias.

    Raises:
        IndexProblem: There is a collection of that very name, or an alias of another one.
    """
    name = server.address.name
    try:
        # It takes an alias for a name. Milvus 2.3 looks up aliases themselves in its default
        # database, whichever was meant.
        collection = str(server.call("describe_collection", name)["collection_name"])
    except Absent:
        return None
    if collection == name:
        raise IndexProblem(
            f"{server.address}: {name} is a collection that annotator did not make.",
            "Give another name.",
        )
    if number_of(name, collection) is None:
        raise IndexProblem(
            f"{server.address}: {name} is an alias of {collection}, which is no index of ours.",
            "Give another name.",
        )
    return collection


def number_of(name: str, collection: str) -> int | None:
    """Of a collection of rows; None if it is none."""
    found = _VERSION.fullmatch(collection[len(name) :]) if collection.startswith(name) else None
    return int(found[1]) if found else None


def version_name(number: int, revision: int) -> str:
    """Such as "v000001.2"."""
    return f"v{number:06d}.{revision}"


def sample_rows(stored: int, removed: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of the rows that stand for all: those that `LabelTable.sample` takes."""
    live = np.delete(np.arange(stored), removed)
    return live[np.linspace(0, len(live) - 1, min(SAMPLE, len(live))).astype(np.int64)]


def read_sample(server: Server, collection: str, rows: NDArray[np.int64]) -> list[list[str]]:
    """CUIs of the rows that stand for all."""
    found = query(server, collection, f"row in {json.dumps(rows.tolist())}", ["row", "cuis"])
    by_row = {entity["row"]: list(entity["cuis"]) for entity in found}
    missing = [row for row in rows.tolist() if row not in by_row]
    if missing:
        raise IndexProblem(f"{server.address} has lost row {missing[0]}.", "Build the index again.")
    return [by_row[row] for row in rows.tolist()]


def libraries(server: Server) -> dict[str, str]:
    """What wrote an index."""
    versions = {"milvus": str(server.call("get_server_version"))}
    for name in (DISTRIBUTION, "numpy", "pymilvus"):
        with suppress(importlib.metadata.PackageNotFoundError):
            key = "annotator" if name == DISTRIBUTION else name
            versions[key] = importlib.metadata.version(name)
    return versions


def read_concepts(documents: Documents, manifest: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """Images and name by CUI, ascending."""
    lines = documents.read(manifest, "concepts").decode().split("\n")[:-1]
    fields = (line.split("\t", 2) for line in lines)
    return {cui: (int(images), name) for cui, images, name in fields}


def render_concepts(counts: Mapping[str, int], names: Mapping[str, str]) -> bytes:
    """What `read_concepts` reads, of the CUIs that occur."""
    return "".join(
        f"{cui}\t{images}\t{' '.join(names.get(cui, '').split())}\n"
        for cui, images in sorted(counts.items())
        if images > 0
    ).encode()


def removed_rows(documents: Documents, manifest: Mapping[str, Any]) -> NDArray[np.int64]:
    """int64[r], ascending: numbers of the rows that were removed."""
    if not manifest["removed"]:
        return np.empty(0, np.int64)
    return array_from_bytes(documents.read(manifest, "removed")).astype(np.int64)


def numbers(stored: int, removed: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[stored]: today's number of each row that was ever written, -1 where it was removed."""
    live = np.ones(stored, bool)
    live[removed] = False
    return np.where(live, np.cumsum(live) - 1, -1)
