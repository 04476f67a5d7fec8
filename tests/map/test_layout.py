"""Two dimensions of many: principal components against a decomposition of the whole."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from annotator.errors import AnnotatorError
from annotator.map.layout import Layout, pca, umap

Vectors = NDArray[np.float32]


def blocks(vectors: Vectors, at_once: int = 7) -> Callable[[], Iterable[Vectors]]:
    return lambda: (vectors[i : i + at_once] for i in range(0, len(vectors), at_once))


def random_vectors(n: int, dim: int, seed: int = 0) -> Vectors:
    rng = np.random.default_rng(seed)
    spread = rng.normal(size=(n, dim)) * 0.7 ** np.arange(dim) + rng.normal(size=dim)
    return (spread / np.linalg.norm(spread, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 60), st.integers(2, 12), st.integers(1, 70), st.integers(0, 99))
def test_principal_components_are_those_of_the_whole(
    n: int, dim: int, at_once: int, seed: int
) -> None:
    vectors = random_vectors(n, dim, seed)
    layout = pca(blocks(vectors, at_once))
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * values[:2]
    # Up to their signs; equal variances would leave the directions open.
    np.testing.assert_allclose(np.abs(layout.positions), np.abs(expected), atol=2e-3)
    shares = (values**2 / (values**2).sum())[:2]
    assert [f"{share:.0%}" for share in shares] == [axis.split()[3] for axis in layout.axes]


def test_the_sign_does_not_depend_on_the_order() -> None:
    vectors = random_vectors(50, 6)
    shuffled = np.random.default_rng(1).permutation(50)
    there, here = pca(blocks(vectors[shuffled])), pca(blocks(vectors))
    np.testing.assert_allclose(there.positions, here.positions[shuffled], atol=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_components_point_to_their_largest_coefficient(seed: int) -> None:
    vectors = random_vectors(40, 6, seed)
    axes, *_ = np.linalg.lstsq(vectors - vectors.mean(axis=0), pca(blocks(vectors)).positions)
    assert (axes[np.abs(axes).argmax(axis=0), [0, 1]] > 0).all()


def test_single_precision_is_enough_far_from_the_origin() -> None:
    near = random_vectors(400, 8)
    base = np.zeros((400, 8), np.float32)
    base[:, 0] = 1
    layout = pca(blocks(base + near * np.float32(1e-3), 64))
    expected = pca(blocks(near, 64)).positions * 1e-3
    np.testing.assert_allclose(layout.positions, expected, atol=2e-6)


@pytest.mark.parametrize("vectors", [[[1.0, 0]], [[0.6, 0.8]] * 5, [[1.0], [1.0], [-1.0]]])
def test_too_little_to_spread(vectors: list[list[float]]) -> None:
    layout = pca(blocks(np.array(vectors, np.float32)))
    assert layout.positions.shape == (len(vectors), 2)
    assert np.isfinite(layout.positions).all()
    assert "0% of the variance" in layout.axes[1]


needs_umap = pytest.mark.skipif(
    importlib.util.find_spec("umap") is None, reason="umap-learn is not installed"
)


@needs_umap
@pytest.mark.slow
def test_umap_keeps_bunches_apart_and_repeats_itself() -> None:
    rng = np.random.default_rng(0)
    kind = np.arange(90) % 3
    vectors = np.eye(8)[kind] + rng.normal(0, 0.05, (90, 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    first, again = umap(blocks(vectors)), umap(blocks(vectors))
    np.testing.assert_array_equal(first.positions, again.positions)
    middles = np.array([first.positions[kind == k].mean(axis=0) for k in range(3)])
    to_middles = np.linalg.norm(first.positions[:, None] - middles, axis=2)
    np.testing.assert_array_equal(to_middles.argmin(axis=1), kind)
    assert first.axes == ("UMAP 1", "UMAP 2")


@needs_umap
@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16])
def test_umap_of_few(n: int) -> None:
    layout: Layout = umap(blocks(random_vectors(n, 5)))
    assert layout.positions.shape == (n, 2) and np.isfinite(layout.positions).all()


def test_without_umap_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AnnotatorError, match=r"umap-learn, which is not installed") as caught:
        umap(blocks(random_vectors(9, 3)))
    assert 'pip install "cui-annotator[umap]"' in caught.value.hint
