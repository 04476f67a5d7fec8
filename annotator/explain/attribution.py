"""Similarities taken apart over the positions of a picture. Pure NumPy.

A vote, or any weighted sum of similarities, is a linear game among the positions of the maps that
an encoder pools: what a set of positions earns is the sum of what each adds, so what a position
adds is its Shapley value (Shapley 1953, "A value for n-person games": additivity and the dummy
player). For the last map of a network this is what class activation maps do with a classifier's
weights (Zhou et al. 2016, "Learning deep features for discriminative localization") and Stylianou
et al. (2019, "Visualizing deep similarity networks") with a pair of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.preprocess import Box
from annotator.knn.projection import Projection

# How far from its centre a position's part is spread: in positions, but at least a part of the
# map's side. Chosen on phantoms; the heat's peak then lies on the lesion most often.
_REACH = 1.5
_LEAST_REACH = 1 / 8


@dataclass(frozen=True)
class Heat:
    """A sum of similarities, and what each place adds to it.

    Attributes:
        grid: float64[h, w]: what each cell of the picture adds; rows from the top.
        elsewhere: What is not in the picture adds: padding around it, other frames.
        constant: What no position adds: it comes from the means that the projection subtracts.
        total: The sum itself.
    """

    grid: NDArray[np.float64]
    elsewhere: float
    constant: float
    total: float

    @property
    def rest(self) -> float:
        """What the parts leave unexplained: rounding where they are exact."""
        return self.total - (float(self.grid.sum()) + self.elsewhere + self.constant)


@dataclass(frozen=True)
class Parts:
    """What the positions of one map add to each of m sums.

    Attributes:
        values: float64[h, w, m].
        box: The part of the picture that the map lies over.
    """

    values: NDArray[np.float64]
    box: Box


def as_sums(
    projection: Projection | None, vector: NDArray[np.float32], targets: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The products of a picture's index vector with targets, as sums over the encoder's numbers.

    Args:
        projection: The index's, or None.
        vector: float32[dim]: what the encoder gave.
        targets: float64[m, out]: weighted sums of vectors of the index.

    Returns:
        Weights float64[m, dim] and constants float64[m]: product = weights @ vector + constant.
    """
    if projection is None:
        return targets, np.zeros(len(targets))
    return projection.similarity_as_sum(vector, targets)


def heats(
    parts: Sequence[Parts],
    *,
    totals: NDArray[np.float64],
    constants: NDArray[np.float64],
    elsewhere: NDArray[np.float64],
    shape: tuple[int, int],
) -> list[Heat]:
    """Lay maps of different sizes over one grid on the picture.

    A position's part is spread over the picture around it, for it has seen more than its own cell:
    by a tent that ends with the map, so that nothing is lost or added.

    Args:
        parts: Of each map.
        totals: float64[m]: the sums.
        constants: float64[m].
        elsewhere: float64[m]: what other frames add.
        shape: Rows and columns of the grid.
    """
    grid = np.zeros((*shape, len(totals)))
    added = np.zeros(len(totals))
    for part in parts:
        left, top, right, bottom = part.box
        rows = spread(part.values.shape[0], top, bottom, shape[0])
        columns = spread(part.values.shape[1], left, right, shape[1])
        grid += np.einsum("ry,yxm,cx->rcm", rows, part.values, columns, optimize=True)
        added += part.values.sum(axis=(0, 1))
    outside = elsewhere + added - grid.sum(axis=(0, 1))
    return [
        Heat(grid[:, :, i].copy(), float(outside[i]), float(constants[i]), float(totals[i]))
        for i in range(len(totals))
    ]


def grid_shape(parts: Sequence[Parts], width: int, height: int) -> tuple[int, int]:
    """Rows and columns of a grid on a picture whose cells are about the finest map's."""
    rows = max(p.values.shape[0] / (p.box[3] - p.box[1]) for p in parts)
    columns = max(p.values.shape[1] / (p.box[2] - p.box[0]) for p in parts)
    finest = max(rows / height, columns / width)  # cells a pixel
    return max(1, round(finest * height)), max(1, round(finest * width))


def spread(n: int, low: float, high: float, m: int) -> NDArray[np.float64]:
    """How n even positions on low..high fall on m even cells on 0..1.

    Returns:
        float64[m, n]: the share of each position in each cell. A column sums to 1, less what falls
        outside 0..1.
    """
    width = (high - low) / n
    centres = low + width * (np.arange(n) + 0.5)
    reach = max(_REACH * width, _LEAST_REACH * (high - low))
    edges = np.clip(np.arange(m + 1) / m, low, high)[:, None]
    below = _tent((edges - centres) / reach)
    ends = _tent((np.array([[low], [high]]) - centres) / reach)
    shares: NDArray[np.float64] = np.diff(below, axis=0) / (ends[1] - ends[0])
    return shares


def _tent(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area under max(0, 1 - |x|) up to u."""
    u = np.clip(u, -1, 1)
    area: NDArray[np.float64] = np.where(u < 0, (1 + u) ** 2 / 2, 1 - (1 - u) ** 2 / 2)
    return area


def highest(grid: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """bool[h, w]: the cells with the highest values, `share` of them but at least one."""
    count = max(1, round(grid.size * share))
    mask = np.zeros(grid.size, bool)
    mask[np.argsort(-grid, axis=None, kind="stable")[:count]] = True
    return mask.reshape(grid.shape)
