"""How long work tells that it is going on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Wraps an iterable and reports, on the way, how far it is."""

    def __call__(self, items: Iterable[T], *, total: int, label: str) -> Iterable[T]:
        """Pass `items` through, saying what (`label`) is how far of `total`."""
        ...


def silent(items: Iterable[T], *, total: int, label: str) -> Iterable[T]:
    """No report: the default of the Python API."""
    return items
