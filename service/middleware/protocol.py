"""HTTP/1.1 on a connection: uvicorn's, with a deadline for headers and answers like all others."""

from __future__ import annotations

import asyncio
import contextlib

import h11
from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.middleware.admission import OVERFLOW
from service.middleware.headers import add_safe_headers
from service.problems import Problem

MAX_HEADER_BYTES = 32 << 10


def http_protocol(header_seconds: float, max_connections: int) -> type[H11Protocol]:
    """uvicorn's protocol with limits.

    Args:
        header_seconds: A connection on which a request's headers take longer is closed.
        max_connections: Requests on a connection more than these are marked as `OVERFLOW`.
    """

    class Protocol(H11Protocol):
        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > max_connections:
                self.app_state = {**self.app_state, OVERFLOW: True}
            self.watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self.stop()

        def send_400_response(self, msg: str) -> None:
            answer = _malformed()
            headers = [*self.server_state.default_headers, *answer.raw_headers]
            start = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            # It cannot be sent where another answer has begun, or to HEAD.
            with contextlib.suppress(h11.LocalProtocolError):
                for event in (start, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def watch(self) -> None:
            if self.conn.their_state is not h11.IDLE:
                self.stop()
            elif self.timer is None:
                self.timer = self.loop.call_later(header_seconds, self.transport.close)

        def stop(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

    return Protocol


def _malformed() -> Response:
    answer = Problem(
        400,
        "malformed_request",
        f"This is no HTTP/1.1 request, or its headers have more than {MAX_HEADER_BYTES} bytes.",
        "Let an HTTP library write it, and use http://, not https://.",
        {"Connection": "close"},
    ).response()
    add_safe_headers(answer.headers)
    return answer
