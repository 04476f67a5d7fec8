"""Limits on connections: their number, the time for headers and for taking answers, tiny chunks.

uvicorn takes a protocol class (`Config(http=...)`), but has no public hook for what is added here:
its `limit_concurrency` also refuses requests on connections that were there before, in plain text;
it has no deadline for headers, nor for clients that do not read; it reads on behind an answer that
is not taken; it drops clients that close their sending half; and it answers malformed requests in
plain text. So a subclass uses these attributes of `H11Protocol`: `app_state`, `conn`, `cycle`
(`response_started`, `response_complete`), `flow`, `loop`, `transport` and
`server_state.default_headers`, overrides `send_400_response` and `on_response_complete`, and
subclasses `FlowControl`. All of it is in this module; tests/service/test_attacks.py and
test_server.py fail where it does not fit the installed uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import h11
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.middleware.headers import add_safe_headers
from service.problems import Problem, send_problem

MAX_HEADER_BYTES = 32 << 10
#: Connections beyond the limit on which health checks are still answered.
RESERVE = 16
#: Connections that the system accepts for us before we do.
BACKLOG = 1024
#: Connections that are accepted before others are attended to again.
ACCEPTED_AT_ONCE = 16

_READ_AT_ONCE = 64 << 10  # bytes of a connection, before others are attended to again

_SPARE_DESCRIPTORS = 64  # for files of an index that is opened, and connections to its server
_LEAST_CONNECTIONS = 8
_LAST_SECONDS = 2.0  # to take an answer while the service stops
_LEFT_SECONDS = 0.1  # between looks at whether a client that sends no more is there at all
_STALLED_SECONDS = 1.0  # without taking anything: may be closed where others want to connect

# A chunk costs as much to parse as some hundred bytes. After this many, they must have this size.
_FREE_CHUNKS, _MEAN_CHUNK = 256, 256

_OVERFLOW = "overflow"  # in the state of a request: its connection exceeds the limit


class Connections:
    """The open connections, in the order in which they would be closed to make room.

    Room is made by closing the longest silent connection: one that never sent a request, or else
    one between two, or else one whose client does not take its answer.

    Args:
        limit: Connections with a request under way; on more, requests are refused. `RESERVE` more
            are kept, on which they are, and health checks answered.
        header_seconds: Time for the headers of a request; then the connection is closed.
        send_seconds: Time to take what was sent; then the connection is closed.
        closed: Called with the reason when a connection is closed for its client's behaviour.
    """

    def __init__(
        self,
        limit: int,
        header_seconds: float,
        send_seconds: float,
        closed: Callable[[str], object] = lambda reason: None,
    ) -> None:
        self.limit = limit
        self.header_seconds = header_seconds
        self.send_seconds = send_seconds
        self._closed = closed
        # Dictionaries as ordered sets.
        self._silent: dict[_Protocol, None] = {}
        self._idle: dict[_Protocol, None] = {}
        self._busy: dict[_Protocol, None] = {}
        self._unread: dict[_Protocol, float] = {}  # of any of these: since when

    def __len__(self) -> int:
        return len(self._silent) + len(self._idle) + len(self._busy)

    def protocol(self) -> type[H11Protocol]:
        """uvicorn's HTTP/1.1 protocol within these limits."""

        class LimitedProtocol(_Protocol):
            ours = self

        return LimitedProtocol

    def drain(self) -> None:
        """Close connections soon whose clients do not take their answers."""
        self.send_seconds = min(self.send_seconds, _LAST_SECONDS)
        for protocol in list(self._unread):
            protocol.watch_sending()

    def opened(self, protocol: _Protocol) -> None:
        """Count a new connection; room is made for it, or it is closed."""
        if len(self) >= self.limit + RESERVE and not self._make_room(protocol.loop.time()):
            self.close(protocol, "limit")
        else:
            self._silent[protocol] = None

    def has_room_for(self, protocol: _Protocol) -> bool:
        """Whether a request on this connection can be taken."""
        if protocol in self._busy or len(self._busy) < self.limit:
            return True
        return self._close_stalled(protocol.loop.time()) and len(self._busy) < self.limit

    def spoke(self, protocol: _Protocol) -> None:
        """A request has begun."""
        self._forget(protocol)
        self._busy[protocol] = None

    def answered(self, protocol: _Protocol) -> None:
        """The request was answered."""
        if protocol in self._busy:
            self._forget(protocol)
            self._idle[protocol] = None

    def unread(self, protocol: _Protocol, is_unread: bool) -> None:
        """Whether the client has yet to take something."""
        if is_unread:
            self._unread.setdefault(protocol, protocol.loop.time())
        else:
            self._unread.pop(protocol, None)

    def lost(self, protocol: _Protocol) -> None:
        """A connection has ended."""
        self._forget(protocol)
        self._unread.pop(protocol, None)

    def close(self, protocol: _Protocol, reason: str) -> None:
        """Close a connection at once, whatever is still to be sent."""
        self.lost(protocol)
        self._closed(reason)
        protocol.transport.abort()

    def _make_room(self, now: float) -> bool:
        for waiting in (self._silent, self._idle):
            if waiting:
                self.close(next(iter(waiting)), "room")
                return True
        return self._close_stalled(now)

    def _close_stalled(self, now: float) -> bool:
        for protocol, since in self._unread.items():
            if now - since > _STALLED_SECONDS:
                self.close(protocol, "unread")
                return True
            break
        return False

    def _forget(self, protocol: _Protocol) -> None:
        for group in (self._silent, self._idle, self._busy):
            group.pop(protocol, None)


class _Flow(FlowControl):
    """Reads nothing while a request is under way and another one has arrived behind it."""

    def __init__(self, transport: asyncio.Transport, conn: h11.Connection) -> None:
        super().__init__(transport)
        self._conn = conn

    def resume_reading(self) -> None:
        conn = self._conn
        under_way = conn.their_state is h11.DONE and conn.our_state is h11.SEND_RESPONSE
        under_way |= conn.their_state is h11.DONE and conn.our_state is h11.SEND_BODY
        if not (under_way and conn.trailing_data[0]):
            super().resume_reading()


class _Chunks(h11.Connection):
    """Refuses bodies in tiny chunks, which cost far more to parse than to send."""

    _pieces = _bytes = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._pieces += event.chunk_end
            self._bytes += len(event.data)
            if self._pieces > _FREE_CHUNKS and self._bytes < _MEAN_CHUNK * self._pieces:
                raise h11.RemoteProtocolError("tiny chunks")
        return event


class _Protocol(H11Protocol):
    ours: Connections
    header_timer: asyncio.TimerHandle | None = None
    send_timer: asyncio.TimerHandle | None = None
    left_timer: asyncio.TimerHandle | None = None
    half_closed = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app_state = dict(self.app_state)
        self.conn = _Chunks(h11.SERVER, MAX_HEADER_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # tells of all that is not taken at once
        # asyncio's own is 256 KiB: parsing those of each of several clients takes ten milliseconds.
        transport.max_size = _READ_AT_ONCE  # type: ignore[attr-defined]
        self.flow = _Flow(transport, self.conn)
        self.ours.opened(self)
        self.watch_headers()

    def data_received(self, data: bytes) -> None:
        self.app_state[_OVERFLOW] = not self.ours.has_room_for(self)
        super().data_received(data)
        self.watch_headers()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection for the answer to a complete request.

        A client that left has sent the same; it refuses the interim response, which one that
        still reads passes over (RFC 9110, 15.2.1).
        """
        self.half_closed = True
        if not self._waits_for_answer():
            return False
        if not self.cycle.response_started and self.scope["http_version"] == "1.1":
            interim = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            self.transport.write(self.conn.send(interim) or b"")
            self.left_timer = self.loop.call_later(_LEFT_SECONDS, self._look_if_left)
        return True

    def _look_if_left(self) -> None:
        """Close the connection if the interim response was refused; nothing is read any more."""
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        else:
            self.left_timer = self.loop.call_later(_LEFT_SECONDS, self._look_if_left)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.ours.lost(self)
        for timer in (self.header_timer, self.send_timer, self.left_timer):
            if timer is not None:
                timer.cancel()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        next_one = self._waits_for_answer(whole=False)  # which came with the last
        if not next_one:
            self.ours.answered(self)
        if self.half_closed and not (next_one and self._waits_for_answer()):
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.ours.unread(self, True)
        self.watch_sending()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.ours.unread(self, False)
        if self.send_timer is not None:
            self.send_timer.cancel()

    def watch_headers(self) -> None:
        if self.conn.their_state is not h11.IDLE:  # the headers are complete
            if self.header_timer is not None:
                self.header_timer.cancel()
                self.header_timer = None
            if self._waits_for_answer(whole=False):
                self.ours.spoke(self)
        elif self.header_timer is None:
            seconds = self.ours.header_seconds
            self.header_timer = self.loop.call_later(seconds, self.ours.close, self, "headers")

    def watch_sending(self) -> None:
        if self.send_timer is not None:
            self.send_timer.cancel()
        seconds = self.ours.send_seconds
        self.send_timer = self.loop.call_later(seconds, self.ours.close, self, "unread")

    def _waits_for_answer(self, whole: bool = True) -> bool:
        """Whether a request (a whole one, or its headers) is there and not answered."""
        if self.cycle is None or self.cycle.response_complete:
            return False
        return not (whole and self.cycle.more_body)

    def send_400_response(self, msg: str) -> None:
        answer = Problem(
            400,
            "malformed_request",
            "This is no HTTP/1.1 request, its headers have more than "
            f"{MAX_HEADER_BYTES} bytes, or its body comes in tiny chunks.",
            "Let an HTTP library write it, and use http://, not https://.",
            {"Connection": "close"},
        ).response()
        add_safe_headers(answer.headers)
        headers = [*self.server_state.default_headers, *answer.raw_headers]
        start = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        # h11 refuses where another answer has begun, and a body in answer to HEAD.
        with contextlib.suppress(h11.LocalProtocolError):
            for event in (start, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class ConnectionLimit:
    """Middleware: answer 503 to requests on connections beyond the limit, but to health checks.

    Args:
        app: The application behind it.
        answered: Paths that are answered all the same.
    """

    def __init__(self, app: ASGIApp, answered: Collection[str]) -> None:
        self._app = app
        self._answered = frozenset(answered)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope.get("state", {}).get(_OVERFLOW):
            await self._app(scope, receive, send)
            return

        async def closing_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        if scope["path"] in self._answered:
            await self._app(scope, receive, closing_send)
            return
        problem = Problem(
            503,
            "too_many_connections",
            "The service has as many connections as it keeps.",
            "Try again after a moment, and use few connections for many requests.",
            {"Retry-After": "1", "Connection": "close"},
        )
        await send_problem(problem, scope, receive, send)


def allowed_connections(wanted: int) -> int:
    """The limit on connections that the process's limit on descriptors allows.

    The soft limit (RLIMIT_NOFILE) is raised where it is too low, up to the hard limit.

    Args:
        wanted: The limit that was set.

    Returns:
        `wanted`, or less.
    """
    own = Path("/proc/self/fd")
    # Of those that are accepted, some are not counted yet.
    others = _SPARE_DESCRIPTORS + 8 * ACCEPTED_AT_ONCE + RESERVE
    others += len(list(own.iterdir())) if own.is_dir() else _SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < wanted + others:
        soft = wanted + others if hard == resource.RLIM_INFINITY else min(hard, wanted + others)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(_LEAST_CONNECTIONS, min(wanted, soft - others))
