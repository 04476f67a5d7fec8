"""Security headers, and orderly ends of connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NOTHING = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_API_POLICY = f"default-src 'none'; {_NOTHING}"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    f"connect-src 'self'; {_NOTHING}"
)
_DEFAULTS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": _API_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",  # answers may be about patients
}

_DRAIN_SECONDS = 2.0
_DRAIN_BYTES = 16 << 20


def add_safe_headers(headers: MutableHeaders) -> None:
    """Add missing security headers."""
    for name, value in _DEFAULTS.items():
        headers.setdefault(name, value)


class SafeHeaders:
    """Middleware: add missing security headers to each response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                add_safe_headers(MutableHeaders(scope=message))
            await send(message)

        await self._app(scope, receive, send_safely)


class CloseInDoubt:
    """Middleware: send `Connection: close` where a connection must not be used again.

    While the service drains, a client would send its next request on it, and lose it. After a
    request with both a Content-Length and a Transfer-Encoding, a proxy in front may take other
    bytes for its end than the service does (RFC 9112, 6.1).

    Args:
        app: The application behind it.
        draining: Whether the service drains.
    """

    def __init__(self, app: ASGIApp, draining: Callable[[], bool]) -> None:
        self._app = app
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        ambiguous = "content-length" in headers and "transfer-encoding" in headers

        async def closing_send(message: Message) -> None:
            if message["type"] == "http.response.start" and (ambiguous or self._draining()):
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, closing_send)


class DrainBody:
    """Middleware: discard the rest of a body after an early answer.

    Closing a connection with data still arriving resets it, and the client may lose an unread
    answer (such as 413 or 429). So the answer is sent at once, and up to 16 MiB or two seconds of
    the body are discarded before the connection is closed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

        async def watched_receive() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and bool(message.get("more_body"))
            return message

        async def draining_send(message: Message) -> None:
            if unread and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            if unread and message["type"] == "http.response.body" and not message.get("more_body"):
                await send({**message, "more_body": True})
                await _discard(receive)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self._app(scope, watched_receive, draining_send)


async def _discard(receive: Receive) -> None:
    left = _DRAIN_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body"):
                    return
