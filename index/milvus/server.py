"""Connections to Milvus servers: retries of transient errors, and errors that say what to do."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from index.distribution import pip_install
from index.errors import IndexProblem, IndexUnreachable
from index.milvus.address import TOKEN, Address

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_CALL_S = 30.0  # time-out of one attempt,
_LEAST_CALL_S = 10.0  # which is not shortened further by little patience: slow is not away
_CONNECT_S = 3.0
_FIRST_S = 15.0  # patience with a server that was never reached: its address may be wrong
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)
_OLDEST = (2, 3)

# Error codes of Milvus 2.3 and later.
ABSENT = (100, 1600)  # collection, alias
# Not ready, unavailable, too many requests, rate limit; not loaded (yet); replicas, channels,
# segments and nodes that are being moved or recovered.
_TRANSIENT = (
    1, 2, 4, 5, 8, 101, 103, 104, 201, 202, 400, 401, 402, 403, 500, 501, 502, 503, 600, 601, 602,
    901, 902, 903, 904, 905,
)  # fmt: skip
_TRANSIENT_WORDS = (
    "unavailable", "deadline exceeded", "fail connecting", "failed to connect", "timed out",
    "timeout", "not ready", "not healthy", "not loaded", "not initialized", "not assigned",
    "rate limit", "connection refused", "connection reset", "closed channel", "socket closed",
    "no available", "node not found", "shard leader", "channel distribution", "node offline",
    "retry run out", "channel closed", "channel not available", "deadline_exceeded", "cancelled",
)  # fmt: skip


class Absent(IndexProblem):
    """A collection or an alias that is not there."""


class _Meaning(NamedTuple):
    """The meaning of errors with some codes, or with some words in lower case."""

    codes: Collection[int]
    words: Collection[str]
    error: type[IndexProblem]
    message: str
    hint: str


_MEANINGS = (
    _Meaning(
        (),
        ("unimplemented", "illegal uri", "http1", "wrong_version_number", "wrong version"),
        IndexProblem,
        "{address.uri} does not speak the protocol of Milvus",
        "Give the port of its gRPC interface (19530 by default), with milvus+https:// if, and only "
        "if, it speaks TLS.",
    ),
    _Meaning(
        ABSENT,
        (),
        Absent,
        "{address}: there is no such index",
        "Build one: annotator build-index IMAGES CONCEPTS --index {address}",
    ),
    _Meaning(
        (800,),
        (),
        IndexProblem,
        "{address.uri} has no database {address.database}",
        "Check ?db=DATABASE, or make it on the server.",
    ),
    _Meaning(
        (1400, 1401),
        ("permission den", "unauthenticated", "auth check failure"),
        IndexProblem,
        "{address.uri} denied access",
        f"Put a token, or USER:PASSWORD, into the environment variable {TOKEN}.",
    ),
    _Meaning(
        (3, 7, 9),  # memory, disk, writing is denied
        ("memory quota", "disk quota", "quota exceeded", "out of memory", "no space"),
        IndexUnreachable,
        "{address.uri} is full",
        "Give the server more memory or disk; then run the same command again: it goes on.",
    ),
    _Meaning(
        _TRANSIENT,
        _TRANSIENT_WORDS,
        IndexUnreachable,
        "{address.uri} does not answer",
        "Check that the server runs and can be reached; then run the same command again: what was "
        "done is not done twice.",
    ),
)


class Server:
    """Calls to a Milvus server, with retries.

    Args:
        address: Address of the index.
        patience: Seconds for which transient errors are retried, from the first one on.
    """

    def __init__(self, address: Address, patience: float) -> None:
        self.address = address
        self.patience = patience

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of `MilvusClient` that is idempotent; raises as `retry`."""
        return self.retry(lambda client, s: getattr(client, method)(*args, timeout=s, **kwargs))

    def retry(self, work: Callable[[MilvusClient, float], Any]) -> Any:
        """Return the result of `work`, called again after transient errors.

        Args:
            work: Gets a client and the seconds that a call may take. Has to be idempotent.

        Raises:
            IndexUnreachable: The server is away, busy or full for longer than the patience.
            Absent: A collection or an alias is not there.
            IndexProblem: The server refuses.
        """
        until: float | None = None
        tried = 0
        while True:
            try:
                seconds = min(_CALL_S, max(self.patience, _LEAST_CALL_S))
                return work(_client(self.address, seconds), seconds)
            except Exception as error:
                problem = _problem(error, self.address)
                if problem is None:
                    raise
                now = time.monotonic()
                reached = _key(self.address) in _CLIENTS
                until = until or now + (self.patience if reached else min(self.patience, _FIRST_S))
                pause = _PAUSES_S[min(tried, len(_PAUSES_S) - 1)]
                if not isinstance(problem, IndexUnreachable) or now + pause > until:
                    raise problem from (None if problem is error else error)
            time.sleep(pause)
            tried += 1


def _problem(error: Exception, address: Address) -> IndexProblem | None:
    """Translate an error of the connection; None for other errors, which are not to be retried."""
    if isinstance(error, IndexProblem):
        return error if isinstance(error, IndexUnreachable) else None
    import grpc
    from pymilvus.exceptions import MilvusException

    # gRPC raises a ValueError where another thread has just reconnected.
    closed = isinstance(error, ValueError) and "closed channel" in str(error)
    if closed or isinstance(error, (MilvusException, grpc.RpcError)):
        return explain(error, address)
    return None


def explain(error: Exception, address: Address) -> IndexProblem:
    """Translate an error of pymilvus or gRPC for the user."""
    code, text = getattr(error, "code", 0), _text(error)
    for meaning in _MEANINGS:
        if code in meaning.codes or any(word in text.lower() for word in meaning.words):
            message = meaning.message.format(address=address)
            return meaning.error(f"{message}: {text}", meaning.hint.format(address=address))
    return IndexProblem(f"{address.uri} refuses: {text}", "Look into the server's log.")


def _text(error: BaseException) -> str:
    """The messages of an error and of its causes, in one line."""
    said: list[str] = []
    link: BaseException | None = error
    while link is not None:
        text = str(getattr(link, "message", "") or link)
        if callable(getattr(link, "details", None)):  # of gRPC
            text = f"{link.code().name}: {link.details()}"  # type: ignore[attr-defined]
        said.append(" ".join(text.split()))
        # pymilvus raises errors "from" themselves, a chain without an end.
        link = link.__cause__ if link.__cause__ is not link else None
    # pymilvus says this of any failure, also of a wrong token; the cause says which it was.
    told = [text for text in said if text and not text.startswith("Fail connecting to server on")]
    return "; ".join(dict.fromkeys(told or said))[:500]


_LOCK = threading.Lock()
_CLIENTS: dict[tuple[str, str, str], MilvusClient] = {}


def _key(address: Address) -> tuple[str, str, str]:
    return (address.uri, address.token, address.database)


def _client(address: Address, seconds: float) -> MilvusClient:
    """The connection of this process to a server; it recovers by itself."""
    key = _key(address)
    if key in _CLIENTS:
        return _CLIENTS[key]
    make = _library()
    with _LOCK:
        if key not in _CLIENTS:
            client = make(
                uri=address.uri,
                token=address.token,
                db_name=address.database,
                timeout=min(_CONNECT_S, seconds),
            )
            _check_version(str(client.get_server_version(timeout=seconds)), address)
            if address.database:
                client.list_collections(timeout=seconds)  # fails if there is no such database
            _CLIENTS[key] = client
        return _CLIENTS[key]


def _check_version(version: str, address: Address) -> None:
    numbers = version.lower().removeprefix("v").split(".")[:2]
    if all(number.isdigit() for number in numbers) and tuple(map(int, numbers)) < _OLDEST:
        raise IndexProblem(
            f"{address.uri} is Milvus {version}; at least {'.'.join(map(str, _OLDEST))} is needed.",
            "Update the server.",
        )


@cache
def _library() -> type[MilvusClient]:
    # gRPC would write to stderr what its errors say.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from pymilvus import MilvusClient
    except ModuleNotFoundError as error:
        raise IndexProblem(
            "An index in Milvus needs the package pymilvus, which is not installed.",
            pip_install("milvus"),
        ) from error
    # It logs every error with a traceback, also those that are handled.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    library: type[MilvusClient] = MilvusClient
    return library
