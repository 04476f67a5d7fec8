"""Work on many images in threads, in their order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from annotator.images.ref import ImageRef

T = TypeVar("T")
_WAITING = 64  # results in memory


def in_threads(
    work: Callable[[ImageRef], T], refs: Iterable[ImageRef], *, workers: int
) -> Generator[T, None, None]:
    """What `work` makes of each of `refs`, in their order.

    Closing the generator (Ctrl-C included) waits for the images under way.

    Args:
        work: Called in threads.
        refs: The images.
        workers: Threads.
    """
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
    try:
        for ref in refs:
            waiting.append(pool.submit(work, ref))
            if len(waiting) >= _WAITING:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
