"""A map in threads that keeps the order and bounds memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def ordered_map(
    work: Callable[[S], T],
    items: Iterable[S],
    *,
    workers: int,
    waiting: int = 64,
    initializer: Callable[[], object] | None = None,
) -> Generator[T, None, None]:
    """Apply `work` to each item in threads, yielding results in the order of the items.

    Closing the generator (Ctrl-C included) waits for the items under way.

    Args:
        work: Called in threads.
        items: Its arguments.
        workers: Number of threads.
        waiting: Most items that are under way or done and not yet taken.
        initializer: Called in each thread before it works.
    """
    begun: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(workers, "ordered_map", initializer)
    try:
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) >= waiting:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
