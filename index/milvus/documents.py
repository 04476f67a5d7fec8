"""What belongs to an index beside its rows: its manifest, its concepts, its arrays.

They are kept in a collection of texts, because a collection's own properties hold too little. A
change writes what it changes under a new revision and the manifest last; a manifest that is not
complete does not count, so readers see the old revision or the new one. Old ones are deleted by the
next change but one.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.milvus.rows import Level, query
from index.milvus.server import Server

_PART = 48_000  # bytes; 64,000 characters of the 65,535 that a text may have
_AT_ONCE = 64  # parts in a message
_KEPT = 2  # revisions
_MANIFEST = re.compile(r"manifest/([0-9]{6})/([0-9]{5})of([0-9]{5})/([0-9a-f]{64})")


class Documents:
    """The documents of one version.

    Args:
        server: Where they are.
        collection: Of this name.
    """

    def __init__(self, server: Server, collection: str) -> None:
        self._server = server
        self.collection = collection

    def create(self) -> None:
        """Make the collection, empty, and have it loaded, which takes the server some seconds.

        What a build has left that was stopped goes.
        """
        self._server.call("drop_collection", self.collection)
        self._server.patiently(self._create)

    def newest(self) -> tuple[int, dict[str, Any]]:
        """Number and manifest of the newest complete revision.

        Raises:
            IndexProblem: There is none.
        """
        for number, raw in self._complete():
            return number, dict(json.loads(raw))
        raise IndexProblem(
            f"{self._server.address}: the collection {self.collection} holds no manifest.",
            "Build the index again.",
        )

    def _complete(self) -> Iterator[tuple[int, bytes]]:
        """Number and manifest of each revision that is complete, the newest first."""
        revisions: dict[tuple[int, int, str], dict[int, str]] = {}
        for row in self._query('key like "manifest/%"', ["key", "text"]):
            named = _MANIFEST.fullmatch(row["key"])
            if named is not None:
                number, part, parts, digest = named.groups()
                key = (int(number), int(parts), digest)
                revisions.setdefault(key, {})[int(part)] = row["text"]
        for (number, parts, digest), texts in sorted(revisions.items(), reverse=True):
            if sorted(texts) != list(range(parts)):
                continue  # of a change that has not ended
            raw = b"".join(base64.b64decode(texts[part]) for part in range(parts))
            if hashlib.sha256(raw).hexdigest() == digest:
                yield number, raw

    def read(self, manifest: Mapping[str, Any], name: str, *, now: bool = False) -> bytes:
        """A document that the manifest lists.

        Args:
            manifest: Of its revision.
            name: Of the document.
            now: As it is, even if it was sound some seconds ago.

        Raises:
            IndexProblem: It is not there or was changed.
        """
        entry = manifest["documents"][name]
        keys = [_key(name, entry["revision"], part) for part in range(entry["parts"])]
        # What was written once stays, so that of some seconds ago will do, if it was there.
        levels: tuple[Level, ...] = ("Strong",) if now else ("Bounded", "Strong")
        for level in levels:
            texts = self._texts(keys, level)
            raw = b"".join(base64.b64decode(texts.get(key, "")) for key in keys)
            if hashlib.sha256(raw).hexdigest() == entry["sha256"]:
                return raw
        missing = not all(key in texts for key in keys)
        if missing and self.newest()[1]["version"] != manifest["version"]:
            raise IndexProblem(
                f"{self._server.address} has got newer versions meanwhile.", "Open it again."
            )
        raise IndexProblem(
            f"{self._server.address}: {name} in {self.collection} is not what was written.",
            "Build the index again.",
        )

    def _texts(self, keys: list[str], level: Level) -> dict[str, str]:
        """Those of the parts that are there."""
        texts: dict[str, str] = {}
        for start in range(0, len(keys), _AT_ONCE):
            condition = f"key in {json.dumps(keys[start : start + _AT_ONCE])}"
            found = self._query(condition, ["key", "text"], level)
            texts |= {row["key"]: row["text"] for row in found}
        return texts

    def publish(
        self, revision: int, manifest: Mapping[str, Any], changed: Mapping[str, bytes]
    ) -> dict[str, Any]:
        """Write a revision: the documents that changed, then the manifest.

        Args:
            revision: Its number.
            manifest: With the entries in "documents" of those that stay.
            changed: Documents by name.

        Returns:
            The manifest as written.

        Raises:
            IndexProblem: Another process has written this revision.
        """
        self._clear_from(revision)
        entries = dict(manifest.get("documents", {}))
        for name, raw in sorted(changed.items()):
            parts = _parts(raw)
            self._write([(_key(name, revision, i), part) for i, part in enumerate(parts)])
            entries[name] = {
                "revision": revision,
                "parts": len(parts),
                "bytes": len(raw),
                "sha256": hashlib.sha256(raw).hexdigest(),
            }
        written = {**manifest, "documents": entries}
        raw = json.dumps(written, sort_keys=True).encode()
        digest, parts = hashlib.sha256(raw).hexdigest(), _parts(raw)
        self._write(
            [
                (f"manifest/{revision:06d}/{i:05d}of{len(parts):05d}/{digest}", part)
                for i, part in enumerate(parts)
            ]
        )
        self._forget_before(revision - _KEPT + 1, entries)
        return written

    def _clear_from(self, revision: int) -> None:
        """Delete what a change has left that was stopped before its manifest was complete."""
        newest = next(self._complete(), None)
        if newest is not None and newest[0] >= revision:
            raise IndexProblem(
                f"{self._server.address} has got a new version meanwhile.", "Try again."
            )
        keys = [row["key"] for row in self._query('key != ""', ["key"])]
        self._delete([key for key in keys if int(key.split("/")[1]) >= revision])

    def _forget_before(self, revision: int, entries: Mapping[str, Any]) -> None:
        """Delete what only older revisions than this one use."""
        used = {(name, entry["revision"]) for name, entry in entries.items()}
        old = []
        for row in self._query('key != ""', ["key"]):
            name, number = row["key"].split("/")[:2]
            if int(number) < revision and (name, int(number)) not in used:
                old.append(row["key"])
        self._delete(old)

    def _delete(self, keys: list[str]) -> None:
        for start in range(0, len(keys), _AT_ONCE):
            self._server.call("delete", self.collection, ids=keys[start : start + _AT_ONCE])

    def _write(self, texts: list[tuple[str, str]]) -> None:
        for start in range(0, len(texts), _AT_ONCE):
            rows = [
                {"key": key, "text": text, "unused": [0.0, 0.0]}
                for key, text in texts[start : start + _AT_ONCE]
            ]
            self._server.call("upsert", self.collection, rows)

    def _query(
        self, condition: str, fields: list[str], level: Level = "Strong"
    ) -> list[dict[str, Any]]:
        return query(self._server, self.collection, condition, fields, level)

    def _create(self, client: Any, seconds: float) -> None:
        from pymilvus import DataType

        if not client.has_collection(self.collection, timeout=seconds):
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=200)
            schema.add_field("text", DataType.VARCHAR, max_length=65535)
            # Milvus has no collection without a vector.
            schema.add_field("unused", DataType.FLOAT_VECTOR, dim=2)
            client.create_collection(self.collection, schema=schema, timeout=seconds)
        params = client.prepare_index_params()
        params.add_index("unused", index_type="FLAT", metric_type="L2")
        client.create_index(self.collection, params, timeout=seconds)
        client.load_collection(self.collection, timeout=seconds, _async=True)


def array_to_bytes(array: NDArray[Any]) -> bytes:
    """An array as a .npy file."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def array_from_bytes(raw: bytes) -> NDArray[Any]:
    """What `array_to_bytes` wrote, read-only."""
    array: NDArray[Any] = np.load(io.BytesIO(raw), allow_pickle=False)
    array.flags.writeable = False
    return array


def _key(name: str, revision: int, part: int) -> str:
    return f"{name}/{revision:06d}/{part:05d}"


def _parts(raw: bytes) -> list[str]:
    starts = range(0, max(len(raw), 1), _PART)
    return [base64.b64encode(raw[start : start + _PART]).decode("ascii") for start in starts]
