"""Headers on every answer, and reading what a refused request was still sending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NOTHING = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
API_POLICY = f"default-src 'none'; {_NOTHING}"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    f"connect-src 'self'; {_NOTHING}"
)
_DEFAULTS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": API_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",  # answers may be about patients
}

_LINGER_S = 2.0
_LINGER_BYTES = 16 << 20


def add_safe_headers(headers: MutableHeaders) -> None:
    """Add the security headers that are not there."""
    for name, value in _DEFAULTS.items():
        headers.setdefault(name, value)


class SafeHeaders:
    """Middleware: security headers, where the answer does not set them itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and complete its answer's headers."""

        async def complete(message: Message) -> None:
            if message["type"] == "http.response.start":
                add_safe_headers(MutableHeaders(scope=message))
            await send(message)

        await self._app(scope, receive, complete if scope["type"] == "http" else send)


class CloseAtTheEnd:
    """Middleware: while the service ends, say with each answer that its connection is closed.

    A client that is not told sends its next request on the connection, and loses it.

    Args:
        app: What is behind it.
        ending: Whether the service is ending.
    """

    def __init__(self, app: ASGIApp, ending: Callable[[], bool]) -> None:
        self._app = app
        self._ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def closing_send(message: Message) -> None:
            if message["type"] == "http.response.start" and self._ending():
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, closing_send)


class Linger:
    """Middleware: after an answer that came before the end of the request, read on for a while.

    Closing a connection on which data is still arriving resets it, and the client may then lose the
    answer (a 413 or 429) that it has not read yet. So the answer is sent at once and the rest of
    the body is thrown away, up to 16 MiB or two seconds, before the connection is closed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

        async def watched_receive() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and bool(message.get("more_body"))
            return message

        async def lingering_send(message: Message) -> None:
            if unread and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            if unread and message["type"] == "http.response.body" and not message.get("more_body"):
                await send({**message, "more_body": True})
                await _discard(receive)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self._app(scope, watched_receive, lingering_send)


async def _discard(receive: Receive) -> None:
    left = _LINGER_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body"):
                    return
