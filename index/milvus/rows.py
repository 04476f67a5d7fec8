"""Rows of an index as entities of Milvus."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.milvus.server import Server
from index.segments import CONTENT, THUMBNAIL_ENDS, Segment

_LONGEST_ID, _LONGEST_TEXT, _LONGEST_CUI, _MOST_CUIS = 512, 65535, 64, 4096
_MESSAGE = 8 * 2**20  # bytes
_MOST_ROWS = 2000  # in a message
_LISTED = 1000  # ids in a condition
THUMBNAIL = "thumbnail"


def create_rows(client: Any, seconds: float, name: str, rows: Segment, note: str) -> None:
    """Make a collection for rows like these.

    Args:
        client: Of pymilvus.
        seconds: That each call may take.
        name: Of the collection.
        rows: What is to be kept there.
        note: A description.
    """
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False, description=note)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=_LONGEST_ID)
    schema.add_field("row", DataType.INT64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=rows.vectors.shape[1])
    schema.add_field(
        "cuis",
        DataType.ARRAY,
        element_type=DataType.VARCHAR,
        max_capacity=_MOST_CUIS,
        max_length=_LONGEST_CUI,
    )
    for column in sorted(rows.columns):
        schema.add_field(column, DataType.VARCHAR, max_length=_LONGEST_TEXT)
    if CONTENT in rows.arrays:
        schema.add_field(CONTENT, DataType.VARCHAR, max_length=64)
    if THUMBNAIL_ENDS in rows.arrays:
        schema.add_field(THUMBNAIL, DataType.VARCHAR, max_length=_LONGEST_TEXT)
    client.create_collection(name, schema=schema, timeout=seconds)


def check_entities(rows: Segment) -> None:
    """Refuse rows that Milvus could not keep, before anything is sent.

    Raises:
        IndexProblem: Says which image.
    """
    hint = "Shorten it, or build the index in a folder."
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
    long = next((cui for cui in rows.labels.cuis if len(cui.encode()) > _LONGEST_CUI), None)
    if long is not None:
        raise IndexProblem(f"Milvus keeps CUIs of up to {_LONGEST_CUI} bytes, not {long!r}.", hint)
    if len(rows) and int(rows.labels.sizes.max()) > _MOST_CUIS:
        raise IndexProblem(f"Milvus keeps up to {_MOST_CUIS} CUIs of an image.", hint)


def entities(rows: Segment, first: int, places: Sequence[int]) -> list[dict[str, Any]]:
    """Some rows as entities.

    Args:
        rows: Of the index.
        first: Number of their first one in the index.
        places: Which of them.
    """
    content = rows.arrays.get(CONTENT)
    result = []
    for i in places:
        entity: dict[str, Any] = {
            "id": rows.ids[i],
            "row": first + i,
            "vector": rows.vectors[i],
            "cuis": list(rows.labels.row(i)),
        }
        entity |= {column: texts[i] for column, texts in rows.columns.items()}
        if content is not None:
            entity[CONTENT] = content[i].tobytes().hex()
        if THUMBNAIL_ENDS in rows.arrays:
            text = base64.b64encode(rows.picture(i)).decode("ascii")
            entity[THUMBNAIL] = text if len(text) <= _LONGEST_TEXT else ""
        result.append(entity)
    return result


def send_rows(
    server: Server, collection: str, rows: Segment, first: int, *, resumed: bool
) -> Iterator[int]:
    """Put rows into a collection, yielding how many each time; a row that is there stays single.

    Args:
        server: To talk to.
        collection: Of rows.
        rows: To be put there.
        first: Number of their first one.
        resumed: Some of them may be there already, from a run that was stopped.
    """
    size = 4 * rows.vectors.shape[1] + 512 + (8192 if THUMBNAIL_ENDS in rows.arrays else 0)
    step = max(1, min(_MOST_ROWS, _MESSAGE // size))
    for start in range(0, len(rows), step):
        places = list(range(start, min(start + step, len(rows))))
        there: set[str] = set()
        if resumed:
            wanted = {rows.ids[i]: first + i for i in places}
            found = rows_of(server, collection, list(wanted))
            there = {id_ for id_, row in found.items() if row == wanted[id_]}
        missing = [i for i in places if rows.ids[i] not in there]
        if missing:
            _send(server, collection, entities(rows, first, missing))
        yield len(places)


def _send(server: Server, collection: str, sent: list[dict[str, Any]]) -> None:
    tried = 0

    def send(client: Any, seconds: float) -> None:
        nonlocal tried
        tried += 1
        # Whether an attempt without an answer was done is not known: the next one replaces.
        method = client.insert if tried == 1 else client.upsert
        method(collection, sent, timeout=seconds)

    server.patiently(send)


def rows_of(server: Server, collection: str, ids: Sequence[str]) -> dict[str, int]:
    """Row number of those of the ids that are there."""
    return {e["id"]: e["row"] for e in get_entities(server, collection, ids, ["row"])}


def get_entities(
    server: Server, collection: str, ids: Sequence[str], fields: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Entities by their ids, those that are there, in no particular order."""
    for start in range(0, len(ids), _LISTED):
        some = json.dumps(list(ids[start : start + _LISTED]), ensure_ascii=False)
        yield from query(server, collection, f"id in {some}", ["id", *fields])


def query(
    server: Server, collection: str, condition: str, fields: Sequence[str]
) -> list[dict[str, Any]]:
    """Entities that meet a condition, as of now."""
    found: list[dict[str, Any]] = server.call(
        "query",
        collection,
        filter=condition,
        output_fields=list(fields),
        consistency_level="Strong",
    )
    return found


def count(server: Server, collection: str) -> int:
    """How many entities there are, as of now."""
    return int(query(server, collection, "", ["count(*)"])[0]["count(*)"])


def every_row(
    server: Server, collection: str, total: int, fields: Sequence[str], step: int = 4096
) -> Iterator[dict[str, Any]]:
    """All entities in the order of their numbers, of which `total` were given."""
    for start in range(0, total, step):
        condition = f"row >= {start} and row < {start + step}"
        some = query(server, collection, condition, ["id", "row", *fields])
        yield from sorted(some, key=lambda entity: (entity["row"], entity["id"]))


def table_of(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """CUIs of each entity."""
    return [list(entity["cuis"]) for entity in found]


def vectors_of(found: Sequence[Mapping[str, Any]], dim: int) -> NDArray[np.float32]:
    """float32[n, dim]."""
    return np.array([entity["vector"] for entity in found], np.float32).reshape(len(found), dim)
