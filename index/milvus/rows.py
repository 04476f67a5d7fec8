"""Rows of an index as entities of Milvus: schema, limits, conversion and sending."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.labels import LabelTable
from index.milvus.collection import Collection, Entity
from index.progress import track
from index.segments import CONTENT, THUMBNAIL_ENDS, THUMBNAILS, Segment

_LONGEST_ID, _LONGEST_TEXT, _LONGEST_CUI, _MOST_CUIS = 512, 65535, 64, 1000
_MESSAGE = 8 * 2**20  # bytes
_MOST_ROWS = 2000  # in a message
_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
THUMBNAIL, DIGEST = "thumbnail", "sha256"
# Row number and CUIs in one text, for searches: pymilvus takes as long to read several fields of
# each neighbour, and longer to read an array, as the server to find it.
SUMMARY, SEPARATOR = "summary", ";"
_RESERVED = {"id", "row", "vector", "cuis", SUMMARY, CONTENT, THUMBNAIL, DIGEST}


def create_rows(client: Any, seconds: float, name: str, rows: Segment, note: str) -> None:
    """Create a collection for rows like these, with a note as its description."""
    from pymilvus import DataType

    def text(name: str, longest: int = _LONGEST_TEXT, **options: Any) -> None:
        schema.add_field(name, DataType.VARCHAR, max_length=longest, **options)

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False, description=note)
    text("id", _LONGEST_ID, is_primary=True)
    schema.add_field("row", DataType.INT64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=rows.vectors.shape[1])
    schema.add_field(
        "cuis",
        DataType.ARRAY,
        element_type=DataType.VARCHAR,
        max_capacity=_MOST_CUIS,
        max_length=_LONGEST_CUI,
    )
    text(SUMMARY)
    for column in sorted(rows.columns):
        text(column)
    if CONTENT in rows.arrays:
        text(CONTENT, 64)
    if THUMBNAIL_ENDS in rows.arrays:
        text(THUMBNAIL)
    text(DIGEST, 64)
    client.create_collection(name, schema=schema, timeout=seconds)


def check_entities(rows: Segment) -> None:
    """Refuse rows that Milvus could not keep, before anything is sent.

    Raises:
        IndexProblem: Says which image.
    """
    hint = "Shorten it, or build the index in a folder."
    for column in rows.columns:
        if not _COLUMN.fullmatch(column) or column in _RESERVED:
            raise IndexProblem(f"{column!r} cannot be the name of a column in Milvus.")
    for i, id_ in enumerate(rows.ids):
        if not 0 < len(id_.encode()) <= _LONGEST_ID:
            raise IndexProblem(f"Milvus keeps ids of 1 to {_LONGEST_ID} bytes, not {id_!r}.", hint)
        for column, texts in rows.columns.items():
            if len(texts[i].encode()) > _LONGEST_TEXT:
                raise IndexProblem(
                    f"{id_}: Milvus keeps texts of up to {_LONGEST_TEXT} bytes; its entry in "
                    f"{column} has more.",
                    hint,
                )
    for cui in rows.labels.cuis:
        if len(cui.encode()) > _LONGEST_CUI:
            raise IndexProblem(
                f"Milvus keeps CUIs of up to {_LONGEST_CUI} bytes, not {cui!r}.", hint
            )
        if SEPARATOR in cui:
            raise IndexProblem(f"{cui!r} cannot be a CUI in Milvus: {SEPARATOR} separates them.")
    if len(rows) and int(rows.labels.sizes.max()) > _MOST_CUIS:
        raise IndexProblem(f"Milvus keeps up to {_MOST_CUIS} CUIs of an image.", hint)


def entities(rows: Segment, first: int, places: Sequence[int]) -> list[Entity]:
    """Convert the rows at some places to entities; `first` is the row number of place 0."""
    content = rows.arrays.get(CONTENT)
    result = []
    for i in places:
        cuis = rows.labels.row(i)
        entity: Entity = {
            "id": rows.ids[i],
            "row": first + i,
            "vector": rows.vectors[i],
            "cuis": list(cuis),
            SUMMARY: SEPARATOR.join([str(first + i), *cuis]),
        }
        entity |= {column: texts[i] for column, texts in rows.columns.items()}
        if content is not None:
            entity[CONTENT] = content[i].tobytes().hex()
        if THUMBNAIL_ENDS in rows.arrays:
            text = base64.b64encode(rows.picture(i)).decode("ascii")
            entity[THUMBNAIL] = text if len(text) <= _LONGEST_TEXT else ""
        entity[DIGEST] = digest_of(entity)
        result.append(entity)
    return result


def segment_of(found: Sequence[Entity], manifest: Mapping[str, Any]) -> Segment:
    """Convert entities with all their fields back to rows."""
    arrays: dict[str, NDArray[Any]] = {}
    contents = [bytes.fromhex(entity.get(CONTENT, "")) for entity in found]
    if all(len(content) == 32 for content in contents):
        arrays[CONTENT] = np.frombuffer(b"".join(contents), np.uint8).reshape(len(found), 32)
    if manifest["thumbnails"]:
        pictures = [base64.b64decode(entity[THUMBNAIL]) for entity in found]
        arrays[THUMBNAILS] = np.frombuffer(b"".join(pictures), np.uint8)
        arrays[THUMBNAIL_ENDS] = np.cumsum([len(p) for p in pictures]).astype(np.int64)
    return Segment(
        vectors_of(found, manifest["dim"]),
        [entity["id"] for entity in found],
        LabelTable.from_sets([entity["cuis"] for entity in found]),
        {},
        {name: [entity[name] for entity in found] for name in manifest["columns"]},
        arrays,
    )


def vectors_of(found: Sequence[Entity], dim: int) -> NDArray[np.float32]:
    """The vectors of entities, float32[n, dim]."""
    return np.array([entity["vector"] for entity in found], np.float32).reshape(len(found), dim)


def fields_of(manifest: Mapping[str, Any]) -> list[str]:
    """All fields of an entity but its id and row number."""
    own = [CONTENT] if manifest["content"] else []
    own += [THUMBNAIL] if manifest["thumbnails"] else []
    return ["vector", "cuis", SUMMARY, *manifest["columns"], *own, DIGEST]


def digest_of(entity: Entity) -> str:
    """sha256 of everything that an entity holds."""
    others = {k: v for k, v in entity.items() if k not in ("vector", "cuis", DIGEST)}
    others["cuis"] = list(entity["cuis"])
    digest = hashlib.sha256(json.dumps(others, sort_keys=True).encode())
    digest.update(np.asarray(entity["vector"], "<f4").tobytes())
    return digest.hexdigest()


def send_rows(collection: Collection, rows: Segment, first: int, *, resumed: bool) -> None:
    """Put rows into a collection, numbered from `first` on.

    With `resumed` some may be there from a run that was stopped, and are not sent again; the
    collection has to be loaded then.
    """

    def sent() -> Iterator[int]:
        for places in messages(rows):
            there: dict[str, int] = {}
            if resumed:
                known = collection.select("id", [rows.ids[i] for i in places], ["row"])
                there = {entity["id"]: entity["row"] for entity in known}
            missing = [i for i in places if there.get(rows.ids[i]) != first + i]
            if missing:
                _send(collection, entities(rows, first, missing), replace=bool(there))
            yield from places

    for _ in track(sent(), total=len(rows), label="Sending", unit="vectors"):
        pass


def settle(collection: Collection, rows: Segment, first: int, *, expected: int) -> None:
    """Make a loaded collection hold the rows that were sent once each, `expected` rows in all.

    Raises:
        IndexProblem: It has another number of rows.
    """
    if collection.count() != expected:
        # A message whose answer was lost may have been worked on after it was sent again: the
        # server counts both, and shows one. Replacing deletes both.
        for places in messages(rows):
            _send(collection, entities(rows, first, places), replace=True)
        collection.check_count(expected)


def messages(rows: Segment) -> Iterator[range]:
    """Positions of rows that go into a message together."""
    size = 4 * rows.vectors.shape[1] + 512 + (8192 if THUMBNAIL_ENDS in rows.arrays else 0)
    step = max(1, min(_MOST_ROWS, _MESSAGE // size))
    for start in range(0, len(rows), step):
        yield range(start, min(start + step, len(rows)))


def _send(collection: Collection, sent: list[Entity], *, replace: bool) -> None:
    def send(client: Any, seconds: float) -> None:
        nonlocal replace
        method = client.upsert if replace else client.insert
        # Whether an attempt without an answer was carried out is not known: the next one replaces.
        replace = True
        method(collection.name, sent, timeout=seconds)

    collection.server.retry(send)
