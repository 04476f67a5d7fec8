"""The current version of an index, and its documents: manifest, concepts, arrays, removed rows.

Documents are kept in a collection of texts, because a collection's own properties hold too little.
A change writes what it changes under a new revision, and the manifest last. An incomplete manifest
does not count, so readers see the old revision or the new one.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.manifest import FORMAT
from index.milvus.collection import Collection, Level
from index.milvus.server import Absent, Server

_PART = 48_000  # bytes; 64,000 characters of the 65,535 that a text may have
_AT_ONCE = 64  # parts in a message
_MANIFEST = re.compile(r"manifest/([0-9]{6})/([0-9]{5})of([0-9]{5})/([0-9a-f]{64})")
_VERSION = re.compile(r"_v([0-9]{6})")


class Version(NamedTuple):
    """A revision of a version, as readers see it."""

    rows: Collection
    documents: Documents
    manifest: Mapping[str, Any]


def current(server: Server) -> Version:
    """The current version.

    Raises:
        Absent: There is none.
        IndexProblem: A newer annotator wrote it, or somebody else.
    """
    name = current_collection(server)
    if name is None:
        raise Absent(
            f"{server.address}: there is no such index.",
            f"Build one: annotator build-index IMAGES CONCEPTS --index {server.address}",
        )
    documents = Documents(server, name)
    try:
        manifest = documents.newest_manifest()
    except Absent:
        if current_collection(server) == name:
            raise
        return current(server)  # others were built meanwhile
    if manifest["format"] > FORMAT:
        raise IndexProblem(
            f"{server.address} has format {manifest['format']}; this version reads up to {FORMAT}.",
            "Update annotator, or build the index again.",
        )
    return Version(Collection(server, name), documents, manifest)


def current_collection(server: Server) -> str | None:
    """The collection that the alias names; None if there is no such alias.

    Raises:
        IndexProblem: There is a collection of that very name, or an alias of a foreign one.
    """
    name = server.address.name
    try:
        # It takes an alias for a name. Milvus 2.3 looks up aliases themselves in its default
        # database, whichever was meant.
        collection = str(server.call("describe_collection", name)["collection_name"])
    except Absent:
        return None
    problem = ""
    if collection == name:
        problem = f"{name} is a collection that annotator did not make"
    elif number_of(name, collection) is None:
        problem = f"{name} is an alias of {collection}, which is no index of ours"
    if problem:
        raise IndexProblem(f"{server.address}: {problem}.", "Give another name.")
    return collection


def number_of(name: str, collection: str) -> int | None:
    """Number of the version that a collection of rows holds; None for other collections."""
    found = _VERSION.fullmatch(collection[len(name) :]) if collection.startswith(name) else None
    return int(found[1]) if found else None


class Documents:
    """The documents of one version.

    Args:
        server: Where they are.
        rows: Name of the collection of the version's rows.
    """

    def __init__(self, server: Server, rows: str) -> None:
        self._server = server
        self.collection = Collection(server, f"{rows}_documents")

    def create(self) -> None:
        """Create the collection, empty, and have it loaded, which takes the server some seconds."""
        self._server.call("drop_collection", self.collection.name)  # of a build that was stopped
        self._server.retry(self._create)

    def _create(self, client: Any, seconds: float) -> None:
        from pymilvus import DataType

        name = self.collection.name
        if not client.has_collection(name, timeout=seconds):
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=200)
            schema.add_field("text", DataType.VARCHAR, max_length=65535)
            # Milvus has no collection without a vector.
            schema.add_field("unused", DataType.FLOAT_VECTOR, dim=2)
            client.create_collection(name, schema=schema, timeout=seconds)
        params = client.prepare_index_params()
        params.add_index("unused", index_type="FLAT", metric_type="L2")
        client.create_index(name, params, timeout=seconds)
        client.load_collection(name, timeout=seconds, _async=True)

    def newest_manifest(self) -> dict[str, Any]:
        """The manifest of the newest complete revision.

        Raises:
            IndexProblem: There is none.
        """
        revisions: dict[tuple[int, int, str], dict[int, str]] = {}
        for row in self.collection.query('key like "manifest/%"', ["key", "text"]):
            if named := _MANIFEST.fullmatch(row["key"]):
                revision, part, parts, digest = named.groups()
                key = (int(revision), int(parts), digest)
                revisions.setdefault(key, {})[int(part)] = row["text"]
        for (_, parts, digest), texts in sorted(revisions.items(), reverse=True):
            if sorted(texts) == list(range(parts)):
                raw = b"".join(base64.b64decode(texts[part]) for part in range(parts))
                if hashlib.sha256(raw).hexdigest() == digest:
                    return dict(json.loads(raw))
        raise IndexProblem(
            f"{self._server.address}: the collection {self.collection.name} holds no manifest.",
            "Build the index again.",
        )

    def read(self, manifest: Mapping[str, Any], name: str, *, now: bool = False) -> bytes:
        """Read one of the documents of a manifest; `now`: as it is, not as it was seconds ago.

        Raises:
            IndexProblem: It is not there or was changed.
        """
        entry = manifest["documents"][name]
        keys = [_key(name, entry["revision"], part) for part in range(entry["parts"])]
        # What was written once stays, so that of some seconds ago will do, if it was there.
        levels: tuple[Level, ...] = ("Strong",) if now else ("Bounded", "Strong")
        for level in levels:
            texts: dict[str, str] = {}
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                found = self.collection.select("key", some, ["text"], level)
                texts |= {row["key"]: row["text"] for row in found}
            raw = b"".join(base64.b64decode(texts.get(key, "")) for key in keys)
            if hashlib.sha256(raw).hexdigest() == entry["sha256"]:
                return raw
        if len(texts) < len(keys) and self.newest_manifest()["version"] != manifest["version"]:
            raise IndexProblem(
                f"{self._server.address} has got newer versions meanwhile.", "Open it again."
            )
        raise IndexProblem(
            f"{self._server.address}: {name} in {self.collection.name} is not what was written.",
            "Build the index again.",
        )

    def read_array(self, manifest: Mapping[str, Any], name: str) -> NDArray[Any]:
        """Read a document that `array_to_bytes` made, read-only."""
        raw = self.read(manifest, name)
        array: NDArray[Any] = np.load(io.BytesIO(raw), allow_pickle=False)
        array.flags.writeable = False
        return array

    def publish(self, manifest: Mapping[str, Any], changed: Mapping[str, bytes]) -> dict[str, Any]:
        """Write the next revision: the documents that changed, then the manifest.

        Revisions but this one and the one before are deleted.

        Args:
            manifest: With version and "documents" of the revision before; "v000001.0" for a new
                version's first one.
            changed: Documents by name.

        Returns:
            The manifest as written.

        Raises:
            IndexProblem: Another process has written this revision.
        """
        number, _, before = str(manifest["version"]).partition(".")
        revision = int(before) + 1
        if revision > 1 and self.newest_manifest()["version"] != manifest["version"]:
            raise IndexProblem(
                f"{self._server.address} has got a new version meanwhile.", "Try again."
            )
        keys = [row["key"] for row in self.collection.query('key != ""', ["key"])]
        # What a change has left that was stopped before its manifest was complete.
        self._delete([key for key in keys if _revision(key) >= revision])
        entries = dict(manifest["documents"])
        for name, raw in sorted(changed.items()):
            parts = _parts(raw)
            self._write({_key(name, revision, i): part for i, part in enumerate(parts)})
            entries[name] = {
                "revision": revision,
                "parts": len(parts),
                "bytes": len(raw),
                "sha256": hashlib.sha256(raw).hexdigest(),
            }
        written = {**manifest, "version": f"{number}.{revision}", "documents": entries}
        raw = json.dumps(written, sort_keys=True).encode()
        digest, parts = hashlib.sha256(raw).hexdigest(), _parts(raw)
        name = f"manifest/{revision:06d}"
        self._write(
            {f"{name}/{i:05d}of{len(parts):05d}/{digest}": part for i, part in enumerate(parts)}
        )
        used = {
            (name, entry["revision"])
            for kept in (manifest["documents"], entries)
            for name, entry in kept.items()
        }
        old = [key for key in keys if _revision(key) < revision - 1]
        self._delete([key for key in old if (key.split("/")[0], _revision(key)) not in used])
        return written

    def _write(self, texts: Mapping[str, str]) -> None:
        rows = [{"key": key, "text": text, "unused": [0.0, 0.0]} for key, text in texts.items()]
        for start in range(0, len(rows), _AT_ONCE):
            self._server.call("upsert", self.collection.name, rows[start : start + _AT_ONCE])

    def _delete(self, keys: list[str]) -> None:
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            self._server.call("delete", self.collection.name, ids=some)


def array_to_bytes(array: NDArray[Any]) -> bytes:
    """Serialise an array as a .npy file."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def read_concepts(version: Version) -> dict[str, tuple[int, str]]:
    """Number of images and name by CUI, ascending."""
    lines = version.documents.read(version.manifest, "concepts").decode().split("\n")[:-1]
    fields = (line.split("\t", 2) for line in lines)
    return {cui: (int(images), name) for cui, images, name in fields}


def render_concepts(counts: Mapping[str, int], names: Mapping[str, str]) -> bytes:
    """Serialise counts and names of the CUIs that occur, for `read_concepts`."""
    return "".join(
        f"{cui}\t{images}\t{' '.join(names.get(cui, '').split())}\n"
        for cui, images in sorted(counts.items())
        if images > 0
    ).encode()


def _key(name: str, revision: int, part: int) -> str:
    return f"{name}/{revision:06d}/{part:05d}"


def _revision(key: str) -> int:
    return int(key.split("/")[1])


def _parts(raw: bytes) -> list[str]:
    starts = range(0, max(len(raw), 1), _PART)
    return [base64.b64encode(raw[start : start + _PART]).decode("ascii") for start in starts]
