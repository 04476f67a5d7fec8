"""Work on many things in threads, in their order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def in_threads(
    work: Callable[[S], T], items: Iterable[S], *, workers: int, waiting: int = 64
) -> Generator[T, None, None]:
    """What `work` makes of each of `items`, in their order.

    Closing the generator (Ctrl-C included) waits for the items under way.

    Args:
        work: Called in threads.
        items: What it is called with, one at a time.
        workers: Threads.
        waiting: How many items may be under way or done and not yet taken.
    """
    begun: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="in_threads")
    try:
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) >= waiting:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
