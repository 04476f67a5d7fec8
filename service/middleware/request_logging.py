"""Request ids, access log, metrics, and the answer to unexpected errors."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Collection
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.observability import Metrics, log
from service.problems import Problem, send_problem
from service.tracing import Tracing, describe

# Ids of the usual kinds (UUIDs, ULIDs, hexadecimal ones); nothing that could be a name.
_PLAIN_ID = re.compile(r"(?=.*[0-9])[A-Za-z0-9-]{16,64}")
_TRACEPARENT = re.compile(
    r"00-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
)

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class RequestLogging:
    """Middleware: give each request an id, log and count it.

    The id is the client's X-Request-ID, if that is a plain one. A `traceparent` (W3C Trace Context)
    is answered with one of the same trace, and its ids are logged.

    Args:
        app: The application behind it.
        metrics: The counters.
        tracing: Makes spans of requests, but of those for `untraced` paths.
        untraced: Paths that machines ask for all the time.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        tracing: Tracing | None = None,
        untraced: Collection[str] = (),
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing or Tracing()
        self._nothing = Tracing()
        self._untraced = frozenset(untraced)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        tracing = self._nothing if scope["path"] in self._untraced else self._tracing
        with tracing.request(scope["method"], Headers(scope=scope).get("traceparent", "")) as span:
            await self._request(scope, receive, send, span)

    async def _request(self, scope: Scope, receive: Receive, send: Send, span: Any) -> None:
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        if not _PLAIN_ID.fullmatch(request_id):
            request_id = secrets.token_hex(8)
        trace, traceparent = _trace(headers.get("traceparent", ""), span)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        started = time.perf_counter()
        status = 0
        seconds = 0.0
        received = 0

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def marked_send(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], time.perf_counter() - started
                answered = MutableHeaders(scope=message)
                answered["X-Request-ID"] = request_id
                if traceparent:
                    answered["traceparent"] = traceparent
            await send(message)

        try:
            await self._app(scope, counted_receive, marked_send)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            # Templates such as /v1/neighbors/{id}/image, which hold nothing of the request.
            route = getattr(scope.get("route"), "path", "none")
            code = state.get("code", "ok" if 0 < status < 400 else f"http_{status}")
            self._metrics.requests.labels(method, route, status, code).inc()
            self._metrics.request_seconds.labels(route).observe(seconds)
            if span is not None:
                describe(span, method, route, status, code, state.get("images", 0))
            if status == 429:
                self._metrics.rejected.labels(code).inc()
            log(
                logging.INFO,
                "request",
                request_id=request_id,
                method=method,
                route=route,
                status=status,
                code=code,
                ms=round(seconds * 1000, 1),
                bytes=received,
                images=state.get("images", 0),
                **trace,
            )


def _trace(traceparent: str, span: Any) -> tuple[dict[str, Any], str]:
    """What is logged of a traceparent and a span, and the traceparent of the answer.

    There is nothing of a malformed one.
    """
    found = _TRACEPARENT.fullmatch(traceparent)
    logged = {}
    if found is not None and int(found["trace"], 16) and int(found["parent"], 16):
        logged = {"trace_id": found["trace"], "parent_id": found["parent"]}
        flags = found["flags"]
    if span is not None:
        context = span.get_span_context()
        trace_id, span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        logged |= {"trace_id": trace_id, "span_id": span_id}
        return logged, f"00-{trace_id}-{span_id}-{context.trace_flags:02x}"
    if not logged:
        return {}, ""
    logged["span_id"] = secrets.token_hex(8)
    return logged, f"00-{logged['trace_id']}-{logged['span_id']}-{flags}"


class UnexpectedErrors:
    """Middleware: an exception is logged, and answered with 500.

    Args:
        app: The application behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched_send(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            state = scope.setdefault("state", {})
            request_id = state.get("request_id", "")
            log(logging.ERROR, "unexpected error", error, request_id=request_id)
            state["code"] = "internal_error"
            if begun or scope["type"] != "http":
                raise  # all that is left is to break the answer off
            problem = Problem(
                500,
                "internal_error",
                f"Something went wrong in the service (request {request_id}).",
                "Look for this request id in the service's log.",
            )
            await send_problem(problem, scope, receive, send)
