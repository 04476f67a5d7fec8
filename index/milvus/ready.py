"""What comes after the rows were sent: the server's index over them, and how it is searched."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem, IndexUnreachable
from index.milvus.kinds import efforts, search_params
from index.milvus.server import Server
from index.progress import track
from index.search.flat import FlatIndex

_LOOK_S = 0.1
_LONG_S = 600.0  # for a flush, which waits for the server's disk
_PROBES, _K = 200, 50
_SAME = 1e-5  # similarities that the server and FAISS give for one pair of vectors differ by less


def make_ready(server: Server, collection: str, params: Mapping[str, Any], n: int) -> None:
    """See to it that all rows are on the server's disk, indexed and in its memory.

    Args:
        server: To talk to.
        collection: Of n rows.
        params: `kinds.build_params`.
        n: How many rows there are.

    Raises:
        IndexProblem: The server cannot make the index.
    """
    server.patiently(lambda client, seconds: client.flush(collection, timeout=_LONG_S))

    def create(client: Any, seconds: float) -> None:
        if not client.list_indexes(collection, timeout=seconds):
            wanted = client.prepare_index_params()
            wanted.add_index("vector", **params)
            client.create_index(collection, wanted, timeout=seconds, sync=False)

    server.patiently(create)
    for _ in track(_indexed(server, collection, n), total=n, label="Indexing"):
        pass
    wait_until_loaded(server, collection)


def wait_until_loaded(server: Server, collection: str) -> None:
    """Return when a collection is in the server's memory, however large it is."""
    while not server.patiently(lambda client, s: _is_loaded(client, s, collection)):
        time.sleep(_LOOK_S)


def open_rows(server: Server, collection: str) -> None:
    """See to it that rows can be searched, as far as the server's patience goes.

    Raises:
        IndexUnreachable: The server is still loading them.
    """

    def ask(client: Any, seconds: float) -> None:
        if not _is_loaded(client, seconds, collection):
            raise IndexUnreachable(
                f"{server.address} is still being loaded by its server.", "Try again later."
            )

    server.patiently(ask)


def _is_loaded(client: Any, seconds: float, collection: str) -> bool:
    """Whether rows are in the server's memory; if not, it is told to load them."""
    from pymilvus.client.types import LoadState

    state = client.get_load_state(collection, timeout=seconds)["state"]
    if state not in (LoadState.Loaded, LoadState.Loading):
        client.load_collection(collection, timeout=seconds, _async=True)
    return bool(state == LoadState.Loaded)


def tune_search(
    server: Server, collection: str, kind: str, vectors: NDArray[np.float32], target: float
) -> dict[str, Any]:
    """The least effort that finds the target share of the 50 nearest, on rows of the index.

    Args:
        server: To talk to.
        collection: Of the rows, loaded.
        kind: An approximate one.
        vectors: float32[n, dim], of the rows.
        target: Share of the 50 nearest.

    Returns:
        "params", "target_recall" and the "recall" that was found.
    """
    n = len(vectors)
    k = min(_K + 1, n)  # each finds itself, too
    rows = np.unique(np.linspace(0, n - 1, min(_PROBES, n)).astype(np.int64))
    queries = np.ascontiguousarray(vectors[rows])
    # By similarity, so that it does not matter which of several equal rows are found.
    least = FlatIndex(vectors).search(queries, k).similarities[:, -1] - _SAME
    chosen: dict[str, Any] = {}
    aim = target + 0.25 * (1 - target)  # new images are harder than these
    for params in efforts(kind, n):
        found = server.call(
            "search",
            collection,
            data=list(queries),
            limit=k,
            search_params=search_params(params, k),
            consistency_level="Bounded",
        )
        hits = sum(
            sum(hit["distance"] >= bound for hit in near)
            for near, bound in zip(found, least.tolist(), strict=True)
        )
        wanted = len(rows) * max(k - 1, 1)
        recall = min(1.0, (hits - len(rows) * min(1, k - 1)) / wanted)
        chosen = {"params": params, "target_recall": target, "recall": round(recall, 4)}
        if recall >= aim:
            break
    return chosen


def _indexed(server: Server, collection: str, n: int) -> Iterator[int]:
    """One item for each row that the server has indexed, until it has finished."""
    told = 0
    while True:
        (name,) = server.call("list_indexes", collection)
        found = server.call("describe_index", collection, index_name=name) or {}
        state = str(found.get("state", "Finished"))
        if state == "Failed":
            raise IndexProblem(
                f"{server.address.uri} cannot index the vectors: {found.get('reason', '')}",
                "Choose another --index-type.",
            )
        done = state == "Finished" and not int(found.get("pending_index_rows", 0))
        rows = n if done else min(n, int(found.get("indexed_rows", 0)))
        yield from range(told, rows)
        told = max(told, rows)
        if done:
            return
        time.sleep(_LOOK_S)
