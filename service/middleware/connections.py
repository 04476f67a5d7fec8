"""Limits on connections: their number, and the time for a request's headers.

uvicorn takes a protocol class (`Config(http=...)`), but has no public hook for what is added here:
its `limit_concurrency` also refuses requests on connections that were there before, in plain text;
it has no deadline for headers; and it answers malformed requests in plain text. So a subclass uses
these attributes of `H11Protocol`: `app_state`, `conn`, `connections`, `loop`, `transport`,
`server_state.default_headers`, and overrides `send_400_response`. They are the same in uvicorn 0.34
and 0.54 (read for this); tests/service/test_server.py fails where they are not.
"""

from __future__ import annotations

import asyncio
import contextlib

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.middleware.headers import add_safe_headers
from service.problems import Problem, send_problem

MAX_HEADER_BYTES = 32 << 10

_OVERFLOW = "overflow"  # in the state of a request: its connection exceeds the limit


def limited_protocol(header_seconds: float, max_connections: int) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 protocol with limits.

    Args:
        header_seconds: Time limit for the headers of a request; then the connection is closed.
        max_connections: Limit above which `ConnectionLimit` refuses requests.
    """

    class LimitedProtocol(H11Protocol):
        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > max_connections:
                self.app_state = {**self.app_state, _OVERFLOW: True}
            self.watch_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.watch_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self.stop_timer()

        def watch_headers(self) -> None:
            if self.conn.their_state is not h11.IDLE:  # the headers are complete
                self.stop_timer()
            elif self.timer is None:
                self.timer = self.loop.call_later(header_seconds, self.transport.close)

        def stop_timer(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def send_400_response(self, msg: str) -> None:
            answer = Problem(
                400,
                "malformed_request",
                "This is no HTTP/1.1 request, or its headers have more than "
                f"{MAX_HEADER_BYTES} bytes.",
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

    return LimitedProtocol


class ConnectionLimit:
    """Middleware: answer 503 to requests on connections beyond the limit."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope.get("state", {}).get(_OVERFLOW):
            await self._app(scope, receive, send)
            return
        problem = Problem(
            503,
            "too_many_connections",
            "The service has as many connections as it keeps.",
            "Try again after a moment, and use few connections for many requests.",
            {"Retry-After": "1", "Connection": "close"},
        )
        await send_problem(problem, scope, receive, send)
