"""Rows of an index as entities of Milvus."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.milvus.server import Server
from index.progress import track
from index.segments import CONTENT, THUMBNAIL_ENDS, Segment

Level = Literal["Strong", "Bounded"]
_LONGEST_ID, _LONGEST_TEXT, _LONGEST_CUI, _MOST_CUIS = 512, 65535, 64, 1000
_MESSAGE = 8 * 2**20  # bytes
_MOST_ROWS = 2000  # in a message
_LISTED = 1000  # values in a condition
_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
THUMBNAIL, DIGEST = "thumbnail", "sha256"
# Number and CUIs in one text, for searches: pymilvus takes as long to read some fields of each
# neighbour, and longer to read an array, as the server to find it.
SUMMARY, SEPARATOR = "summary", ";"
_TAKEN = {"id", "row", "vector", "cuis", SUMMARY, CONTENT, THUMBNAIL, DIGEST}


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
    schema.add_field(SUMMARY, DataType.VARCHAR, max_length=_LONGEST_TEXT)
    for column in sorted(rows.columns):
        schema.add_field(column, DataType.VARCHAR, max_length=_LONGEST_TEXT)
    if CONTENT in rows.arrays:
        schema.add_field(CONTENT, DataType.VARCHAR, max_length=64)
    if THUMBNAIL_ENDS in rows.arrays:
        schema.add_field(THUMBNAIL, DataType.VARCHAR, max_length=_LONGEST_TEXT)
    schema.add_field(DIGEST, DataType.VARCHAR, max_length=64)
    client.create_collection(name, schema=schema, timeout=seconds)


def check_entities(rows: Segment) -> None:
    """Refuse rows that Milvus could not keep, before anything is sent.

    Raises:
        IndexProblem: Says which image.
    """
    hint = "Shorten it, or build the index in a folder."
    for column in rows.columns:
        if not _COLUMN.fullmatch(column) or column in _TAKEN:
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
    long = next((cui for cui in rows.labels.cuis if len(cui.encode()) > _LONGEST_CUI), None)
    if long is not None:
        raise IndexProblem(f"Milvus keeps CUIs of up to {_LONGEST_CUI} bytes, not {long!r}.", hint)
    split = next((cui for cui in rows.labels.cuis if SEPARATOR in cui), None)
    if split is not None:
        raise IndexProblem(f"{split!r} cannot be a CUI in Milvus: {SEPARATOR} separates them.")
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
        cuis = rows.labels.row(i)
        entity: dict[str, Any] = {
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


def read_summary(text: str) -> tuple[int, str]:
    """Number of an entity, and its CUIs in one text, ascending."""
    row, _, cuis = text.partition(SEPARATOR)
    return int(row), cuis


def fields_of(manifest: Mapping[str, Any]) -> list[str]:
    """All fields of an entity but its id and number."""
    own = [CONTENT] if manifest["content"] else []
    own += [THUMBNAIL] if manifest["thumbnails"] else []
    return ["vector", "cuis", SUMMARY, *manifest["columns"], *own, DIGEST]


def digest_of(entity: Mapping[str, Any]) -> str:
    """sha256 of everything that an entity holds."""
    others = {k: v for k, v in entity.items() if k not in ("vector", "cuis", DIGEST)}
    others["cuis"] = list(entity["cuis"])
    digest = hashlib.sha256(json.dumps(others, sort_keys=True).encode())
    digest.update(np.asarray(entity["vector"], "<f4").tobytes())
    return digest.hexdigest()


def send_all(server: Server, collection: str, rows: Segment, first: int, *, resumed: bool) -> None:
    """Put rows into a collection.

    Args:
        server: To talk to.
        collection: Of rows.
        rows: To be put there.
        first: Number of their first one.
        resumed: Some of them may be there already, from a run that was stopped; the collection has
            to be loaded then.
    """
    sent = _send_rows(server, collection, rows, first, resumed=resumed)
    for _ in track((i for many in sent for i in range(many)), total=len(rows), label="Sending"):
        pass


def settle(server: Server, collection: str, rows: Segment, first: int, *, expected: int) -> None:
    """See to it that a loaded collection has the rows that were sent, each once.

    Args:
        server: To talk to.
        collection: Of rows.
        rows: That were sent.
        first: Number of their first one.
        expected: How many the collection has to have.

    Raises:
        IndexProblem: It has another number of rows.
    """
    if count(server, collection) != expected:
        # A message whose answer was lost may have been worked on after it was sent again: the
        # server counts both, and shows one. Replacing deletes both.
        for places in messages(rows):
            _send(server, collection, entities(rows, first, places), over=True)
        check_count(server, collection, expected)


def _send_rows(
    server: Server, collection: str, rows: Segment, first: int, *, resumed: bool
) -> Iterator[int]:
    """Put rows into a collection, yielding how many each time; a row that is there stays single."""
    for places in messages(rows):
        there: dict[str, list[int]] = {}
        if resumed:
            there = rows_of(server, collection, [rows.ids[i] for i in places])
        missing = [i for i in places if there.get(rows.ids[i]) != [first + i]]
        if missing:
            _send(server, collection, entities(rows, first, missing), over=bool(there))
        yield len(places)


def messages(rows: Segment) -> Iterator[list[int]]:
    """Rows that go into a message together."""
    size = 4 * rows.vectors.shape[1] + 512 + (8192 if THUMBNAIL_ENDS in rows.arrays else 0)
    step = max(1, min(_MOST_ROWS, _MESSAGE // size))
    for start in range(0, len(rows), step):
        yield list(range(start, min(start + step, len(rows))))


def _send(server: Server, collection: str, sent: list[dict[str, Any]], *, over: bool) -> None:
    tried = 0

    def send(client: Any, seconds: float) -> None:
        nonlocal tried
        tried += 1
        # Whether an attempt without an answer was done is not known: the next one replaces.
        method = client.upsert if over or tried > 1 else client.insert
        method(collection, sent, timeout=seconds)

    server.patiently(send)


def delete_rows(server: Server, collection: str, rows: Sequence[int]) -> None:
    """Delete the entities with these numbers."""
    for condition in conditions("row", list(rows)):
        server.call("delete", collection, filter=condition)


def rows_of(server: Server, collection: str, ids: Sequence[str]) -> dict[str, list[int]]:
    """Row numbers of those of the ids that are there; one each, if all is well."""
    found: dict[str, list[int]] = defaultdict(list)
    for entity in get_entities(server, collection, ids, ["row"]):
        found[entity["id"]].append(entity["row"])
    return found


def conditions(field: str, values: Sequence[str] | Sequence[int]) -> Iterator[str]:
    """That a field has one of the values, as expressions of Milvus for some of them each."""
    for start in range(0, len(values), _LISTED):
        yield f"{field} in {json.dumps(values[start : start + _LISTED], ensure_ascii=False)}"


def get_entities(
    server: Server,
    collection: str,
    ids: Sequence[str],
    fields: Sequence[str],
    level: Level = "Strong",
) -> Iterator[dict[str, Any]]:
    """Entities by their ids, those that are there, in no particular order."""
    # One that is no UTF-8 cannot be there, and cannot be sent.
    known = [id_ for id_ in ids if not any("\ud800" <= c <= "\udfff" for c in id_)]
    for condition in conditions("id", known):
        yield from query(server, collection, condition, ["id", *fields], level)


def query(
    server: Server,
    collection: str,
    condition: str,
    fields: Sequence[str],
    level: Level = "Strong",
) -> list[dict[str, Any]]:
    """Entities that meet a condition, as of now; "Bounded": as of some seconds ago, and quicker."""
    found: list[dict[str, Any]] = server.call(
        "query",
        collection,
        filter=condition,
        output_fields=list(fields),
        consistency_level=level,
    )
    return found


def count(server: Server, collection: str) -> int:
    """How many entities there are, as of now."""
    return int(query(server, collection, "", ["count(*)"])[0]["count(*)"])


def check_count(server: Server, collection: str, expected: int) -> None:
    """That all changes have come into effect; also for readers who do not ask for the latest.

    Raises:
        IndexProblem: They have not.
    """
    found = count(server, collection)
    if found != expected:
        raise IndexProblem(
            f"{server.address} has {found} rows in {collection}, and {expected} were expected.",
            "Another process may be writing there. Run the same command again, then "
            "`annotator verify`.",
        )


def every_row(
    server: Server,
    collection: str,
    total: int,
    fields: Sequence[str],
    step: int = 4096,
    *,
    which: str = "",
) -> Iterator[dict[str, Any]]:
    """All entities in the order of their numbers, of which `total` were given.

    Args:
        server: To talk to.
        collection: Of rows.
        total: Numbers that were given.
        fields: Of the entities, beside id and row.
        step: Numbers that are asked for at once.
        which: A condition; "" for all.
    """
    for start in range(0, total, step):
        condition = f"row >= {start} and row < {min(start + step, total)}"
        condition += f" and {which}" if which else ""
        some = query(server, collection, condition, ["id", "row", *fields])
        yield from sorted(some, key=lambda entity: (entity["row"], entity["id"]))


def vectors_of(found: Sequence[Mapping[str, Any]], dim: int) -> NDArray[np.float32]:
    """float32[n, dim]."""
    return np.array([entity["vector"] for entity in found], np.float32).reshape(len(found), dim)
