"""Progress reporting: loops call `track`, and a front end decides what is shown."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Reporter(Protocol):
    """Passes an iterable through and reports how far it is."""

    def __call__(self, items: Iterable[T], *, total: int, label: str) -> Iterable[T]:
        """Yield `items`, reporting under `label` how many of `total` have passed."""
        ...


def silent(items: Iterable[T], *, total: int, label: str) -> Iterable[T]:
    """Report nothing, the default."""
    return items


def bar(items: Iterable[T], *, total: int, label: str) -> Iterable[T]:
    """A bar with rate and time left on stderr, for anything that takes over a second."""
    from tqdm import tqdm

    return tqdm(items, total=total, desc=label, unit=" images", delay=1, dynamic_ncols=True)


_reporter: Reporter = silent


@contextlib.contextmanager
def reported_by(reporter: Reporter) -> Iterator[None]:
    """Let `reporter` show all progress of this process inside the `with` block."""
    global _reporter
    before, _reporter = _reporter, reporter
    try:
        yield
    finally:
        _reporter = before


def track(items: Iterable[T], *, total: int, label: str) -> Iterable[T]:
    """Iterate over `items`, reporting progress to whoever has asked for it by `reported_by`."""
    return _reporter(items, total=total, label=label)
