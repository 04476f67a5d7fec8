"""Dimensionality reduction for a map: principal components and UMAP."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.errors import AnnotatorError
from index.distribution import pip_install

Blocks = Callable[[], Iterable[NDArray[np.float32]]]

_UMAP_NEIGHBORS = 15


@dataclass(frozen=True)
class Layout:
    """Positions in two dimensions.

    Attributes:
        positions: float64[n, 2].
        axes: Label of each axis.
    """

    positions: NDArray[np.float64]
    axes: tuple[str, str]


def pca(blocks: Blocks) -> Layout:
    """First two principal components.

    The covariance is accumulated block by block, so the vectors are never all in memory. The sign
    of a component makes its largest coefficient positive.

    Args:
        blocks: Returns all vectors in order, in blocks float32[m, dim]; called twice.
    """
    center, covariance = _moments(blocks())
    values, directions = np.linalg.eigh(covariance)
    values, axes = values[::-1][:2].clip(0), directions[:, ::-1][:, :2]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.where(axes[largest, range(axes.shape[1])] < 0, -1, 1)
    positions = np.concatenate([(block - center) @ axes for block in blocks()])
    shares = values / (float(np.trace(covariance)) or 1.0)
    if axes.shape[1] == 1:  # vectors of one number
        positions, shares = np.pad(positions, ((0, 0), (0, 1))), np.append(shares, 0.0)
    first, second = (
        f"principal component {i}, {share:.0%} of the variance" for i, share in enumerate(shares, 1)
    )
    return Layout(positions, (first, second))


def umap(blocks: Blocks, *, seed: int = 0) -> Layout:
    """UMAP (McInnes, Healy and Melville 2018), initialised with the principal components.

    Runs on one thread, since several are not reproducible, despite the seed.

    Args:
        blocks: As for `pca`, but all vectors are loaded into memory.
        seed: Random seed.

    Raises:
        AnnotatorError: umap-learn is not installed.
    """
    if importlib.util.find_spec("umap") is None:
        raise AnnotatorError(
            "--method umap needs umap-learn, which is not installed.",
            f"{pip_install('umap')}, or use --method pca.",
        )
    start = pca(blocks).positions
    if len(start) > 3:  # UMAP needs neighbourhoods
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from numba, and about the single thread
            library = importlib.import_module("umap")
            start = library.UMAP(
                n_neighbors=min(_UMAP_NEIGHBORS, len(start) - 1),
                init=(start / (np.abs(start).max() or 1.0) * 10).astype(np.float32),
                random_state=seed,
                n_jobs=1,
            ).fit_transform(np.concatenate(list(blocks())))
    return Layout(np.asarray(start, np.float64), ("UMAP 1", "UMAP 2"))


def _moments(
    blocks: Iterable[NDArray[np.float32]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean, float64[dim], and covariance, float64[dim, dim]."""
    n, about, total, products = 0, None, 0.0, 0.0
    for block in blocks:
        if about is None:  # roughly centred, so that single precision suffices
            about = block.mean(axis=0)
        shifted = block - about
        n += len(block)
        total = total + shifted.sum(axis=0, dtype=np.float64)
        products = products + (shifted.T @ shifted).astype(np.float64)
    assert about is not None, "no vectors"
    shift = np.asarray(total) / n
    return about + shift, np.asarray(products) / n - np.outer(shift, shift)
