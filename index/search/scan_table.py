"""The table of short vectors that `pca_scan` scans: fitting its axes, and choosing its width."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.sampling import sample_rows
from index.search.base import not_finite

Floats = NDArray[np.float32]

WIDTHS = (16, 32, 64, 96, 128, 160, 192, 256, 320, 384, 512)
_FITTED = 16384  # rows that the axes are taken from
_COMPARED = 32768  # rows among which the widths are compared
_PROBES = 48
_TYPICAL_K = 50
# What a number of the scan costs against a number of a full comparison, and against its overhead:
# measured with benchmarks/index_latency, rounded.
_COST_OF_NUMBER, _COST_OF_PAIR = 9.0, 4000.0

ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class ScanTable:
    """Short vectors that bound similarities.

    Attributes:
        axes: float32[dim, width - 1], orthonormal columns, the strongest first.
        table: float32[n, width]: each vector along the axes, and the norm of what is left of it.

    Raises:
        IndexProblem: They do not fit together.
    """

    axes: Floats
    table: Floats

    def __post_init__(self) -> None:
        fits = (
            self.axes.ndim == self.table.ndim == 2
            and self.axes.dtype == self.table.dtype == np.float32
            and self.table.shape[1] == self.axes.shape[1] + 1
            and self.table.flags.c_contiguous
        )
        if not fits:
            raise IndexProblem("The table for scanning does not fit its axes.")

    @cached_property
    def _exact_axes(self) -> NDArray[np.float64]:
        return self.axes.astype(np.float64)

    def shorten(self, vectors: Floats) -> Floats:
        """float32[m, width] for float32[m, dim]: along the axes, and the norm of the rest."""
        return _shortened(vectors, self._exact_axes)


def fit_axes(vectors: Floats, width: int | None = None) -> Floats:
    """Fit the axes that minimise the cost of a scan of these vectors, float32[dim, width - 1].

    Args:
        vectors: float32[n, dim] of unit norm; may be mapped from disk.
        width: Numbers a row in the table; None for what compares cheapest on some of the vectors.

    Returns:
        Orthonormal columns; none at all if nothing is cheaper than comparing in full.

    Raises:
        IndexProblem: The vectors are not finite.
    """
    sample = vectors[:: max(1, len(vectors) // _FITTED)][:_FITTED].astype(np.float64)
    if not np.isfinite(sample).all():
        raise not_finite()
    _, axes = np.linalg.eigh(sample.T @ sample)
    axes = axes[:, ::-1].astype(np.float32)
    # The same vectors give the same axes, whatever sign the solver liked.
    axes *= np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1, 1)
    if width is None:
        width = _cheapest_width(vectors, axes)
    return np.ascontiguousarray(axes[:, : max(width - 1, 0)])


def fit_table(vectors: Floats, axes: Floats) -> Iterator[Floats]:
    """The rows of a table, float32[m, width] at a time."""
    exact = axes.astype(np.float64)
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        yield _shortened(vectors[start : start + ROWS_AT_ONCE], exact)


def _cheapest_width(vectors: Floats, axes: Floats) -> int:
    """The width with the least estimated work a row and query, or 0 for none."""
    dim = vectors.shape[1]
    rows = np.asarray(vectors[:: max(1, len(vectors) // _COMPARED)][:_COMPARED])
    probes = rows[sample_rows(len(rows), _PROBES)]
    exact = probes @ rows.T
    # The similarity that is the k-th best of all rows, as far as some of them tell.
    rank = max(1, round(_TYPICAL_K * len(rows) / max(len(vectors), 1)))
    kth = -np.partition(-exact, min(rank, len(rows) - 1), axis=1)[:, min(rank, len(rows) - 1)]
    best, least = 0, 0.9 * dim
    widths = [width for width in WIDTHS if width < dim]
    along = rows @ axes[:, : max(widths, default=0)]
    own_along = probes @ axes[:, : max(widths, default=0)]
    for width in widths:
        short, own = (_with_rest(part[:, : width - 1]) for part in (along, own_along))
        share = float((own @ short.T >= kth[:, None]).mean())
        cost = width + share * (_COST_OF_NUMBER * dim + _COST_OF_PAIR)
        if cost < least:
            best, least = width, cost
    return best


def _with_rest(along: Floats) -> Floats:
    """Numbers along axes, and the norm of what is left of a unit vector, about."""
    rest = np.sqrt(np.maximum(1 - np.einsum("nd,nd->n", along, along), 0))
    return np.hstack([along, rest[:, None]])


def _shortened(vectors: Floats, axes: NDArray[np.float64]) -> Floats:
    exact = vectors.astype(np.float64)
    along = exact @ axes
    # |x|^2 - |along|^2 would lose a small rest to rounding, and with it the bound.
    rest = np.linalg.norm(exact - along @ axes.T, axis=1)
    return np.hstack([along, rest[:, None]]).astype(np.float32)
