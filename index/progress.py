"""Progress reporting: loops call `track`, and a front end decides what is shown."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

_DELAY = 1.0  # seconds until the line appears
_SCALED = 1_000_000  # from here on as in 1.50M
_FORMAT = "{desc} {percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt}{unit}, {remaining} left"


@dataclass(frozen=True)
class Work:
    """What a loop does.

    Attributes:
        label: Its name, such as "Embedding".
        total: Number of units in all.
        unit: What is counted, in the plural, such as "images".
        size: Number of units of an item of the loop.
    """

    label: str
    total: int
    unit: str
    size: Callable[[Any], int]


class Reporter(Protocol):
    """Passes an iterable through and reports how far it is."""

    def __call__(self, items: Iterable[T], work: Work) -> Iterable[T]:
        """Yield `items`, reporting how much of `work` has passed."""
        ...


def silent(items: Iterable[T], work: Work) -> Iterable[T]:
    """Report nothing, the default."""
    return items


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


@contextlib.contextmanager
def progress_line(
    finished: Callable[[Work, float], None] = lambda work, seconds: None,
) -> Iterator[None]:
    """Show all progress of this process inside the `with` block on one line of stderr.

    The line appears for what takes over a second, and is erased at the end of each loop and of the
    block. Nothing is drawn where stderr is no terminal.

    Args:
        finished: Called with each loop that has come to its end, and its seconds.
    """
    with contextlib.ExitStack() as lines:

        def on_a_line(items: Iterable[T], work: Work) -> Iterator[T]:
            from tqdm import tqdm

            started = time.perf_counter()
            line = tqdm(
                total=work.total, desc=work.label, unit=f" {work.unit}", bar_format=_FORMAT,
                delay=_DELAY, leave=False,
                unit_scale=work.total >= _SCALED, disable=None, dynamic_ncols=True,
            )  # fmt: skip
            # An error may leave this generator suspended: then the block closes the line.
            with lines.enter_context(contextlib.closing(line)):
                for item in items:
                    yield item
                    line.update(work.size(item))
            finished(work, time.perf_counter() - started)

        lines.enter_context(reported_by(on_a_line))
        yield


def track(
    items: Iterable[T],
    *,
    total: int,
    label: str,
    unit: str = "images",
    size: Callable[[T], int] = lambda _: 1,
) -> Iterable[T]:
    """Iterate over `items`, reporting progress to whoever has asked for it by `reported_by`.

    Args:
        items: The items of the loop.
        total: Number of units in all.
        label: Name of the work.
        unit: What is counted, in the plural.
        size: Number of units of an item; `len` for items that are blocks of rows.
    """
    return _reporter(items, Work(label, total, unit, size))


def track_rows(n: int, at_once: int, *, label: str, unit: str) -> Iterable[slice]:
    """Iterate over `n` rows in slices of `at_once`, reporting progress by the row."""
    parts = [slice(start, min(start + at_once, n)) for start in range(0, n, at_once)]
    return track(parts, total=n, label=label, unit=unit, size=lambda part: part.stop - part.start)
