"""Admission control: limits on unfinished work, checked before any of it is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.problems import busy


class Admission:
    """Counts the images and body bytes of unfinished requests.

    Args:
        max_images: Limit on images; a request counts as one until its number of images is known.
        max_bytes: Limit on the bytes of request bodies.
    """

    def __init__(self, max_images: int, max_bytes: int) -> None:
        self._max_images = max_images
        self._max_bytes = max_bytes
        self.images = 0
        self.bytes = 0

    @contextmanager
    def enter(self, announced: int = 0) -> Iterator[Ticket]:
        """Admit a request for the duration of the block.

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
        """Add to the counts.

        Raises:
            Problem: 429, there is no room.
        """
        if self.images + images > self._max_images:
            raise busy("The service has as many images under way as it accepts.")
        if self.bytes + size > self._max_bytes:
            raise busy("The service has as much data under way as it accepts.")
        self.images += images
        self.bytes += size


class Ticket:
    """The share of one request in an `Admission`."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.images = 0
        self.bytes = 0

    def hold(self, *, images: int = 0, size: int = 0) -> None:
        """Raise the share to at least this many images and bytes.

        Raises:
            Problem: 429, there is no room for the increase.
        """
        more_images, more_bytes = max(0, images - self.images), max(0, size - self.bytes)
        self._admission.take(more_images, more_bytes)
        self.images += more_images
        self.bytes += more_bytes
