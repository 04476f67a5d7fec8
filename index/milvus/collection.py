"""A collection of Milvus: queries, counts, deletion, indexing and loading."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from index.errors import IndexProblem, IndexUnreachable
from index.milvus.server import Server
from index.progress import track

Level = Literal["Strong", "Bounded"]
Entity = dict[str, Any]
_LISTED = 1000  # values in a condition
_POLL_S = 0.1
_FLUSH_S = 600.0  # for a flush, which waits for the server's disk


class Collection:
    """A collection on a server, which need not be there yet.

    Args:
        server: Where it is.
        name: Of the collection.
    """

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name

    def query(self, condition: str, fields: Sequence[str], level: Level = "Strong") -> list[Entity]:
        """Entities that meet a condition as of now; "Bounded": as of seconds ago, and quicker."""
        found: list[Entity] = self.server.call(
            "query",
            self.name,
            filter=condition,
            output_fields=list(fields),
            consistency_level=level,
        )
        return found

    def select(
        self,
        field: str,
        values: Sequence[str] | Sequence[int],
        fields: Sequence[str],
        level: Level = "Strong",
    ) -> Iterator[Entity]:
        """Entities with one of the values in a field, in no particular order."""
        for condition in _conditions(field, values):
            yield from self.query(condition, [field, *fields], level)

    def in_row_order(
        self, stored: int, fields: Sequence[str], *, where: str = "", step: int = 4096
    ) -> Iterator[Entity]:
        """Entities with row numbers below `stored` that meet a condition, by ascending number.

        `step` row numbers are asked for in one query.
        """
        for start in range(0, stored, step):
            condition = f"row >= {start} and row < {min(start + step, stored)}"
            condition += f" and {where}" if where else ""
            some = self.query(condition, ["id", "row", *fields])
            yield from sorted(some, key=lambda entity: (entity["row"], entity["id"]))

    def count(self) -> int:
        """Current number of entities."""
        return int(self.query("", ["count(*)"])[0]["count(*)"])

    def check_count(self, expected: int) -> None:
        """Check that all writes are visible, also to bounded-staleness readers.

        Raises:
            IndexProblem: There is another number of entities.
        """
        found = self.count()
        if found != expected:
            raise IndexProblem(
                f"{self.server.address} has {found} rows in {self.name}, and {expected} were "
                "expected.",
                "Another process may be writing there. Run the same command again, then "
                "`annotator verify`.",
            )

    def delete_rows(self, rows: Sequence[int]) -> None:
        """Delete the entities with these row numbers."""
        for condition in _conditions("row", rows):
            self.server.call("delete", self.name, filter=condition)

    def make_searchable(self, params: Mapping[str, Any], n: int) -> None:
        """Flush n entities to the server's disk, index their vectors by `params` and load them.

        Raises:
            IndexProblem: The server cannot build the index.
        """
        self.server.retry(lambda client, seconds: client.flush(self.name, timeout=_FLUSH_S))

        def create(client: Any, seconds: float) -> None:
            if not client.list_indexes(self.name, timeout=seconds):
                wanted = client.prepare_index_params()
                wanted.add_index("vector", **params)
                client.create_index(self.name, wanted, timeout=seconds, sync=False)

        self.server.retry(create)
        for _ in track(self._indexed(n), total=n, label="Indexing", unit="vectors"):
            pass
        self.wait_until_loaded()

    def _indexed(self, n: int) -> Iterator[None]:
        """Yield once for each entity that the server has indexed, until all are."""
        told, done = 0, False
        while not done:
            (index,) = self.server.call("list_indexes", self.name)
            found = self.server.call("describe_index", self.name, index_name=index) or {}
            state = str(found.get("state", "Finished"))
            if state == "Failed":
                uri, reason = self.server.address.uri, found.get("reason", "")
                raise IndexProblem(
                    f"{uri} cannot index the vectors: {reason}", "Choose another --index-type."
                )
            done = state == "Finished" and not int(found.get("pending_index_rows", 0))
            now = n if done else min(n, int(found.get("indexed_rows", 0)))
            yield from [None] * (now - told)
            told = max(told, now)
            if not done:
                time.sleep(_POLL_S)

    def wait_until_loaded(self) -> None:
        """Return when the collection is in the server's memory, however large it is."""
        while not self.server.retry(self._is_loaded):
            time.sleep(_POLL_S)

    def check_loaded(self) -> None:
        """Raise IndexUnreachable if it is not loaded within the server's patience."""

        def check(client: Any, seconds: float) -> None:
            if not self._is_loaded(client, seconds):
                raise IndexUnreachable(
                    f"{self.server.address} is still being loaded by its server.",
                    "Try again later.",
                )

        self.server.retry(check)

    def _is_loaded(self, client: Any, seconds: float) -> bool:
        """Return whether the server has loaded the collection; if not, start loading it."""
        from pymilvus.client.types import LoadState

        state = client.get_load_state(self.name, timeout=seconds)["state"]
        if state not in (LoadState.Loaded, LoadState.Loading):
            client.load_collection(self.name, timeout=seconds, _async=True)
        return bool(state == LoadState.Loaded)


def _conditions(field: str, values: Sequence[str] | Sequence[int]) -> Iterator[str]:
    """Expressions of Milvus that a field has one of the values, for some of them each."""
    # What is no UTF-8 cannot be sent, and cannot be there.
    known = [
        v for v in values if isinstance(v, int) or not any("\ud800" <= c <= "\udfff" for c in v)
    ]
    for start in range(0, len(known), _LISTED):
        yield f"{field} in {json.dumps(known[start : start + _LISTED], ensure_ascii=False)}"
