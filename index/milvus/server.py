"""Speaking to a Milvus server: with patience, and with errors that say what to do."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from index.errors import IndexProblem, IndexUnreachable
from index.milvus.address import TOKEN, Address

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_CALL_S = 30.0  # that one attempt takes at most
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)

# What a server says while it starts, recovers or is out of breath; by and by it goes away.
_PASSING = (
    "unavailable", "deadline exceeded", "failed to connect", "fail connecting", "not loaded",
    "no available", "node not found", "not ready", "notreadyserve", "channel not available",
    "channel closed", "service not ready", "service not healthy", "is not healthy", "timed out",
    "timeout", "rate limit", "connection refused", "connection reset", "socket closed",
    "shard leader", "node offline", "not assigned", "channel distribution", "retry run out",
    "find no available", "load segment", "closed channel", "rpc error", "not initialized",
)  # fmt: skip
_FULL = ("memory quota", "disk quota", "quota exceeded", "out of memory", "no space")
_DENIED = ("permission deny", "permission denied", "unauthenticated", "auth check failure")
_ABSENT = ("collection not found", "can't find collection", "alias not found", "not exist")


class Server:
    """A connection, and how long to be patient with it.

    Args:
        address: Of the index.
        patience: Seconds for which what goes by is tried again.
    """

    def __init__(self, address: Address, patience: float) -> None:
        self.address = address
        self.patience = patience

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """What a method of `MilvusClient` returns, tried again while the server is away.

        Only for what may be done twice.

        Raises:
            IndexUnreachable: The server is away, or busy for longer than the patience.
            IndexProblem: It refuses.
        """
        return self.patiently(lambda client, s: getattr(client, method)(*args, timeout=s, **kwargs))

    def patiently(self, work: Callable[[MilvusClient, float], Any]) -> Any:
        """The result of `work`, which gets a client and the seconds that a call may take."""
        until = time.monotonic() + self.patience
        tried = 0
        while True:
            left = until - time.monotonic()
            try:
                client = _client(self.address)
                return work(client, max(min(_CALL_S, left), 1.0))
            except Exception as error:
                if not _is_server_error(error):
                    raise
                problem = explain(error, self.address)
                pause = _PAUSES_S[min(tried, len(_PAUSES_S) - 1)]
                if not isinstance(problem, IndexUnreachable) or pause > left:
                    raise problem from error
                _forget(self.address)
            time.sleep(pause)
            tried += 1


def explain(error: Exception, address: Address) -> IndexProblem:
    """What an error of pymilvus means to the user."""
    text = " ".join(str(getattr(error, "message", "") or error).split())
    lower = text.lower()
    if "unimplemented" in lower or "illegal uri" in lower:
        return IndexProblem(
            f"{address.uri} does not speak the protocol of Milvus.",
            "Give the port of its gRPC interface (19530 by default).",
        )
    if any(word in lower for word in _DENIED):
        return IndexProblem(
            f"{address.uri} does not let us in: {text}",
            f"Put a token, or USER:PASSWORD, into the environment variable {TOKEN}.",
        )
    if any(word in lower for word in _FULL):
        return IndexUnreachable(
            f"{address.uri} is full: {text}",
            "Give the server more memory or disk; then run the same command again: it goes on.",
        )
    if any(word in lower for word in _ABSENT):
        return IndexProblem(
            f"{address}: there is no such index: {text}",
            "Build one: annotator build-index IMAGES CONCEPTS --index " + str(address),
        )
    if any(word in lower for word in _PASSING) or type(error).__module__.startswith("grpc"):
        return IndexUnreachable(
            f"{address.uri} does not answer: {text}",
            "Check that the server runs and can be reached; then run the same command again: what "
            "was done is not done twice.",
        )
    return IndexProblem(f"{address.uri} refuses: {text}", "Look into the server's log.")


def _is_server_error(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in ("pymilvus", "grpc") and not isinstance(
        error, TypeError
    )


_LOCK = threading.Lock()
_CLIENTS: dict[Address, MilvusClient] = {}


def _client(address: Address) -> MilvusClient:
    """One connection for all who speak to this server."""
    with _LOCK:
        if address not in _CLIENTS:
            make = _library()
            _CLIENTS[address] = make(
                uri=address.uri, token=address.token, db_name=address.database, timeout=5
            )
        return _CLIENTS[address]


def _forget(address: Address) -> None:
    """Connect anew next time; a connection that broke does not always recover by itself."""
    with _LOCK:
        client = _CLIENTS.pop(address, None)
    if client is not None:
        client.close()


@cache
def _library() -> type[MilvusClient]:
    try:
        from pymilvus import MilvusClient
    except ModuleNotFoundError as error:
        raise IndexProblem(
            "An index in Milvus needs the package pymilvus, which is not installed.",
            'pip install "annotator[milvus]"',
        ) from error
    # It logs every error with a traceback, also those that are handled.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    library: type[MilvusClient] = MilvusClient
    return library
