"""Threads that do without those of NumPy's BLAS and of FAISS."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from index.search.base import import_faiss


@cache
def _blas() -> Any:
    """NumPy's BLAS; finding it takes a millisecond."""
    import threadpoolctl

    return threadpoolctl.ThreadpoolController().select(internal_api="openblas")


class _OneBlasThread:
    """Limits BLAS to one thread while any thread is inside: the setting is the whole process's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._limit = _blas().limit(limits=1)
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._limit.restore_original_limits()


one_blas_thread = _OneBlasThread()


def one_faiss_thread() -> None:
    """Let FAISS search with one thread where this one asks it to; for threads of a pool."""
    import_faiss().omp_set_num_threads(1)


@contextlib.contextmanager
def faiss_threads(most: int) -> Iterator[None]:
    """In the block, FAISS has at most so many threads for what the calling thread asks of it."""
    faiss = import_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(min(most, before))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@contextlib.contextmanager
def workers(most: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for pieces of work, each of which is done by one thread: at most one a core.

    Threads of the libraries for each of them would wait for each other, and take CPU time for it.
    """
    number = min(most, import_faiss().omp_get_max_threads())
    pool = ThreadPoolExecutor(number, initializer=one_faiss_thread)
    with one_blas_thread, pool:
        yield pool
