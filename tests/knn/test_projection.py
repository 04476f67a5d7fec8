"""What the projection makes of vectors, and that damaged arrays of one are refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from annotator.errors import AnnotatorError
from annotator.knn.projection import ARRAYS, Projection, standardised, unit

N, DIM, FIRST, OUT = 40, 12, 5, 8


def random_projection(unsupervised: int = FIRST, seed: int = 0) -> Projection:
    rng = np.random.default_rng(seed)
    mean, scale = rng.normal(size=DIM) / 10, rng.random(DIM) + 0.5
    matrix, shift = rng.normal(size=(DIM, OUT)), rng.normal(size=OUT) / 10
    arrays = [np.asarray(a, np.float32) for a in (mean, scale, matrix, shift)]
    return Projection(*arrays, unsupervised)  # type: ignore[call-arg, arg-type]


def random_vectors(n: int = N, seed: int = 1) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(n, DIM))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("first", [1, FIRST, OUT])
def test_a_plain_loop_gives_the_same(first: int) -> None:
    """Both parts of a result are of one norm, and the whole of norm 1."""
    projection, vectors = random_projection(first), random_vectors()
    found = projection.apply(vectors)
    assert found.shape == (N, OUT) and found.dtype == np.float32
    for vector, row in zip(vectors.astype(np.float64), found, strict=True):
        z = (vector - projection.mean) * projection.scale
        z /= np.linalg.norm(z)
        projected = z @ projection.matrix.astype(np.float64) - projection.shift
        parts = [part for part in (projected[:first], projected[first:]) if len(part)]
        expected = np.concatenate([part / np.linalg.norm(part) for part in parts])
        expected /= np.sqrt(len(parts))
        assert row == pytest.approx(expected, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.integers(0, N), max_size=6), at_once=st.integers(1, N))
def test_the_batch_leaves_no_trace(cuts: list[int], at_once: int) -> None:
    projection, vectors = random_projection(), random_vectors()
    whole = projection.apply(vectors)
    edges = [0, *sorted(cuts), N]
    parts = [projection.apply(vectors[a:b]) for a, b in pairwise(edges)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("annotator.knn.projection.ROWS_AT_ONCE", at_once)
        assert projection.apply(vectors).tobytes() == whole.tobytes()


def test_rows_are_those_of_the_whole() -> None:
    projection, vectors = random_projection(), random_vectors()
    rows = np.array([7, 0, 7, 39])
    assert np.array_equal(projection.apply(vectors, rows), projection.apply(vectors)[rows])
    assert projection.apply(vectors, rows[:0]).shape == (0, OUT)
    assert projection.apply(vectors[:0]).dtype == np.float32


def test_a_vector_without_direction_gets_one() -> None:
    """The mean itself standardises to zeros."""
    projection = random_projection()
    found = projection.apply(projection.mean[None])
    assert np.isfinite(found).all() and np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
    rows = unit(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, -2.0]]))
    assert rows == pytest.approx(np.array([[1, 0], [0.6, 0.8], [0, -1]]))
    z = standardised(projection.mean[None], projection.mean, projection.scale)
    assert z.tolist() == [[1.0] + [0.0] * (DIM - 1)]


# Its arrays in an index


def test_arrays_come_back() -> None:
    projection = random_projection()
    arrays = projection.to_arrays()
    assert all(name.startswith(ARRAYS) for name in arrays)
    back = Projection.from_arrays({**arrays, "another": np.zeros(3)})
    assert back is not None and (back.unsupervised, back.dim) == (FIRST, DIM)
    vectors = random_vectors()
    assert np.array_equal(back.apply(vectors), projection.apply(vectors))
    assert Projection.from_arrays({"another": np.zeros(3)}) is None


@pytest.mark.parametrize(
    ("name", "array"),
    [
        *((name, None) for name in ("mean", "scale", "matrix", "shift", "looks")),  # missing
        ("mean", np.zeros(DIM + 1, np.float32)),
        ("mean", np.zeros(DIM)),  # float64
        ("scale", np.full(DIM, np.nan, np.float32)),
        ("matrix", np.zeros((OUT, DIM), np.float32)),
        ("matrix", np.full((DIM, OUT), np.inf, np.float32)),
        ("shift", np.zeros(OUT - 1, np.float32)),
        ("looks", np.array([0])),
        ("looks", np.array([OUT + 1])),
        ("looks", np.array([], np.int64)),
        ("looks", np.array([np.inf])),
        ("an extra one", np.zeros(3, np.float32)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name: str, array: Any) -> None:
    arrays = random_projection().to_arrays() | {f"{ARRAYS}{name}": array}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    with pytest.raises(
        AnnotatorError, match=r"projection of the index is damaged|do not fit together"
    ):
        Projection.from_arrays(arrays)


# Products as sums


@given(st.integers(0, 2**32), st.integers(1, OUT))
@settings(deadline=None)
def test_products_are_sums_over_the_numbers_of_a_vector(seed: int, unsupervised: int) -> None:
    projection, vectors = random_projection(unsupervised, seed), random_vectors(seed=seed + 1)
    projected = projection.apply(vectors).astype(np.float64)
    targets = np.vstack([projected[1:], projected[1:4].sum(axis=0) - 2 * projected[5]])
    weights, constant = projection.similarity_as_sum(vectors[0], targets)
    assert weights.shape == (N, DIM)
    expected = targets @ projected[0]
    assert weights @ vectors[0].astype(np.float64) + constant == pytest.approx(expected, abs=1e-6)


def test_products_of_a_vector_without_a_direction() -> None:
    projection = random_projection()
    vectors = np.vstack([projection.mean[None], random_vectors()])
    projected = projection.apply(vectors).astype(np.float64)
    weights, constant = projection.similarity_as_sum(vectors[0], projected)
    assert not weights.any()
    assert constant == pytest.approx(projected @ projected[0], abs=1e-6)


def test_products_where_a_part_has_no_direction() -> None:
    whole = random_projection()
    z = standardised(random_vectors(), whole.mean, whole.scale)[0] @ whole.matrix
    shift = np.where(np.arange(OUT) < FIRST, z, whole.shift).astype(np.float32)
    matrix = whole.matrix.copy()
    matrix[:, :FIRST], shift[:FIRST] = 0, 0
    projection = Projection(whole.mean, whole.scale, matrix, shift, FIRST)
    projected = projection.apply(random_vectors()).astype(np.float64)
    weights, constant = projection.similarity_as_sum(random_vectors()[0], projected)
    expected = projected @ projected[0]
    assert weights @ random_vectors()[0] + constant == pytest.approx(expected, abs=1e-6)
