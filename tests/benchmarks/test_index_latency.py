"""The index benchmark, tiny, through its real processes; and what it counts with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.index_latency import __main__ as index_latency
from benchmarks.index_latency.adapters import SYSTEMS, torch_scan
from benchmarks.index_latency.data import Synthetic
from benchmarks.index_latency.recall import exact_neighbours, recall, similarities
from benchmarks.index_latency.report import at_recall, rates, shown
from benchmarks.index_latency.runner import WorkerFailed, pooled, run_worker
from index import FlatIndex


def rows_of(n: int, dim: int, stream: int = 0) -> np.ndarray:
    return np.concatenate(list(Synthetic(dim, n).chunks(n, stream)))


def test_synthetic_vectors_have_a_common_direction_and_few_axes() -> None:
    rows = rows_of(4000, 256)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert 0.25 < np.einsum("nd,nd->n", rows[:2000], rows[2000:]).mean() < 0.5
    variances = np.linalg.eigvalsh(np.cov(rows.T))[::-1]
    assert variances[:26].sum() > 0.5 * variances.sum()


def test_exact_neighbours_are_those_of_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.index_latency.recall._ROWS_AT_ONCE", 300)
    vectors, queries = rows_of(2000, 24), rows_of(2000, 24, stream=1)[:40]
    vectors[500:520] = vectors[7]  # ties
    rows, found = exact_neighbours(vectors, queries, 30)
    expected = FlatIndex(vectors).search(queries, 30)
    assert np.allclose(found, expected.similarities, atol=1e-6)
    assert recall(rows, similarities(vectors, queries, rows), found) == 1
    theirs = similarities(vectors, queries, expected.rows)
    assert recall(expected.rows, theirs, found) == 1


def test_recall_is_by_distance() -> None:
    vectors = np.eye(6, dtype=np.float32)
    vectors[3] = vectors[2]  # rows 2 and 3 are as near as each other
    query = (vectors[1] * 0.8 + vectors[2] * 0.6)[None]
    _, exact = exact_neighbours(vectors, query, 2)

    def measured(*rows: int) -> float:
        some = np.array([rows], np.int64)
        return recall(some, similarities(vectors, query, some), exact)

    assert measured(1, 2) == measured(1, 3) == measured(3, 1) == 1
    assert measured(1, 5) == measured(1, -1) == 0.5
    assert measured(1, 1) == 0.5  # twice the same row
    assert measured(-1, -1) == 0


def test_queries_a_second_at_a_recall() -> None:
    curve = [(0.9, 1000.0), (0.99, 100.0), (0.95, 50.0)]  # the last is beaten by the second
    assert at_recall(curve, 0.9) == at_recall(curve, 0.5) == 1000
    assert at_recall(curve, 0.945) == pytest.approx(10**2.5)
    assert at_recall(curve, 0.999) is None


def test_a_scan_by_torch_in_parts_finds_the_nearest() -> None:
    import torch

    vectors, queries = rows_of(3000, 16), rows_of(3000, 16, stream=1)[:9]
    _, exact = exact_neighbours(vectors, queries, 20)
    for at_once in (2**28, 9 * 500, 1):
        search = torch_scan.search_by(torch.from_numpy(vectors), at_once)
        rows = search(queries, 20, {})
        assert recall(rows, similarities(vectors, queries, rows), exact) == 1


@pytest.mark.parametrize(
    "key", ["faiss-rabitq", "faiss-hnsw", "hnswlib", "usearch", "scann", "svs"]
)
def test_peers_find_nearly_all(key: str, tmp_path: Path) -> None:
    system = SYSTEMS[key]
    if missing := system.missing():
        pytest.skip(f"{missing} is not installed")
    vectors, queries = rows_of(1500, 32), rows_of(1500, 32, stream=1)[:20]
    np.save(tmp_path / "vectors.npy", vectors)
    *_, point = system.build(tmp_path / "vectors.npy", tmp_path, 1)
    rows = system.open(tmp_path / "vectors.npy", tmp_path, 1, point)(queries, 10, point)
    _, exact = exact_neighbours(vectors, queries, 10)
    assert recall(rows, similarities(vectors, queries, rows), exact) > 0.95


def test_a_worker_that_fails_says_why(tmp_path: Path) -> None:
    task = {"system": "flat", "points": [], "queries": str(tmp_path / "none")}
    with pytest.raises(WorkerFailed, match="No such file"):
        run_worker(task, 1)


def test_repeats_are_pooled_and_the_quickest_that_is_enough_is_shown() -> None:
    def cell(point: str, repeat: int, seconds: float, recall: float) -> dict[str, Any]:
        of = {"point": point, "k": 50, "lone_s": [seconds] * 50, "batch_s": {"32": [seconds] * 2}}
        of |= {"cpu_s": {"1": seconds / 2, "32": seconds / 4}}
        points = [{"name": point, "effort": 1}]
        build = {"seconds": 2.0, "threads": 2, "bytes": 7, "points": points, "memory": {}}
        return {
            "when": "", "machine": {}, "system": "hnswlib", "n": 1000, "dim": 10, "threads": 2,
            "repeat": repeat, "data": "", "load_s": 1.0, "cold_s": 0.5, "build": build,
            "memory": {"device": None}, "measures": [of | ({} if repeat else {"recall": recall})],
        }  # fmt: skip

    cells = [cell("ef 64", 0, 0.002, 0.985), cell("ef 64", 1, 0.004, 0.985)]
    records = pooled([*cells, cell("ef 16", 0, 0.001, 0.9), cell("ef 512", 0, 0.1, 1.0)])
    (record,) = shown(records)
    assert (record["point"], record["recall"], record["repeats"]) == ("ef 64", 0.985, 2)
    assert (record["lone_queries"], record["p50_ms"], record["p99_ms"]) == (100, 3.0, 4.0)
    assert record["queries_per_second"] == {"1": 375, "32": 12000}
    assert record["cpu_ms"] == {"1": 1.5, "32": 0.75}
    assert rates(record)["queries a CPU second, 32 at once"] == pytest.approx(1000 / 0.75)
    assert "lone queries/s" in rates({k: v for k, v in record.items() if k != "cpu_ms"})


def test_a_build_that_takes_too_long_is_given_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = "--only ivf --n 300 --dim 16 --k 10 --threads 1 --repeats 1 --build-s 0.001"
    given += f" --work {tmp_path / 'w'} --results {tmp_path / 'r'}"
    for _ in range(2):  # the second time it is not tried
        with pytest.raises(SystemExit, match="No cell could be measured"):
            index_latency.main(given.split())
        assert "ivf, 300 x 16, 1 threads: failed, its build was given up" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_tiny_run(tmp_path: Path, results: Path) -> None:
    given = "--only flat,ivf,faiss-ivf --n 2000 --dim 32 --k 10 --batch 1,8 --threads 1"
    given += f" --repeats 1 --lone 20 --batch-s 0.01 --work {tmp_path / 'w'} --results {results}"
    index_latency.main(given.split())
    lines = (results / "index_latency.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert {r["system"] for r in records} == {"flat", "ivf", "faiss-ivf"}
    assert sum(r["default"] for r in records if r["system"] == "ivf") == 1
    for record in records:
        assert record["recall"] == 1 or record["system"] != "flat"
        assert record["lone_recall"] == 1 or record["system"] != "flat"
        assert 0 < record["lone_recall"] <= 1 and all(v > 0 for v in record["cpu_ms"].values())
        assert record["p99_ms"] >= record["p50_ms"] > 0
        assert record["peak_bytes"] > 2**24 and record["build_s"] > 0
    assert len(list(results.glob("*.png"))) == 1
