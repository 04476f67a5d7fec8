"""The systems, in the order of tables and legends."""

from __future__ import annotations

from functools import partial

from benchmarks.index_latency.adapters import (
    faiss_cpu,
    hnswlib,
    ours,
    scann,
    sklearn,
    svs,
    torch_scan,
    usearch,
)
from benchmarks.index_latency.protocol import System, build_nothing


def _ours(kind: str, label: str) -> System:
    build, open_ = partial(ours.build, kind), partial(ours.open_, kind)
    return System(kind, f"ours: {label}", build, open_, ours=True)


def _ours_cuda(kind: str, label: str) -> System:
    build = partial(ours.build_stored, kind)
    needs = ("torch", "faiss")
    return System(
        f"cuda-{kind}", f"ours: {label}", build, ours.open_on_gpu, needs, ours=True, device="cuda"
    )


_TORCH = ("torch",)
_ALL = (
    _ours("scan", "scan (exact)"),
    _ours("flat", "flat (exact)"),
    _ours("ivf", "ivf"),
    _ours("compressed", "compressed"),
    System("faiss-flat", "FAISS IndexFlatIP", faiss_cpu.build_flat, faiss_cpu.open_flat),
    System("torch", "torch matmul + topk", build_nothing, torch_scan.open_cpu, _TORCH),
    System(
        "sklearn", "scikit-learn brute force", build_nothing, sklearn.open_, ("sklearn.neighbors",)
    ),
    System("faiss-ivf", "FAISS IVF flat", faiss_cpu.build_ivf, faiss_cpu.open_ivf),
    System("faiss-rabitq", "FAISS IVF RaBitQ", faiss_cpu.build_rabitq, faiss_cpu.open_rabitq),
    System("scann", "ScaNN", scann.build, scann.open_, ("scann",)),
    System("svs", "SVS Vamana f16", svs.build, svs.open_, ("svs",)),
    System("faiss-hnsw", "FAISS HNSW32", faiss_cpu.build_hnsw, faiss_cpu.open_hnsw),
    System("hnswlib", "hnswlib", hnswlib.build, hnswlib.open_, ("hnswlib",)),
    System(
        "usearch",
        "usearch f32",
        partial(usearch.build, "f32"),
        partial(usearch.open_, "f32"),
        ("usearch.index",),
    ),
    System(
        "usearch-i8",
        "usearch i8",
        partial(usearch.build, "i8"),
        partial(usearch.open_, "i8"),
        ("usearch.index",),
    ),
    _ours_cuda("flat", "--device cuda, flat (exact)"),
    _ours_cuda("ivf", "--device cuda, ivf"),
    System(
        "torch-cuda",
        "torch matmul + topk, fp32",
        build_nothing,
        torch_scan.open_cuda,
        _TORCH,
        device="cuda",
    ),
    System("faiss-cuda", "FAISS GpuIndexFlatIP", build_nothing, faiss_cpu.open_cuda, device="cuda"),
)
SYSTEMS = {system.key: system for system in _ALL}
