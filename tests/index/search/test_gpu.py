"""The GPU kinds: the same classes on the CPU, and on a GPU where there is one."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.search import gpu, gpu_faiss
from index.search.base import Neighbors, VectorIndex
from index.search.flat import FlatIndex
from index.search.gpu import TorchScanIndex, gpu_index
from index.search.gpu_faiss import FaissGpuIndex

Vectors = NDArray[np.float32]

PRECISIONS = ("fp32", "bf16", "fp16")
TORCH_GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0
FAISS_GPUS = gpu_faiss.faiss_gpus()
HAS_CUVS = "CUVS" in faiss.get_compile_options()
SEEN = f"torch {torch.__version__} sees {TORCH_GPUS} GPUs"
WITH_FAISS = f"FAISS {faiss.__version__} ({faiss.get_compile_options().strip()}) sees {FAISS_GPUS}"

on_torch = pytest.mark.skipif(TORCH_GPUS == 0, reason=f"needs a CUDA device: {SEEN}")
on_faiss = pytest.mark.skipif(FAISS_GPUS == 0, reason=f"needs faiss-gpu and a GPU: {WITH_FAISS}")
on_cuvs = pytest.mark.skipif(
    FAISS_GPUS == 0 or not HAS_CUVS, reason=f"needs faiss-gpu-cuvs and a GPU: {WITH_FAISS}"
)


def unit(n: int, dim: int = 24, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((n, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def scaled(vectors: NDArray[Any]) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(n: int, dim: int = 24, seed: int = 0, *, spread: float = 0.05) -> Vectors:
    rng = np.random.default_rng(seed)
    return scaled(unit(9, dim, seed)[rng.integers(9, size=n)] + spread * unit(n, dim, seed + 1))


def tied(n: int, dim: int = 24, seed: int = 0) -> Vectors:
    return unit(3, dim, seed)[np.random.default_rng(seed).integers(3, size=n)]


def near(n: int, dim: int = 24, seed: int = 0) -> Vectors:
    """All within what half precision can tell apart."""
    return scaled(unit(1, dim, seed) + 1e-4 * unit(n, dim, seed + 1))


KINDS_OF_VECTORS = {"random": unit, "clustered": clustered, "tied": tied, "near": near}


def assert_same(found: Neighbors, expected: Neighbors) -> None:
    assert found.rows.dtype == np.int64 and found.similarities.dtype == np.float32
    assert np.array_equal(found.rows, expected.rows)
    assert found.similarities.tobytes() == expected.similarities.tobytes()


def shrunk(index: TorchScanIndex, rows: int, queries: int) -> TorchScanIndex:
    """With a scratch in which so many rows are scanned for so many queries."""
    index._scratch = -(-rows * queries * gpu._BYTES_A_SCORE * 4 // 3)
    return index


# The scan, on the CPU


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", KINDS_OF_VECTORS)
def test_the_scan_finds_what_flat_finds(name: str, precision: gpu.Precision) -> None:
    vectors = KINDS_OF_VECTORS[name](900, 40)
    queries = np.concatenate([vectors[::50], unit(10, 40, seed=5)])
    index = shrunk(TorchScanIndex(vectors, "cpu", precision=precision), 250, len(queries))
    index._flat = None  # type: ignore[assignment] # it does without
    for k in (1, 20):
        assert_same(index.search(queries, k), FlatIndex(vectors).search(queries, k))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_scan_finds_what_flat_finds_in_anything(data: st.DataObject) -> None:
    make = KINDS_OF_VECTORS[data.draw(st.sampled_from(sorted(KINDS_OF_VECTORS)))]
    n, k = data.draw(st.integers(1, 400)), data.draw(st.integers(1, 130))
    dim, seed = data.draw(st.integers(1, 40)), data.draw(st.integers(0, 99))
    vectors = make(n, dim, seed)
    queries = np.concatenate([vectors[:5], unit(3, dim, seed + 7)])
    index = TorchScanIndex(vectors, "cpu", precision=data.draw(st.sampled_from(PRECISIONS)))
    shrunk(index, data.draw(st.integers(1, 500)), len(queries))
    assert_same(index.search(queries, k), FlatIndex(vectors).search(queries, k))


def test_the_error_of_the_scan_is_bounded_and_the_bound_is_not_idle() -> None:
    vectors, queries = clustered(500, 96), clustered(60, 96, seed=3)
    for precision, least, most in (("bf16", 3e-4, 0.03), ("fp16", 3e-5, 0.004)):
        index = TorchScanIndex(vectors, "cpu", precision=precision)  # type: ignore[arg-type]
        rounded, error = index._rounded(queries)
        scanned = index._scores(rounded, 0, len(vectors)).numpy()
        wrong = np.abs(scanned - queries.astype(np.float64) @ vectors.T.astype(np.float64))
        assert (wrong <= error[:, None]).all()
        assert wrong.max() > least and error.max() < most


@pytest.mark.parametrize("which", ["query", "row"])
def test_the_worst_rounding_is_within_the_bound(which: str) -> None:
    # What rounding loses of one points along the other, which loses nothing.
    whole = np.full((1, 4), 0.5, np.float32)
    off = whole + np.float32(0.9 * 2**-12)
    vectors, queries = (off, whole) if which == "row" else (whole, off)
    index = TorchScanIndex(vectors, "cpu", precision="fp16")
    index._adding = 0.0  # 1 is added up exactly
    rounded, error = index._rounded(queries)
    wrong = abs(index._scores(rounded, 0, 1).item() - (queries.astype(float) @ vectors.T).item())
    assert 4e-4 < wrong <= error[0] < 1.1 * wrong


def test_what_adding_up_loses_is_within_the_bound() -> None:
    exact = unit(200).astype(np.float16).astype(np.float32)  # nothing is lost before
    index = TorchScanIndex(exact, "cpu", precision="fp16")
    rounded, error = index._rounded(exact)
    scanned = index._scores(rounded, 0, 200).numpy()
    wrong = np.abs(scanned - exact.astype(np.float64) @ exact.T.astype(np.float64))
    assert (wrong <= error[:, None]).all() and wrong.max() > 10 * gpu.ROUNDING


def test_rows_that_the_scan_ranks_too_low_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    # Half precision can hardly tell these apart.
    vectors = near(3000, 64)
    index = TorchScanIndex(vectors, "cpu", precision="bf16")
    again: list[int] = []
    above = TorchScanIndex._above

    def counted(self: TorchScanIndex, *given: Any) -> Neighbors:
        again.append(len(given[2]))
        return above(self, *given)

    monkeypatch.setattr(TorchScanIndex, "_above", counted)
    expected = FlatIndex(vectors).search(vectors[:7], 5)
    assert_same(index.search(vectors[:7], 5), expected)
    assert again == [7]
    # The first scan alone does not find them.
    rounded, _ = index._rounded(vectors[:7])
    _, candidates = index._highest(rounded, 5 + gpu._MARGIN)
    assert not all(set(e) <= set(c) for e, c in zip(expected.rows, candidates, strict=True))


def test_far_rows_cost_no_second_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.concatenate([clustered(40, 64), scaled(-np.abs(unit(2000, 64)))])
    monkeypatch.delattr(TorchScanIndex, "_above")
    queries = scaled(np.abs(unit(4, 64, seed=2)))
    found = TorchScanIndex(vectors, "cpu", precision="fp32").search(queries, 3)
    assert_same(found, FlatIndex(vectors).search(queries, 3))


def test_a_scan_that_is_less_exact_than_it_is_held_to_be_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def noise(self: TorchScanIndex, queries: Any, start: int, stop: int) -> Any:
        return torch.rand(len(queries), stop - start) / 10 - 1

    monkeypatch.setattr(TorchScanIndex, "_scores", noise)
    vectors, queries = unit(1500), unit(9, seed=1)
    index = TorchScanIndex(vectors, "cpu", precision="fp16")
    assert_same(index.search(queries, 10), FlatIndex(vectors).search(queries, 10))


@pytest.mark.parametrize("name", KINDS_OF_VECTORS)
def test_what_a_search_takes_is_bounded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, scratch = KINDS_OF_VECTORS[name](2000), 2**18
    index = TorchScanIndex(vectors, "cpu", precision="bf16", scratch=scratch)
    sizes: list[tuple[int, int]] = []
    scores = TorchScanIndex._scores

    def noted(self: TorchScanIndex, queries: Any, start: int, stop: int) -> Any:
        sizes.append((len(queries), stop - start))
        return scores(self, queries, start, stop)

    monkeypatch.setattr(TorchScanIndex, "_scores", noted)
    queries = unit(120, seed=1)
    assert_same(index.search(queries, 30), FlatIndex(vectors).search(queries, 30))
    assert max(q * rows for q, rows in sizes) * gpu._BYTES_A_SCORE <= scratch
    assert max(q for q, _ in sizes) * (30 + gpu._MARGIN) * gpu._BYTES_A_CANDIDATE <= scratch


def test_a_lone_query_equals_one_of_a_batch() -> None:
    vectors = clustered(700, 48)
    vectors[400:500] = vectors[:100]
    queries = clustered(600, 48, seed=2)
    index = TorchScanIndex(vectors, "cpu", precision="bf16")
    batch = index.search(queries, 12)
    for i in (0, 255, 256, 599):
        lone = index.search(queries[i : i + 1], 12)
        assert_same(lone, Neighbors(batch.rows[i : i + 1], batch.similarities[i : i + 1]))


# Both classes


def scan(vectors: Vectors) -> VectorIndex:
    return TorchScanIndex(vectors, "cpu", precision="bf16")


def flat(vectors: Vectors) -> VectorIndex:
    structure = faiss.IndexFlatIP(vectors.shape[1])
    structure.add(vectors)
    return FaissGpuIndex("flat", structure, vectors, lock=threading.Lock())


def ivf(vectors: Vectors) -> VectorIndex:
    structure = faiss.index_factory(vectors.shape[1], "IVF1,Flat", faiss.METRIC_INNER_PRODUCT)
    if len(vectors):
        structure.train(vectors)
        structure.add(vectors)
    return FaissGpuIndex("ivf", structure, vectors, lock=threading.Lock())


both = pytest.mark.parametrize("make", [scan, flat, ivf])


@both
@pytest.mark.parametrize(("n", "k"), [(0, 3), (1, 1), (1, 50), (7, 50), (90, 3000)])
def test_fewer_rows_than_k_are_all_returned(make: Any, n: int, k: int) -> None:
    vectors, queries = unit(n), unit(3, seed=1)
    assert_same(make(vectors).search(queries, k), FlatIndex(vectors).search(queries, k))


@both
def test_the_rest_of_the_contract(make: Any, tmp_path: Path) -> None:
    vectors = unit(300)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    index, expected = make(mapped), FlatIndex(vectors).search(vectors[:5], 9)
    assert (len(index), index.dim, index.kind) == (300, 24, "gpu")
    assert_same(index.search(mapped[:5], 9), expected)
    assert_same(index.search(np.asfortranarray(vectors[:5]), 9), expected)
    assert index.search(unit(0), 4).rows.shape == (0, 4)
    for queries, message in [
        (2 * unit(2), "row 0 has norm 2"),
        (np.full((1, 24), np.nan, np.float32), "norm nan"),
        (unit(2, 23), "23 dimensions, the index has 24"),
        (unit(2).astype(np.float64), "float64"),
    ]:
        with pytest.raises(IndexProblem, match=message):
            index.search(queries, 1)
    with pytest.raises(IndexProblem, match="at least 1"):
        index.search(unit(1), 0)
    for other in (vectors.astype(np.float64), np.asfortranarray(vectors)):
        with pytest.raises(IndexProblem, match="C-contiguous float32"):
            TorchScanIndex(other, "cpu")
        with pytest.raises(IndexProblem, match="C-contiguous float32"):
            gpu_index(other)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(value: float, fake: SimpleNamespace) -> None:
    vectors = unit(50)
    vectors[49, 3] = value
    for make in (lambda: TorchScanIndex(vectors, "cpu"), lambda: gpu_faiss.build(vectors, "flat")):
        with pytest.raises(IndexProblem, match="not finite"):
            make()


def test_vectors_far_from_unit_norm_are_refused() -> None:
    vectors = unit(50)
    vectors[7] *= 1e5  # more than half precision can hold
    with pytest.raises(IndexProblem, match=r"row 7 has norm 1e\+05"):
        TorchScanIndex(vectors, "cpu")


# FAISS: its structures for the CPU stand in for those on a GPU, which have the same methods


@pytest.mark.parametrize("name", KINDS_OF_VECTORS)
def test_flat_finds_what_flat_finds_on_the_cpu(name: str) -> None:
    vectors = KINDS_OF_VECTORS[name](900, 40)
    queries = np.concatenate([vectors[::50], unit(10, 40, seed=5)])
    for k in (1, 20):
        assert_same(flat(vectors).search(queries, k), FlatIndex(vectors).search(queries, k))


class Wrong:
    """A structure that answers as it is told."""

    def __init__(self, structure: Any, change: Any) -> None:
        self.ntotal, self.d, self._structure, self._change = (
            structure.ntotal, structure.d, structure, change,
        )  # fmt: skip

    def search(self, queries: Vectors, k: int, params: Any = None) -> Any:
        return self._change(*self._structure.search(queries, k))


def none_from(place: int) -> Any:
    def change(found: Vectors, rows: NDArray[np.int64]) -> Any:
        rows[:, place:] = -1
        return found, rows

    return change


def repeated(found: Vectors, rows: NDArray[np.int64]) -> Any:
    rows[:, 1:] = rows[:, :-1].copy()
    rows[:, -1] = 2**32 - 1
    return found, rows


def other(found: Vectors, rows: NDArray[np.int64]) -> Any:
    return found - 1, (rows + 1000) % 2000


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("flat", other),
        ("flat", none_from(3)),
        ("flat", lambda found, rows: (found + np.float32(0.01), rows)),
        ("flat", lambda found, rows: (found * np.float32(np.nan), rows)),
        ("ivf", none_from(3)),
        ("cagra", none_from(0)),
        ("ivf", none_from(12)),
        ("cagra", repeated),
    ],
)
def test_answers_that_cannot_be_right_are_replaced(method: Any, change: Any) -> None:
    vectors, queries = unit(2000), unit(5, seed=1)
    structure = Wrong(flat(vectors)._structure, change)  # type: ignore[attr-defined]
    index = FaissGpuIndex(method, structure, vectors, lock=threading.Lock())
    assert_same(index.search(queries, 8), FlatIndex(vectors).search(queries, 8))


def test_a_failure_of_the_gpu_is_an_error_with_a_hint() -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("Error in allocMemory\nalloc fail: cudaMalloc error out of memory [2]")

    vectors = unit(99)
    structure = Wrong(flat(vectors)._structure, fail)  # type: ignore[attr-defined]
    with pytest.raises(IndexProblem, match=r"cannot search on the GPU: .*out of memory") as error:
        FaissGpuIndex("flat", structure, vectors, lock=threading.Lock()).search(unit(1), 1)
    assert "nvidia-smi" in error.value.hint


def test_a_structure_of_other_vectors_is_refused() -> None:
    structure = flat(unit(9))._structure  # type: ignore[attr-defined]
    with pytest.raises(IndexProblem, match="holds 9 rows of 24"):
        FaissGpuIndex("flat", structure, unit(8), lock=threading.Lock())


class FakeGpu(SimpleNamespace):
    """FAISS as its GPU build looks from Python, over structures for the CPU."""

    def __getattr__(self, name: str) -> Any:
        return getattr(faiss, name)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    log = SimpleNamespace(resources=[], devices=[], searched=[])

    class Resources:
        def __init__(self) -> None:
            log.resources.append(self)

        def setTempMemory(self, size: int) -> None:
            self.temporary = size

        def setPinnedMemory(self, size: int) -> None:
            self.pinned = size

    def gpu_flat(resources: Resources, dim: int, config: Any) -> Any:
        log.devices.append((config.device, config.use_cuvs))
        return faiss.IndexFlatIP(dim)

    class Ivf(faiss.IndexIVFFlat):  # type: ignore[misc]
        def reclaimMemory(self) -> int:
            return 0

    def gpu_ivf(resources: Resources, dim: int, lists: int, metric: int, config: Any) -> Any:
        log.devices.append((config.device, config.flatConfig.use_cuvs))
        return Ivf(faiss.IndexFlatIP(dim), dim, lists, metric)

    class Cagra:
        ntotal = 0

        def __init__(self, resources: Resources, dim: int, metric: int, config: Any) -> None:
            log.devices.append((config.device, config.use_cuvs))
            self.d, self._flat = dim, faiss.IndexFlat(dim, metric)

        def train(self, vectors: Vectors) -> None:
            self._flat.add(vectors)
            self.ntotal = len(vectors)

        def search(self, queries: Vectors, k: int, *, params: Any) -> Any:
            assert k <= params.itopk_size <= 512 and params.itopk_size % 32 == 0
            log.searched.append(k)
            return self._flat.search(queries, k)

    def config() -> Any:
        return SimpleNamespace(use_cuvs=True, flatConfig=SimpleNamespace(use_cuvs=True))

    library = FakeGpu(
        StandardGpuResources=Resources,
        GpuIndexFlatConfig=config,
        GpuIndexFlatIP=gpu_flat,
        GpuIndexIVFFlatConfig=config,
        GpuIndexIVFFlat=gpu_ivf,
        GpuIndexCagraConfig=config,
        GpuIndexCagra=Cagra,
        SearchParametersCagra=SimpleNamespace,
        get_num_gpus=lambda: 2,
        get_compile_options=lambda: "OPTIMIZE GPU CUVS",
        log=log,
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # nor asked what is free
    monkeypatch.setattr(gpu_faiss, "import_faiss", lambda: library)
    monkeypatch.setattr(gpu_faiss, "_driver_works", lambda: True)
    monkeypatch.setattr(gpu_faiss, "_shared", {})
    return library


@pytest.mark.parametrize("kind", ["auto", "flat", "ivf", "cagra"])
def test_what_is_built_of_the_gpu_build(kind: gpu.GpuKind, fake: SimpleNamespace) -> None:
    vectors, queries = clustered(3000), clustered(20, seed=4)
    index = gpu_index(vectors, device="cuda:1", kind=kind)
    assert isinstance(index, FaissGpuIndex)
    assert index.method == ("flat" if kind == "auto" else kind)
    assert fake.log.devices == [(1, kind == "cagra")]
    expected = FlatIndex(vectors).search(queries, 10)
    found = index.search(queries, 10)
    if kind == "ivf":  # about the nearest
        assert index._structure.nprobe == 8
        shared = zip(found.rows, expected.rows, strict=True)
        assert np.mean([len(set(a) & set(b)) for a, b in shared]) > 9
    else:
        assert_same(found, expected)
    # More than a GPU can select.
    assert_same(index.search(queries, 2500), FlatIndex(vectors).search(queries, 2500))


def test_resources_are_shared_and_bounded(fake: SimpleNamespace) -> None:
    for device in ("cuda", "cuda:0", "cuda:1"):
        gpu_index(unit(9), device=device)
    assert [(r.temporary, r.pinned) for r in fake.log.resources] == [(2**28, 2**26)] * 2


def test_too_few_rows_for_a_graph(fake: SimpleNamespace) -> None:
    with pytest.raises(IndexProblem, match="at least 1,024 vectors, not 9") as error:
        gpu_index(unit(9), kind="cagra")
    assert 'kind="flat"' in error.value.hint
    assert_same(
        gpu_index(unit(0), kind="ivf").search(unit(2), 3), FlatIndex(unit(0)).search(unit(2), 3)
    )


# What is missing is said


def test_cagra_needs_cuvs(fake: SimpleNamespace) -> None:
    fake.get_compile_options = lambda: "OPTIMIZE GPU"
    with pytest.raises(IndexProblem, match="built without") as error:
        gpu_index(unit(9), kind="cagra")
    assert "faiss-gpu-cuvs" in error.value.hint


def test_a_gpu_build_without_a_gpu(fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IndexProblem, match=r"no cuda:5: FAISS .* sees 2 GPUs"):
        gpu_index(unit(9), device="cuda:5", kind="flat")
    # FAISS would end the process if it were asked.
    fake.get_num_gpus = pytest.fail
    monkeypatch.setattr(gpu_faiss, "_driver_works", lambda: False)
    with pytest.raises(IndexProblem, match=r"no cuda:0: FAISS .* sees no GPU") as error:
        gpu_index(unit(9), kind="ivf")
    assert "nvidia-smi" in error.value.hint


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="FAISS has GPU support")
@pytest.mark.parametrize("kind", ["flat", "ivf", "cagra"])
def test_the_cpu_build_of_faiss_is_named(kind: gpu.GpuKind) -> None:
    with pytest.raises(IndexProblem, match="CPU build") as error:
        gpu_index(unit(9), kind=kind)
    assert "pip uninstall faiss-cpu" in error.value.hint
    assert "cui-annotator[gpu]" in error.value.hint and 'kind="torch"' in error.value.hint


@pytest.mark.parametrize("kind", ["auto", "torch"])
def test_no_cuda_device(kind: gpu.GpuKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "faiss_gpus", lambda: 0)
    with pytest.raises(IndexProblem, match="sees no CUDA device") as error:
        gpu_index(unit(9), kind=kind)
    assert "nvidia-smi" in error.value.hint


def test_a_cuda_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(IndexProblem, match="no cuda:1: torch sees 1 CUDA device"):
        gpu_index(unit(9), device="cuda:1", kind="torch")


@pytest.mark.parametrize("device", ["cpu", "cuda:", "cuda:x", "1", "mps"])
def test_other_devices_are_refused(device: str) -> None:
    with pytest.raises(IndexProblem, match=f'not "{device}"'):
        gpu_index(unit(9), device=device)


def test_vectors_that_do_not_fit(fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**27, 2**33))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2**28)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2**28 - 2**27)
    gpu.check_room(2**28, "cuda:0")
    for kind, needed in (("torch", "0.50"), ("flat", "0.25"), ("ivf", "0.25")):
        with pytest.raises(IndexProblem) as error:
            gpu_index(unit(9), kind=kind)  # type: ignore[arg-type]
        assert f"cuda:0 needs {needed} GiB" in error.value.message
        assert "0.25 GiB of 8.00 GiB are free" in error.value.message


def test_products_are_added_up_in_full_while_anyone_needs_it() -> None:
    settings_ = torch.backends.cuda.matmul
    names = [f"allow_{name}_reduced_precision_reduction" for name in ("fp16", "bf16")]
    before = [getattr(settings_, name) for name in names]
    with gpu._added_up_in_fp32(torch, True):
        with gpu._added_up_in_fp32(torch, True):
            assert [getattr(settings_, name) for name in names] == [False, False]
        assert [getattr(settings_, name) for name in names] == [False, False]
    assert [getattr(settings_, name) for name in names] == before


# On a GPU


@on_torch
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", KINDS_OF_VECTORS)
def test_the_scan_on_a_gpu(name: str, precision: gpu.Precision) -> None:
    vectors = KINDS_OF_VECTORS[name](20_000, 320)
    queries = np.concatenate([vectors[::200], unit(300, 320, seed=5)])
    index = TorchScanIndex(vectors, "cuda", precision=precision)
    expected = FlatIndex(vectors).search(queries, 50)
    assert_same(index.search(queries, 50), expected)
    index._wide = False  # as before torch 2.8
    index._adding += 2.0**-7
    assert_same(index.search(queries, 50), expected)
    rounded, error = index._rounded(queries)
    wrong = index._scores(rounded, 0, len(vectors)).cpu().numpy() - queries.astype(
        np.float64
    ) @ vectors.T.astype(np.float64)
    assert (np.abs(wrong) <= error[:, None]).all()


@on_torch
def test_a_scan_on_a_gpu_takes_no_more_than_its_scratch() -> None:
    vectors, scratch = tied(200_000, 64), 2**26
    index = TorchScanIndex(vectors, "cuda", scratch=scratch)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    index.search(unit(300, 64, seed=1), 50)
    assert torch.cuda.max_memory_allocated() - before <= scratch


@on_faiss
@pytest.mark.parametrize("name", KINDS_OF_VECTORS)
def test_flat_on_a_gpu(name: str) -> None:
    vectors = KINDS_OF_VECTORS[name](20_000, 320)
    queries = np.concatenate([vectors[::200], unit(300, 320, seed=5)])
    found = gpu_index(vectors, kind="flat").search(queries, 50)
    assert_same(found, FlatIndex(vectors).search(queries, 50))


def recall(kind: gpu.GpuKind) -> float:
    vectors, queries = clustered(20_000, 320, spread=1.0), clustered(300, 320, 3, spread=1.0)
    found = gpu_index(vectors, kind=kind).search(queries, 50)
    expected = FlatIndex(vectors).search(queries, 50)
    pairs = zip(found.rows, expected.rows, strict=True)
    return float(np.mean([len(set(a) & set(b)) / 50 for a, b in pairs]))


@on_faiss
def test_ivf_on_a_gpu() -> None:
    assert recall("ivf") > 0.5


@on_cuvs
def test_cagra_on_a_gpu() -> None:
    assert recall("cagra") > 0.8
