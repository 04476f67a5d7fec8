"""Request ids, access log, metrics, and the answer to unexpected errors."""

from __future__ import annotations

import logging
import secrets
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.observability import Metrics, log
from service.problems import Problem, send_problem

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class RequestLogging:
    """Middleware: log and count each request; an exception is logged and answered with 500.

    Args:
        app: The application behind it.
        metrics: The counters.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        state = scope.setdefault("state", {})
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
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self._app(scope, counted_receive, marked_send)
        except Exception as error:
            log(logging.ERROR, "unexpected error", error, request_id=request_id)
            state["code"] = "internal_error"
            if status:
                raise  # the answer has begun: all that is left is to break it off
            problem = Problem(
                500,
                "internal_error",
                f"Something went wrong in the service (request {request_id}).",
                "Look for this request id in the service's log.",
            )
            await send_problem(problem, scope, receive, marked_send)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            # Templates such as /v1/neighbors/{id}/image, which hold nothing of the request.
            route = getattr(scope.get("route"), "path", "none")
            code = state.get("code", "ok" if 0 < status < 400 else f"http_{status}")
            self._metrics.requests.labels(method, route, status, code).inc()
            self._metrics.request_seconds.labels(route).observe(seconds)
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
            )
