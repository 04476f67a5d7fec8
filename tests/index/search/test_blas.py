"""Threads that each do one thread's work."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import threadpoolctl

from index.search.base import import_faiss
from index.search.blas import faiss_threads, workers
from index.search.ivf import IvfIndex, build_ivf


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


def test_faiss_has_no_more_threads_than_there_are_queries() -> None:
    faiss, before = import_faiss(), import_faiss().omp_get_max_threads()
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((500, 32), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ann, seen = build_ivf("ivf", vectors), []

    class Noted:
        def __getattr__(self, name: str) -> Any:
            return getattr(ann, name)

        def search(self, *given: Any) -> Any:
            seen.append(faiss.omp_get_max_threads())
            return ann.search(*given)

    index = IvfIndex("ivf", ann, vectors, nprobe=4, k_factor=2)
    index._ann = Noted()
    try:
        faiss.omp_set_num_threads(3)
        found = [index.search(vectors[:q], 5) for q in (1, 2, 40)]
        assert seen == [1, 2, 3] and faiss.omp_get_max_threads() == 3
        with pytest.raises(ZeroDivisionError), faiss_threads(1):
            raise ZeroDivisionError
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)
    for one in found:
        assert np.array_equal(one.rows, found[-1].rows[: len(one.rows)])
        assert np.array_equal(one.similarities, found[-1].similarities[: len(one.rows)])


def test_there_are_no_more_threads_than_asked_for() -> None:
    with workers(1) as pool:
        assert len(set(pool.map(lambda _: threading.get_ident(), range(20)))) == 1
