"""The table that a scan reads: its bounds hold whatever the vectors are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import FlatIndex
from index.search.pca_scan import ScanIndex
from index.search.scan_table import ScanTable, fit_axes, fit_table
from tests.index.indexes import unit


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 60),
    dim=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.0, 1e-6, 1e-3, 0.1, 1.0, 10.0]),
)
def test_bounds_are_never_below_the_similarity(
    n: int, dim: int, width: int, seed: int, spread: float
) -> None:
    """However alike the vectors are, and for queries from elsewhere."""
    rng = np.random.default_rng(seed)
    wide = rng.standard_normal(dim) + spread * rng.standard_normal((n, dim))
    vectors, queries = (
        (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        for rows in (wide, rng.standard_normal((5, dim)))
    )
    axes = fit_axes(vectors, min(width, dim))
    table = ScanTable(axes, np.concatenate(list(fit_table(vectors, axes))))
    assert table.table.shape == (n, min(width, dim)) and table.axes.shape == (
        dim,
        min(width, dim) - 1,
    )
    for asked in (queries, vectors):
        bounds = table.table.astype(np.float64) @ table.shorten(asked).T.astype(np.float64)
        exact = vectors.astype(np.float64) @ asked.T.astype(np.float64)
        assert (bounds - exact).min() > -1e-6


@pytest.mark.parametrize("seed", range(2))
def test_rows_that_differ_by_little_are_told_apart(seed: int) -> None:
    """What is left of a row beside the axes is near the rounding of float32, yet counts."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((3000, 3))
    rows[:, 0] = 1
    rows[:, 1:] = 2e-4 * rng.uniform(-1, 1, (3000, 2))
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    rows, queries = rows @ turn, rng.standard_normal((8, 3))
    vectors, asked = (
        (some / np.linalg.norm(some, axis=1, keepdims=True)).astype(np.float32)
        for some in (rows, queries)
    )
    axes = fit_axes(vectors, 2)
    table = ScanTable(axes, np.concatenate(list(fit_table(vectors, axes))))
    found, expected = (
        index.search(asked, 3) for index in (ScanIndex(vectors, table), FlatIndex(vectors))
    )
    assert np.array_equal(found.rows, expected.rows)
    assert np.array_equal(found.similarities, expected.similarities)


def test_axes_are_orthonormal_and_the_strongest_first() -> None:
    vectors = unit(3000, 48)
    axes = fit_axes(vectors, 20).astype(np.float64)
    assert axes.shape == (48, 19)
    assert np.abs(axes.T @ axes - np.eye(19)).max() < 1e-6
    strength = ((vectors.astype(np.float64) @ axes) ** 2).sum(axis=0)
    assert np.all(np.diff(strength) <= 1e-6 * strength[0])
    assert np.array_equal(fit_axes(vectors, 20), fit_axes(vectors.copy(), 20))
    assert np.array_equal(fit_axes(vectors, 7), fit_axes(vectors, 20)[:, :6])


def test_axes_are_left_out_where_they_save_nothing() -> None:
    assert fit_axes(unit(500, 24)).shape[1] in (0, 15)
    low = np.zeros((4000, 400), np.float32)
    low[:, :10] = unit(4000, 10)
    assert 0 < fit_axes(low).shape[1] < 40
