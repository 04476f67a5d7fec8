"""How long work tells that it is going on, for people at a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from index.progress import Progress, silent

__all__ = ["Progress", "bar", "silent"]

T = TypeVar("T")


def bar(items: Iterable[T], *, total: int, label: str) -> Iterable[T]:
    """A bar with rate and time left on stderr, for anything that takes over a second."""
    from tqdm import tqdm

    return tqdm(items, total=total, desc=label, unit=" images", delay=1, dynamic_ncols=True)
