"""A small HTTP/1.1 client, cheap enough to load a server on the same cores."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle

NO_ANSWER = 0  # the connection ended before the answer did, or there was none to send it on

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.I)

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a request.

    Attributes:
        due: When it was to be sent, by `time.perf_counter`.
        seconds: From then to the end of the answer.
        status: Of the answer, or `NO_ANSWER`.
    """

    due: float
    seconds: float
    status: int


def request(method: str, path: str, headers: Sequence[str] = (), body: bytes = b"") -> bytes:
    """A request as it goes over the wire."""
    first = f"{method} {path} HTTP/1.1"
    lines = [first, "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def post(path: str, headers: Sequence[str] = (), body: bytes = b"") -> bytes:
    """A POST as it goes over the wire."""
    return request("POST", path, headers, body)


def image_request(image: bytes, headers: Sequence[str] = ()) -> bytes:
    """`POST /v1/annotate` with an image as its body."""
    return post("/v1/annotate", ("Content-Type: application/octet-stream", *headers), image)


class Connection:
    """A connection that is kept between requests, and made again when it was closed."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer; of none, `NO_ANSWER` and nothing."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(*self._address, limit=1 << 20)
            reader, writer = self._streams
            # A server that refuses a body may close before all of it is sent; the answer counts.
            with suppress(ConnectionError):
                writer.write(request)
                await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1]) if length else 0)
        except (asyncio.IncompleteReadError, OSError):
            self.close()
            return NO_ANSWER, b""
        if _CLOSE.search(head):
            self.close()
        return int(head[9:12]), body

    def close(self) -> None:
        """Close it, if it is open."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def closed_loop(
    address: Address,
    requests: Sequence[bytes],
    clients: int,
    *,
    n: int | None = None,
    until: asyncio.Event | None = None,
    seen: Callable[[int, bytes], None] | None = None,
) -> list[Reply]:
    """Clients that send their next request when the last was answered.

    Args:
        address: Host and port.
        requests: Taken in turns.
        clients: How many at once.
        n: Requests in all; None for no end but `until`.
        until: Set to end it.
        seen: Called with status and body of each answer.

    Returns:
        The replies in the order in which they ended.
    """
    replies: list[Reply] = []
    turns: Iterator[bytes] = cycle(requests)
    left = n if n is not None else -1

    async def client() -> None:
        nonlocal left
        connection = Connection(address)
        while left and not (until is not None and until.is_set()):
            left -= 1
            due = time.perf_counter()
            status, body = await connection.ask(next(turns))
            replies.append(Reply(due, time.perf_counter() - due, status))
            if seen is not None:
                seen(status, body)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return replies


async def open_loop(
    address: Address, requests: Sequence[bytes], rate: float, seconds: float, connections: int
) -> tuple[list[Reply], int]:
    """Requests that come when they come, whatever became of those before.

    Args:
        address: Host and port.
        requests: Taken in turns.
        rate: Requests a second.
        seconds: How long.
        connections: Most at once; what would need more is not sent.

    Returns:
        The replies, timed from when each request was due, and how many were not sent.
    """
    idle = [Connection(address) for _ in range(connections)]
    turns: Iterator[bytes] = cycle(requests)
    replies: list[Reply] = []
    running: set[asyncio.Task[None]] = set()
    unsent = 0

    async def one(connection: Connection, due: float) -> None:
        status, _ = await connection.ask(next(turns))
        replies.append(Reply(due, time.perf_counter() - due, status))
        idle.append(connection)

    started = time.perf_counter()
    for number in range(round(rate * seconds)):
        due = started + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        elif number % 16 == 0:
            await asyncio.sleep(0)  # late: let answers come in between
        if idle:
            task = asyncio.create_task(one(idle.pop(), due))
            running.add(task)
            task.add_done_callback(running.discard)
        else:
            unsent += 1
    await asyncio.gather(*running)
    for connection in idle:
        connection.close()
    return replies, unsent


def quantile(seconds: Sequence[float], part: float) -> float:
    """In milliseconds, the smallest value that `part` of all do not exceed."""
    ordered = sorted(seconds)
    return round(ordered[max(0, math.ceil(part * len(ordered)) - 1)] * 1000, 3)


def statuses(replies: Sequence[Reply]) -> dict[str, int]:
    """How many had each status."""
    counts = Counter(reply.status for reply in replies)
    return {str(status or "no_answer"): counts[status] for status in sorted(counts)}


def answered(replies: Sequence[Reply]) -> list[float]:
    """Seconds of those that succeeded.

    Raises:
        SystemExit: None did.
    """
    seconds = [reply.seconds for reply in replies if reply.status == 200]
    if not seconds:
        raise SystemExit(f"no request succeeded: {statuses(replies)}")
    return seconds
