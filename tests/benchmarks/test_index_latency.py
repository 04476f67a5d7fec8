"""The index benchmark, tiny, through its real processes; and what it counts with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import common
import index_latency
import index_overhead
import numpy as np
import pytest
from index_latency_parts import peers, worker
from index_latency_parts.collection import FEATURES, Real
from index_latency_parts.cuda import TorchScan
from index_latency_parts.data import QUERIES, prepare
from index_latency_parts.evaluate import evaluate
from index_latency_parts.process import WorkerFailed, memory_now, run_worker
from index_latency_parts.ratios import at_recall, ratios, shown
from index_latency_parts.records import pooled
from index_latency_parts.runner import Grid, cells_of, usable
from index_latency_parts.synthetic import Synthetic, SyntheticLabels
from index_latency_parts.truth import exact_neighbours, recall, similarities

from index.search.flat import FlatIndex


def rows_of(n: int, dim: int, seed: int = 0, stream: int = 0) -> np.ndarray:
    return np.concatenate([rows for rows, _ in Synthetic(dim, n, seed).chunks(n, stream)])


def test_synthetic_vectors_are_the_same_for_the_same_seed() -> None:
    assert np.array_equal(rows_of(3000, 32), rows_of(3000, 32))
    assert not np.allclose(rows_of(3000, 32), rows_of(3000, 32, seed=1))
    assert not np.allclose(rows_of(3000, 32), rows_of(3000, 32, stream=1))


def test_synthetic_vectors_come_in_parts_that_do_not_depend_on_how_many_are_wanted() -> None:
    model = Synthetic(16, 200_000)
    parts = list(model.chunks(100_000))
    assert [len(rows) for rows, _ in parts] == [65536, 34464]
    first, of = next(model.chunks(70_000))
    assert np.array_equal(first, parts[0][0]) and np.array_equal(of, parts[0][1])


def test_synthetic_vectors_lie_as_real_features_do() -> None:
    rows, of = next(Synthetic(512, 20_000).chunks(20_000))
    assert rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    pairs = np.einsum("nd,nd->n", rows[:10_000], rows[10_000:])
    assert 0.25 < pairs.mean() < 0.5  # a common direction
    variances = np.linalg.eigvalsh(np.cov(rows.T))[::-1]
    assert variances[:51].sum() > 0.5 * variances.sum()  # a tenth of the axes have most of it
    similarity = rows[:500] @ rows.T
    similarity[np.arange(500), np.arange(500)] = -1
    nearest = similarity.argmax(axis=1)
    assert (of[nearest] == of[:500]).mean() > 0.5  # clusters, which are not all there is
    assert 0.6 < similarity.max(axis=1).mean() < 0.98


def test_labels_of_clusters_and_of_rows() -> None:
    labels, again = SyntheticLabels(200, seed=3), SyntheticLabels(200, seed=3)
    sets = [labels.of_cluster(i) for i in range(200)]
    assert sets == [again.of_cluster(i) for i in range(200)]
    assert {len(s) for s in sets} <= set(range(1, 9)) and len(set(sets)) > 100
    counts = np.bincount([cui for s in sets for cui in s], minlength=2000)
    assert counts[:10].sum() > counts[1000:].sum()  # Zipf
    own = labels.own(65536, 3000)
    assert np.array_equal(own, again.own(65536, 3000))
    assert np.allclose([(own[:, 0] < 0).mean(), (own[:, 1] < 0).mean()], [1 / 3, 2 / 3], atol=0.05)


def test_exact_neighbours_are_those_of_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index_latency_parts.truth._ROWS_AT_ONCE", 300)
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


def test_recall_counts_what_is_as_near_at_most_k_times() -> None:
    exact = np.array([[0.9, 0.8]])
    rows = np.array([[4, 9]], np.int64)
    assert recall(rows, np.array([[0.8, 0.8]]), exact) == 1
    assert recall(rows, np.array([[0.8 - 1e-4, 0.9]]), exact) == 0.5


def test_queries_a_second_at_a_recall() -> None:
    curve = [(0.9, 1000.0), (0.99, 100.0), (0.95, 50.0)]  # the last is beaten by the second
    assert at_recall(curve, 0.9) == 1000
    assert at_recall(curve, 0.99) == 100
    assert at_recall(curve, 0.945) == pytest.approx(10**2.5)
    assert at_recall(curve, 0.5) == 1000
    assert at_recall(curve, 0.999) is None
    assert at_recall([(1.0, 7.0)], 0.2) == 7
    assert at_recall([], 0.2) is None


def test_cells_come_cheapest_first_and_repeats_apart() -> None:
    grid = Grid(("compressed", "scan"), (2000, 100), (8,), (5,), (1,), (1,), repeats=2)
    cells = [(c.n, c.repeat, c.system.key) for c in cells_of(grid)]
    assert cells == [
        (n, repeat, key) for n in (100, 2000) for repeat in (0, 1) for key in ("scan", "compressed")
    ]


def test_systems_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "hnswlib" else find(name)
    )
    said: list[str] = []
    assert usable(["scan", "hnswlib"], said.append) == ("scan",)
    assert said == ["hnswlib is left out: hnswlib is not installed"]


def test_a_worker_that_fails_says_why(tmp_path: Path) -> None:
    task = {"stage": "search", "system": "flat", "points": [], "queries": str(tmp_path / "none")}
    with pytest.raises(WorkerFailed, match="No such file"):
        run_worker(task, 1)


def test_memory_is_read_from_the_kernel() -> None:
    now = memory_now()
    assert now["VmHWM"] >= now["VmRSS"] > 2**20
    assert abs(now["RssAnon"] + now["RssFile"] + now["RssShmem"] - now["VmRSS"]) < 2**22
    assert memory_now(2**30) == {}


def test_a_scan_by_torch_in_parts_finds_the_nearest(tmp_path: Path) -> None:
    vectors, queries = rows_of(3000, 16), rows_of(3000, 16, stream=1)[:9]
    np.save(tmp_path / "vectors.npy", vectors)
    _, exact = exact_neighbours(vectors, queries, 20)
    for at_once in (2**28, 9 * 500, 1):
        scan = TorchScan(tmp_path / "vectors.npy", "cpu", tf32=False, at_once=at_once)
        rows = scan.search(queries, 20)
        assert recall(rows, similarities(vectors, queries, rows), exact) == 1


@pytest.mark.parametrize("package", ["hnswlib", "usearch"])
def test_peers_with_graphs(package: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    vectors, queries = rows_of(1500, 32), rows_of(1500, 32, stream=1)[:20]
    np.save(tmp_path / "vectors.npy", vectors)
    build = peers.build_hnswlib if package == "hnswlib" else peers.building_usearch("f32")
    open_ = peers.Hnswlib if package == "hnswlib" else peers.opening_usearch("f32")
    points = build(tmp_path / "vectors.npy", tmp_path, 1)
    searcher = open_(tmp_path / "vectors.npy", tmp_path, 1, points[-1])
    _, exact = exact_neighbours(vectors, queries, 10)
    rows = searcher.search(queries, 10)
    assert recall(rows, similarities(vectors, queries, rows), exact) > 0.95
    assert np.array_equal(searcher.search(queries[:1], 10), rows[:1])


def test_efforts_that_a_graph_raises_to_k_are_measured_once() -> None:
    kept = [p["effort"] for p in peers._efforts() if worker._differs(p, 50)]
    assert kept == [32, 64, 128, 256, 512]
    assert worker._differs({"name": "nprobe 1", "effort": 1}, 50)


def test_f1_of_worse_neighbours_is_less(tmp_path: Path) -> None:
    data = prepare(tmp_path, 2000, 32, 0, None)
    known: dict[Any, float] = {}
    exact = evaluate(data, data.rows[:, :10], known)
    assert exact["recall"] == 1 and exact["f1_change"] == 0 and 0.3 < exact["f1"] < 1
    partly = data.rows[:, :10].copy()
    partly[::2] = np.random.default_rng(0).integers(0, 2000, partly[::2].shape)
    partly[1, 4:] = -1
    worse = evaluate(data, partly, known)
    assert 0.45 < worse["recall"] < 0.55 and worse["f1_change"] < -0.1


def test_a_collection_is_planted_and_asked_about(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    features = rng.standard_normal((40, FEATURES)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = [frozenset((f"C{9000000 + i // 2}",)) for i in range(40)]
    real = Real("made up", features[::2], features[1::2] + 0.0, labels[::2], labels[1::2])
    real.test[:] = real.train  # so that each test image finds its own row
    data = prepare(tmp_path, 1000, 16, 0, real)
    assert len(data.queries) == QUERIES + 20
    assert real.vectors(FEATURES)[0] is real.train
    nearest = data.rows[:, :1]
    result = evaluate(data, nearest, {})
    assert result["real_f1"] == 1 and result["real_f1_change"] == 0
    shorter = real.vectors(16)
    assert shorter[0].shape == shorter[1].shape == (20, 16)
    assert np.allclose(np.linalg.norm(shorter[0], axis=1), 1, atol=1e-5)
    with pytest.raises(SystemExit, match="1280"):
        real.vectors(2000)


def cell(system: str, repeat: int, point: str, **measure: Any) -> dict[str, Any]:
    points = [{"name": point, "default": system == "ivf"}]
    memory = {"VmHWM": 100, "RssAnon": 60, "RssFile": 40, "device": None}
    return {
        "when": "now", "machine": {}, "system": system, "n": 1000, "dim": 10, "threads": 2,
        "repeat": repeat, "data": "some", "sources": "these", "load_s": 1.0, "cold_s": 0.5,
        "build": {"seconds": 2.0, "threads": 2, "bytes": 7, "vectors_too": False,
                  "points": points, "memory": memory},
        "measures": [{"point": point, "k": 50, **measure}],
        "memory": memory, "memory_before": memory, "peak": memory,
    }  # fmt: skip


def test_repeats_are_pooled() -> None:
    cells = [
        cell("faiss-flat", 0, "exact", lone_s=[0.001] * 50, batch_s={"32": [0.01]}, recall=1.0),
        cell("faiss-flat", 1, "exact", lone_s=[0.003] * 50, batch_s={"32": [0.02, 0.02]}),
    ]
    (record,) = pooled(cells, {"2": 40_000_000.0})
    assert (record["lone_queries"], record["p50_ms"], record["p99_ms"]) == (100, 2.0, 3.0)
    assert record["queries_per_second"]["32"] == pytest.approx((3200 + 1600) / 2)
    assert record["recall"] == 1 and record["f1"] is None and record["repeats"] == 2
    assert record["bandwidth_share"]["32"] == pytest.approx(40_000 * 75 / 40e6)
    assert record["file_bytes"] == 7 and record["peak_anonymous_bytes"] == 60
    assert len(record["lone_us"]) == 100 and record["batch_us"]["32"] == [10000, 20000, 20000]


def test_tables_show_the_quickest_effort_that_is_enough() -> None:
    cells = [
        cell("hnswlib", 0, f"ef {ef}", lone_s=[seconds], batch_s={}, recall=found)
        for ef, seconds, found in ((16, 0.001, 0.9), (64, 0.002, 0.985), (512, 0.1, 1.0))
    ]
    cells.append(cell("scan", 0, "exact", lone_s=[0.001], batch_s={}, recall=1.0))
    cells.append(cell("faiss-flat", 0, "exact", lone_s=[0.004], batch_s={}, recall=1.0))
    records = pooled(cells, {})
    assert [r["point"] for r in shown(records)] == ["ef 64", "exact", "exact"]
    found = {entry["what"]: entry["value"] for entry in ratios(records)}
    assert found["scan / faiss-flat, lone"] == 4
    assert found["scan / faiss-flat, p50"] == 0.25


def arguments(tmp_path: Path) -> list[str]:
    text = "--only auto,ivf,faiss-flat,faiss-ivf --n 2000 --dim 32 --k 10 --batch 1,8 --threads 1"
    text += " --repeats 2 --lone 20 --batch-s 0.01"
    return [*text.split(), "--work", str(tmp_path / "w"), "--results", str(tmp_path / "results")]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_tiny_run_and_one_that_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    index_latency.main(arguments(tmp_path))
    printed = capsys.readouterr()
    assert printed.err.count(", repeat ") == 8
    results = tmp_path / "results"
    lines = (results / "index_latency.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    by_system = {r["system"]: r for r in records if r["point"] != "nprobe 1"}
    assert by_system.keys() == {"flat", "ivf", "faiss-flat", "faiss-ivf"}
    assert by_system["flat"]["recall"] == by_system["faiss-flat"]["recall"] == 1
    assert {r["point"] for r in records if r["system"] == "ivf"} == {
        "target 0.9", "target 0.95", "target 0.98", "target 0.99"
    }  # fmt: skip
    for record in records:
        assert record["machine"]["cores"] and record["lone_queries"] == len(record["lone_us"]) == 20
        assert record["queries_per_second"].keys() == {"1", "8"}
        assert record["p99_ms"] >= record["p95_ms"] >= record["p50_ms"] > 0
        assert record["peak_bytes"] > 2**24 and record["load_s"] > 0 and record["cold_ms"] > 0
        assert record["file_bytes"] >= 2000 * 32 * 4 and record["f1_change"] is not None
    assert "scan / faiss-flat" not in printed.out and "flat / faiss-flat, lone" in printed.out
    assert {path.suffix for path in results.iterdir()} == {".jsonl", ".md", ".png"}
    assert len(list(results.glob("*.png"))) == 3

    one = next((tmp_path / "w" / "cells").glob("*.json"))
    one.unlink()
    index_latency.main(arguments(tmp_path))
    assert capsys.readouterr().err.count(", repeat ") == 1  # that one alone
    assert one.exists()
    assert not list((tmp_path / "w" / "running").iterdir())


def test_options_that_make_no_sense(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    for given in (["--only", "nothing"], ["--k", "51"], ["--images", "here"]):
        with pytest.raises(SystemExit):
            index_latency.main([*given, "--work", str(tmp_path)])
    assert "There is no system 'nothing'" in capsys.readouterr().err


@pytest.mark.slow
def test_overhead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    given = f"--n 2000 --dim 32 --rounds 1 --threads 1 --work {tmp_path}"
    index_overhead.main(given.split())
    lines = (tmp_path / "results" / "index_overhead.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [r["kind"] for r in records] == ["flat", "scan", "ivf"]
    for record in records:
        assert record["batches"] == len(record["bare_us"]) == 31
        assert record["ratio"] > record["ratio_of_search"] > 0
    assert list((tmp_path / "data").iterdir())
