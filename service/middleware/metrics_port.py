"""Metrics on a port of their own, for those who watch the service and do not use it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.observability import METRICS_TYPE
from service.problems import Problem, send_problem


class MetricsPort:
    """Middleware: on one port, answer GET /metrics without a key, and nothing else.

    Args:
        app: The application behind it, for the other ports.
        port: The port.
        render: Makes what is shown.
    """

    def __init__(self, app: ASGIApp, port: int, render: Callable[[], Awaitable[bytes]]) -> None:
        self._app = app
        self._port = port
        self._render = render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The address is that of the socket, not what the request says.
        if scope["type"] != "http" or (scope.get("server") or ("", None))[1] != self._port:
            await self._app(scope, receive, send)
        elif scope["path"] == "/metrics" and scope["method"] in ("GET", "HEAD"):
            answer = Response(await self._render(), media_type=METRICS_TYPE)
            await answer(scope, receive, send)
        else:
            hint = "GET /metrics is all that this port answers."
            await send_problem(
                Problem(404, "not_found", "There is nothing here.", hint), scope, receive, send
            )
