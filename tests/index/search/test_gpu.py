"""Search on GPUs: what does not need one is tested with FAISS and torch on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from index import FlatIndex, IndexProblem, open_index
from index.rows import Neighbors
from index.search import build, gpu
from index.search.gpu import GpuIndex, compare, empty_ann, gpu_index
from index.search.ivf import lists_for
from tests.index.indexes import Vectors, publish, unit


def missing() -> str:
    """What a search on a GPU lacks here; empty if nothing."""
    try:
        gpu.check_gpus()
    except IndexProblem as problem:
        return problem.message
    return "" if torch.cuda.is_available() else f"torch {torch.__version__} sees no GPU."


on_gpu = pytest.mark.skipif(bool(missing()), reason=missing())


def on_cpu(vectors: Vectors, nprobe: int | None = None) -> GpuIndex:
    """The index with a FAISS index and a comparison on the CPU."""
    ann = empty_ann(vectors, nprobe)
    ann.add(vectors)
    return GpuIndex(vectors, ann, exact=nprobe is None, device="cpu")


def same(found: Neighbors, expected: Neighbors) -> None:
    assert np.array_equal(found.rows, expected.rows)
    assert np.abs(found.similarities - expected.similarities).max() < 1e-6


@pytest.mark.parametrize("nprobe", [None, 4096])
@pytest.mark.parametrize("k", [1, 50, 400, 3000])
def test_neighbours_are_those_of_brute_force(nprobe: int | None, k: int) -> None:
    vectors, queries = unit(400), unit(30, seed=1)
    same(on_cpu(vectors, nprobe).search(queries, k), FlatIndex(vectors).search(queries, k))


def test_more_ties_than_candidates_are_in_the_order_of_rows() -> None:
    copies = np.random.default_rng(0).integers(3, size=500)
    vectors = unit(3)[copies]
    same(on_cpu(vectors).search(vectors[:9], 20), FlatIndex(vectors).search(vectors[:9], 20))


def test_a_lone_query_equals_one_of_a_batch_bit_for_bit() -> None:
    index, queries = on_cpu(unit(500, 300)), unit(600, 300, seed=1)
    batch = index.search(queries, 20)
    for i in (0, 255, 599):
        lone = index.search(queries[i : i + 1], 20)
        assert np.array_equal(lone.rows[0], batch.rows[i])
        assert np.array_equal(lone.similarities[0], batch.similarities[i])


def test_candidates_are_compared_in_full() -> None:
    vectors, queries = unit(90, 512), unit(7, 512, seed=1)
    rows = np.random.default_rng(2).integers(90, size=(7, 11))
    rows[3, 4] = -1
    found = compare(vectors, rows, queries, "cpu")
    exact = np.einsum("qmd,qd->qm", vectors[rows].astype(np.float64), queries.astype(np.float64))
    exact[3, 4] = -np.inf
    assert found.dtype == np.float32 and np.array_equal(found, exact.astype(np.float32))


class Other:
    """A FAISS index whose answers are changed."""

    def __init__(self, ann: Any, noise: float = 0.0, lost: int = 0) -> None:
        self._ann, self._noise, self._lost = ann, noise, lost
        self.ntotal, self.d = ann.ntotal, ann.d

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
        found, rows = self._ann.search(queries, k)
        rng = np.random.default_rng(0)
        noise = self._noise * rng.uniform(-1, 1, found.shape).astype(np.float32)
        rows[:, len(rows[0]) - self._lost :] = -1
        return found + noise, rows


@pytest.mark.parametrize(("noise", "lost", "exact"), [(1e-3, 0, True), (0.0, 30, False)])
def test_answers_that_cannot_be_trusted_or_are_too_few_are_searched_on_the_cpu(
    noise: float, lost: int, exact: bool
) -> None:
    vectors, queries = unit(300), unit(9, seed=1)
    ann = faiss.IndexFlatIP(24)
    ann.add(vectors)
    index = GpuIndex(vectors, Other(ann, noise, lost), exact=exact, device="cpu")
    found, expected = index.search(queries, 20), FlatIndex(vectors).search(queries, 20)
    assert np.array_equal(found.rows, expected.rows)
    assert np.array_equal(found.similarities, expected.similarities)


def test_a_failure_of_faiss_says_what_to_do() -> None:
    class Full(Other):
        def search(self, queries: Vectors, k: int) -> Any:
            raise RuntimeError("Error in alloc\nout of memory")

    ann = faiss.IndexFlatIP(24)
    ann.add(unit(9))
    with pytest.raises(IndexProblem, match="cannot search on the GPU: out of memory") as caught:
        GpuIndex(unit(9), Full(ann), exact=True, device="cpu").search(unit(1), 1)
    assert "nvidia-smi" in caught.value.hint


def test_an_approximate_index_has_as_many_lists_as_on_the_cpu() -> None:
    ann = empty_ann(unit(3000), 7)
    assert (ann.nlist, ann.nprobe, ann.ntotal) == (lists_for(3000), 7, 0)
    assert empty_ann(unit(3000), 10**6).nprobe == ann.nlist


@pytest.mark.parametrize("kind", build.KINDS)
def test_the_index_type_decides_between_exact_and_approximate(
    kind: build.Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "gpu_index", lambda vectors, nprobe=None: on_cpu(vectors, nprobe))
    publish(tmp_path, unit(200), index_type=kind)
    index = open_index(tmp_path, device="cuda").index
    assert isinstance(index, GpuIndex) and index.is_exact == (kind in build.EXACT)


def test_without_a_gpu_or_its_faiss_the_hint_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    with pytest.raises(IndexProblem, match="is a CPU build") as caught:
        gpu_index(unit(9))
    assert 'pip install "cui-annotator[gpu]"' in caught.value.hint
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(gpu, "_driver_works", lambda: False)
    with pytest.raises(IndexProblem, match="sees no GPU"):
        gpu_index(unit(9))


def test_vectors_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "check_gpus", lambda: None)
    vectors = unit(9)
    vectors[7] = np.nan
    with pytest.raises(IndexProblem, match="not finite"):
        gpu_index(vectors)


@on_gpu
@pytest.mark.parametrize("k", [1, 50, 3000])
def test_on_gpus_neighbours_are_those_of_brute_force(k: int) -> None:
    vectors, queries = unit(4000, 512), unit(300, 512, seed=1)
    same(gpu_index(vectors).search(queries, k), FlatIndex(vectors).search(queries, k))
    every = gpu_index(vectors, nprobe=lists_for(4000))
    same(every.search(queries, k), FlatIndex(vectors).search(queries, k))
