"""torch: a matrix product and `topk` in fp32, on the CPU and on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.index_latency.protocol import Floats, Point, Rows, Search, parts

_SCORES_AT_ONCE = 2**28  # float32: 1 GiB


def open_cpu(vectors_path: Path, folder: Path, threads: int, point: Point) -> Search:
    """The vectors are loaded whole."""
    import torch

    torch.set_num_threads(threads)
    return search_by(torch.from_numpy(np.load(vectors_path)))


def open_cuda(vectors_path: Path, folder: Path, threads: int, point: Point) -> Search:
    """The vectors lie on the GPU; queries and rows in host memory."""
    import torch

    torch.set_float32_matmul_precision("highest")
    mapped = np.load(vectors_path, mmap_mode="r")
    vectors = torch.empty(mapped.shape, dtype=torch.float32, device="cuda")
    for start, part in parts(mapped):
        vectors[start : start + len(part)].copy_(torch.from_numpy(part))
    return search_by(vectors)


def search_by(vectors: Any, at_once: int = _SCORES_AT_ONCE) -> Search:
    """Search a tensor float32[n, dim], over as many rows at a time as `at_once` scores allow."""
    import torch

    @torch.inference_mode()
    def search(queries: Floats, k: int, point: Point) -> Rows:
        asked = torch.from_numpy(queries).to(vectors.device)
        step = max(at_once // len(queries), k)
        best, rows = [], []
        for start in range(0, len(vectors), step):
            scores = asked @ vectors[start : start + step].T
            found = scores.topk(min(k, scores.shape[1]), dim=1)
            best.append(found.values)
            rows.append(found.indices + start)
        if len(best) > 1:
            order = torch.cat(best, 1).topk(k, dim=1).indices
            rows = [torch.cat(rows, 1).gather(1, order)]
        return cast(Rows, rows[0].cpu().numpy())

    return search
