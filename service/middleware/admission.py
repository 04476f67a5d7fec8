"""How much may be under way at once. What is over it is refused before it costs anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import Problem, busy, send_problem

#: In the state of a request: it came on a connection that is one too many.
OVERFLOW = "overflow"


class Admission:
    """Counts images and bytes that were accepted and are not finished.

    Args:
        max_images: Most images; a request counts as one until it is known how many it holds.
        max_bytes: Most bytes of request bodies.
    """

    def __init__(self, max_images: int, max_bytes: int) -> None:
        self._max_images = max_images
        self._max_bytes = max_bytes
        self.images = 0
        self.bytes = 0

    @contextmanager
    def enter(self, announced: int = 0) -> Iterator[Ticket]:
        """Admit a request, and forget it when it is done.

        Args:
            announced: Its Content-Length, or 0.

        Raises:
            Problem: 429, there is no room.
        """
        ticket = Ticket(self)
        try:
            ticket.hold(images=1, size=announced)
            yield ticket
        finally:
            self.images -= ticket.images
            self.bytes -= ticket.bytes

    def take(self, images: int, size: int) -> None:
        """Count them in; see `enter`."""
        if self.images + images > self._max_images:
            raise busy("The service has as many images under way as it accepts.")
        if self.bytes + size > self._max_bytes:
            raise busy("The service has as much data under way as it accepts.")
        self.images += images
        self.bytes += size


class Ticket:
    """What one request holds of an `Admission`."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.images = 0
        self.bytes = 0

    def hold(self, *, images: int = 0, size: int = 0) -> None:
        """Hold at least so many images and bytes in all.

        Raises:
            Problem: 429, there is no room for what is more than before.
        """
        more_images, more_bytes = max(0, images - self.images), max(0, size - self.bytes)
        self._admission.take(more_images, more_bytes)
        self.images += more_images
        self.bytes += more_bytes


class RefuseOverflow:
    """Middleware: answer 503 to a request that came on a connection too many."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if not scope.get("state", {}).get(OVERFLOW):
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
