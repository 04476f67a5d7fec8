"""The contract of every kind of vector index: its values are those of brute force in float64."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import FlatIndex, IndexProblem, VectorIndex
from index.search import pca_scan as scan
from index.search.build import Kind, build_files, open_files
from index.search.pca_scan import ScanIndex
from index.search.scan_table import ScanTable, fit_axes, fit_table
from index.search.segmented import SegmentedIndex
from tests.index.indexes import Vectors, unit

Make = Callable[[Vectors], VectorIndex]


EVERYTHING = {"effort": 4096, "width": 64}  # nprobe and k_factor


def made(kind: Kind) -> Make:
    """An index through its files, tuned to find everything."""

    def make(vectors: Vectors) -> VectorIndex:
        if len(vectors) == 0:
            return FlatIndex(vectors)  # nothing is built of no rows
        with tempfile.TemporaryDirectory() as folder:
            params = build_files(kind, vectors, Path(folder), target_recall=1.0)
            return open_files(kind, vectors, Path(folder), params | EVERYTHING)

    return make


def scanned(width: int) -> Make:
    """A scan by a table of so many numbers a row."""

    def make(vectors: Vectors) -> VectorIndex:
        if len(vectors) == 0:
            return FlatIndex(vectors)
        axes = fit_axes(vectors, min(width, vectors.shape[1]))
        return ScanIndex(vectors, ScanTable(axes, np.concatenate(list(fit_table(vectors, axes)))))

    return make


def in_two(vectors: Vectors) -> VectorIndex:
    """Two segments, with rows in both that were removed."""
    n = len(vectors)
    live = np.arange(2 * n) % 2 == 0
    rows = np.repeat(vectors, 2, axis=0)  # every removed row has the vector of one that is live
    half = len(rows) // 3
    return SegmentedIndex([FlatIndex(rows[:half].copy()), FlatIndex(rows[half:].copy())], live)


KINDS: dict[str, Make] = {
    "flat": FlatIndex,
    "scan": made("scan"),
    "scan of few rows at once": scanned(9),
    "ivf": made("ivf"),
    "compressed": made("compressed"),
    "segmented": in_two,
}


@pytest.fixture(params=sorted(KINDS))
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Make:
    if request.param == "scan of few rows at once":
        monkeypatch.setattr(scan, "_BOUNDS_AT_ONCE", 64)
        monkeypatch.setattr(scan, "_SAMPLE", (32, 100))
        monkeypatch.setattr(scan, "_BLOCK", 2)
        monkeypatch.setattr(scan, "_FEW_ROWS", 10)
        monkeypatch.setattr(scan, "_BATCH", 30)
    return KINDS[request.param]


def brute_force(vectors: Vectors, queries: Vectors, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar rows in float64, equal vectors by row."""
    similarities = queries.astype(np.float64) @ vectors.astype(np.float64).T
    rows = np.argsort(-np.round(similarities, 9), axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(similarities, rows, axis=1)


@pytest.mark.parametrize(("dim", "k"), [(1, 5), (24, 1), (24, 50), (512, 50)])
def test_rows_and_similarities_are_those_of_brute_force(make: Make, dim: int, k: int) -> None:
    vectors, queries = unit(400, dim), unit(40, dim, seed=1)
    found = make(vectors).search(queries, k)
    rows, similarities = brute_force(vectors, queries, k)
    assert found.rows.dtype == np.int64 and found.similarities.dtype == np.float32
    assert np.abs(found.similarities - similarities).max() < 1e-6
    # Rows that float32 cannot tell apart may change places.
    exact = np.take_along_axis(
        queries.astype(np.float64) @ vectors.T.astype(np.float64), found.rows, 1
    )
    assert np.abs(exact - similarities).max() < 1e-6
    if dim >= 24:
        assert np.array_equal(found.rows, rows)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_ties_are_in_the_order_of_rows(data: st.DataObject) -> None:
    # Few different vectors, each many times: more ties than fit beside the k that are asked for.
    n, k = data.draw(st.integers(1, 120)), data.draw(st.integers(1, 130))
    seed, different = data.draw(st.integers(0, 99)), data.draw(st.integers(1, 4))
    copies = np.random.default_rng(seed).integers(different, size=n)
    vectors = unit(different, seed=seed)[copies]
    for kind in KINDS:
        found = KINDS[kind](vectors).search(vectors, k)
        rows, _ = brute_force(vectors, vectors, k)
        assert np.array_equal(found.rows, rows)


def test_each_vector_finds_itself_or_the_first_copy(make: Make) -> None:
    vectors = np.concatenate([unit(30), unit(30)])
    found = make(vectors).search(vectors, 2)
    first = np.tile(np.arange(30), 2)
    assert np.array_equal(found.rows, np.stack([first, first + 30], axis=1))
    assert np.array_equal(found.similarities[:, 0], found.similarities[:, 1])
    assert found.similarities == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("n", "k"), [(0, 3), (1, 1), (1, 50), (7, 50)])
def test_an_index_with_fewer_rows_than_k_returns_them_all(make: Make, n: int, k: int) -> None:
    found = make(unit(n)).search(unit(3, seed=1), k)
    assert found.rows.shape == found.similarities.shape == (3, min(n, k))
    assert all(sorted(row) == list(range(n)) for row in found.rows.tolist())


def test_a_lone_query_equals_one_of_a_batch_bit_for_bit(make: Make) -> None:
    # More queries than are searched at once, and duplicates among the rows.
    vectors = unit(300, 200)
    vectors[200:] = vectors[:100]
    queries = unit(1100, 200, seed=1)
    index = make(vectors)
    batch = index.search(queries, 20)
    for i in (0, 1, 500, 1023, 1024, 1099):
        lone = index.search(queries[i : i + 1], 20)
        assert np.array_equal(lone.rows[0], batch.rows[i])
        assert np.array_equal(lone.similarities[0], batch.similarities[i])


def test_neither_layout_nor_memory_mapping_nor_a_larger_k_changes_anything(
    make: Make, tmp_path: Path
) -> None:
    vectors, queries = unit(200), unit(10, seed=1)
    index = make(vectors)
    plain = index.search(queries, 9)
    assert index.search(queries[:0], 9).rows.shape == (0, 9)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = make(np.load(tmp_path / "vectors.npy", mmap_mode="r"))
    for found in (
        index.search(np.asfortranarray(queries), 9),
        index.search(np.repeat(queries, 2, axis=0)[::2], 9),
        mapped.search(queries, 9),
        index.search(queries, 90),
    ):
        assert np.array_equal(found.rows[:, :9], plain.rows)
        assert np.array_equal(found.similarities[:, :9], plain.similarities)
    assert (len(index), index.dim) == (200, 24) and index.kind in KINDS


def spoiled(value: float) -> Vectors:
    queries = unit(3, seed=1)
    queries[1, 0] = value
    return queries


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (spoiled(5.0), "row 1 has norm 5"),
        (spoiled(float("nan")), "row 1 has norm nan"),
        (np.zeros((1, 24), np.float32), "row 0 has norm 0"),
        (unit(2, 23), "23 dimensions, the index has 24"),
        (unit(2).astype(np.float64), "float64"),
        (unit(2).astype(">f4"), ">f4"),
        (unit(1)[0], "float32"),
    ],
)
def test_queries_that_cannot_be_compared_are_refused(queries: Vectors, message: str) -> None:
    for index in (FlatIndex(unit(9)), in_two(unit(9))):
        with pytest.raises(IndexProblem, match=message):
            index.search(queries, 1)


def test_k_below_one_is_refused() -> None:
    for index in (FlatIndex(unit(9)), in_two(unit(9))):
        with pytest.raises(IndexProblem, match="at least 1"):
            index.search(unit(1), 0)


@pytest.mark.parametrize(
    "vectors", [unit(4).astype(np.float64), unit(4)[0], np.asfortranarray(unit(4)), unit(8)[::2]]
)
def test_vectors_of_another_layout_are_refused(vectors: Vectors) -> None:
    with pytest.raises(IndexProblem, match="C-contiguous float32"):
        FlatIndex(vectors)


def test_vectors_that_are_not_finite_never_give_row_minus_one(make: Make) -> None:
    vectors = unit(5)
    vectors[:] = np.nan
    with pytest.raises(IndexProblem, match="not finite"):
        make(vectors).search(unit(1), 3)
