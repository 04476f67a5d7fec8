"""Speaking to a Milvus server: with patience, and with errors that say what to do."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from index.distribution import pip_install
from index.errors import IndexProblem, IndexUnreachable
from index.milvus.address import TOKEN, Address

if TYPE_CHECKING:
    from pymilvus import MilvusClient

CALL_S = 30.0  # that one attempt takes at most,
_LEAST_S = 10.0  # and may take with any patience: slow is not away
_CONNECT_S = 3.0
_FIRST_S = 15.0  # for a server that was not reached before: its address may be wrong
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)
_OLDEST = (2, 3)

# Codes of Milvus 2.3 and later.
ABSENT = {100, 1600}  # collection, alias
_FULL = {3, 7, 9}  # memory, disk, writing is denied
_DENIED = {1400, 1401}
_NO_DATABASE = 800
# Not ready, unavailable, too many requests, rate limit; not loaded (yet); replicas, channels,
# segments and nodes that are being moved or recovered.
_PASSING = {1, 2, 4, 5, 8, 101, 103, 104, 201, 202, *range(400, 404), *range(500, 504)}
_PASSING |= {600, 601, 602, *range(901, 906)}
# What is said without a code of its own.
_FULL_WORDS = ("memory quota", "disk quota", "quota exceeded", "out of memory", "no space")
_DENIED_WORDS = ("permission den", "unauthenticated", "auth check failure")
_FOREIGN_WORDS = ("unimplemented", "illegal uri", "http1", "wrong_version_number", "wrong version")
_PASSING_WORDS = (
    "unavailable", "deadline exceeded", "fail connecting", "failed to connect", "timed out",
    "timeout", "not ready", "not healthy", "not loaded", "not initialized", "not assigned",
    "rate limit", "connection refused", "connection reset", "closed channel", "socket closed",
    "no available", "node not found", "shard leader", "channel distribution", "node offline",
    "retry run out", "channel closed", "channel not available", "deadline_exceeded", "cancelled",
)  # fmt: skip


class Absent(IndexProblem):
    """A collection or an alias that is not there."""


class Server:
    """A connection, and how long to be patient with it.

    Args:
        address: Of the index.
        patience: Seconds for which what goes by is tried again, from the first failure on.
    """

    def __init__(self, address: Address, patience: float) -> None:
        self.address = address
        self.patience = patience

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """What a method of `MilvusClient` returns, tried again while the server is away.

        Only for what may be done twice.

        Raises:
            IndexUnreachable: The server is away, or busy for longer than the patience.
            Absent: A collection or an alias is not there.
            IndexProblem: It refuses.
        """
        return self.patiently(lambda client, s: getattr(client, method)(*args, timeout=s, **kwargs))

    def patiently(self, work: Callable[[MilvusClient, float], Any]) -> Any:
        """The result of `work`, which gets a client and the seconds that a call may take.

        It is tried again after what goes by, so it has to bear being done twice.

        Raises:
            IndexUnreachable, Absent, IndexProblem: As `call`.
        """
        until: float | None = None
        tried = 0
        while True:
            try:
                seconds = min(CALL_S, max(self.patience, _LEAST_S))
                result = work(_client(self.address, seconds), seconds)
            except Exception as error:
                problem = _problem(error, self.address)
                if problem is None:
                    raise
                if not isinstance(problem, IndexUnreachable):
                    raise problem from error
                now = time.monotonic()
                reached = _key(self.address) in _CLIENTS
                until = until or now + (self.patience if reached else min(self.patience, _FIRST_S))
                pause = _PAUSES_S[min(tried, len(_PAUSES_S) - 1)]
                if now + pause > until:
                    if problem is error:
                        raise
                    raise problem from error
            else:
                return result
            time.sleep(pause)
            tried += 1


def _problem(error: Exception, address: Address) -> IndexProblem | None:
    """What went wrong between us and the server; None if it was something else."""
    if isinstance(error, IndexProblem):
        return error if isinstance(error, IndexUnreachable) else None
    import grpc
    from pymilvus.exceptions import MilvusException

    # gRPC raises a ValueError where another thread has just connected anew.
    closed = isinstance(error, ValueError) and "closed channel" in str(error)
    if closed or isinstance(error, (MilvusException, grpc.RpcError)):
        return explain(error, address)
    return None


def explain(error: Exception, address: Address) -> IndexProblem:
    """What an error of pymilvus or gRPC means to the user."""
    code = getattr(error, "code", 0)
    text = _text(error)
    lower = text.lower()
    if any(word in lower for word in _FOREIGN_WORDS):
        return IndexProblem(
            f"{address.uri} does not speak the protocol of Milvus: {text}",
            "Give the port of its gRPC interface (19530 by default), with milvus+https:// if, and "
            "only if, it speaks TLS.",
        )
    if code in ABSENT:
        return Absent(
            f"{address}: there is no such index: {text}",
            f"Build one: annotator build-index IMAGES CONCEPTS --index {address}",
        )
    if code == _NO_DATABASE:
        return IndexProblem(
            f"{address.uri} has no database {address.database}: {text}",
            "Check ?db=DATABASE, or make it on the server.",
        )
    if code in _DENIED or any(word in lower for word in _DENIED_WORDS):
        return IndexProblem(
            f"{address.uri} does not let us in: {text}",
            f"Put a token, or USER:PASSWORD, into the environment variable {TOKEN}.",
        )
    if code in _FULL or any(word in lower for word in _FULL_WORDS):
        return IndexUnreachable(
            f"{address.uri} is full: {text}",
            "Give the server more memory or disk; then run the same command again: it goes on.",
        )
    if code in _PASSING or any(word in lower for word in _PASSING_WORDS):
        return IndexUnreachable(
            f"{address.uri} does not answer: {text}",
            "Check that the server runs and can be reached; then run the same command again: what "
            "was done is not done twice.",
        )
    return IndexProblem(f"{address.uri} refuses: {text}", "Look into the server's log.")


def _text(error: BaseException) -> str:
    """What an error and what it comes from say, in one line."""
    said: list[str] = []
    link: BaseException | None = error
    while link is not None:
        text = str(getattr(link, "message", "") or link)
        if callable(getattr(link, "details", None)):  # of gRPC
            text = f"{link.code().name}: {link.details()}"  # type: ignore[attr-defined]
        said.append(" ".join(text.split()))
        # pymilvus raises errors "from" themselves, a chain without an end.
        link = link.__cause__ if link.__cause__ is not link else None
    # Of pymilvus for whatever went wrong, also a token; what comes after it says what it was.
    told = [text for text in said if text and not text.startswith("Fail connecting to server on")]
    return "; ".join(dict.fromkeys(told or said))[:500]


_LOCK = threading.Lock()
_CLIENTS: dict[tuple[str, str, str], MilvusClient] = {}


def _key(address: Address) -> tuple[str, str, str]:
    return (address.uri, address.token, address.database)


def _client(address: Address, seconds: float) -> MilvusClient:
    """One connection for all who speak to this server; it recovers by itself."""
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
                client.list_collections(timeout=seconds)  # fails where it is not there
            _CLIENTS[key] = client
        return _CLIENTS[key]


def _check_version(version: str, address: Address) -> None:
    """Refuse servers that lack what is needed."""
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
