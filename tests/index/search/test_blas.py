"""Threads that each do one thread's work."""

from __future__ import annotations

import threading

import pytest
import threadpoolctl

from index.search.base import import_faiss
from index.search.blas import workers


def blas_threads() -> list[int]:
    found = threadpoolctl.threadpool_info()
    return [one["num_threads"] for one in found if one["internal_api"] == "openblas"]


def test_libraries_have_one_thread_within_and_as_many_as_before_afterwards() -> None:
    faiss, before = import_faiss(), (blas_threads(), import_faiss().omp_get_max_threads())
    with workers(2) as pool:
        assert set(pool.map(lambda _: faiss.omp_get_max_threads(), range(8))) == {1}
        assert set(blas_threads()) == {1}
        with workers(3):
            pass
        assert set(blas_threads()) == {1}
    assert (blas_threads(), faiss.omp_get_max_threads()) == before
    with pytest.raises(ZeroDivisionError), workers(2) as pool:
        list(pool.map(lambda n: 1 / n, [1, 0, 1]))
    assert blas_threads() == before[0]


def test_there_are_no_more_threads_than_asked_for() -> None:
    with workers(1) as pool:
        assert len(set(pool.map(lambda _: threading.get_ident(), range(20)))) == 1
