"""Attribution of similarities to the positions of a picture. Pure NumPy.

A vote, or any weighted sum of similarities, is a linear game among the positions of the maps that
an encoder pools: the worth of a set of positions is the sum of their contributions, so each
contribution is a Shapley value (Shapley 1953, "A value for n-person games": additivity and the
dummy player). For the last map of a network this is what class activation maps do with a
classifier's weights (Zhou et al. 2016, "Learning deep features for discriminative localization")
and Stylianou et al. (2019, "Visualizing deep similarity networks") with a pair of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.preprocess import Box
from annotator.knn.projection import Projection

# Half-width of the tent over which a position's contribution is spread: in positions, but at least
# a share of the map's side. Chosen on phantoms, for peaks that lie on the lesion most often.
_REACH = 1.5
_LEAST_REACH = 1 / 8


@dataclass(frozen=True)
class AttributionMap:
    """A sum of similarities, attributed to the cells of a picture.

    Attributes:
        grid: float64[h, w]: contribution of each cell; rows from the top.
        elsewhere: Contribution from outside of the picture: the padding around it, other frames.
        constant: Contribution of no position: it comes from the means that the projection
            subtracts.
        total: The sum itself.
    """

    grid: NDArray[np.float64]
    elsewhere: float
    constant: float
    total: float

    @property
    def rest(self) -> float:
        """The unexplained rest of `total`: rounding errors where the method is exact."""
        return self.total - (float(self.grid.sum()) + self.elsewhere + self.constant)


@dataclass(frozen=True)
class Contributions:
    """Contributions of the positions of one map to each of m sums.

    Attributes:
        values: float64[h, w, m].
        box: The part of the picture that the map lies over.
    """

    values: NDArray[np.float64]
    box: Box


def linear_forms(
    projection: Projection | None, vector: NDArray[np.float32], targets: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Write the products of a projected vector with targets as affine forms of the raw vector.

    Args:
        projection: The index's, or None.
        vector: float32[dim], as the encoder made it.
        targets: float64[m, out]: weighted sums of vectors of the index.

    Returns:
        Weights float64[m, dim] and constants float64[m]: product = weights @ vector + constant.
    """
    if projection is None:
        return targets, np.zeros(len(targets))
    return projection.similarity_as_sum(vector, targets)


def attribution_maps(
    contributions: Sequence[Contributions],
    *,
    totals: NDArray[np.float64],
    constants: NDArray[np.float64],
    elsewhere: NDArray[np.float64],
    shape: tuple[int, int],
) -> list[AttributionMap]:
    """Lay maps of different sizes over one grid on the picture.

    The receptive field of a position is larger than its cell, so each contribution is spread over
    the picture around it: by a tent cut off at the map's border and rescaled, which keeps sums.

    Args:
        contributions: Of each map.
        totals: float64[m]: the sums.
        constants: float64[m].
        elsewhere: float64[m]: contributions of other frames.
        shape: Rows and columns of the grid.
    """
    grid = np.zeros((*shape, len(totals)))
    added = np.zeros(len(totals))
    for part in contributions:
        left, top, right, bottom = part.box
        rows = spread(part.values.shape[0], top, bottom, shape[0])
        columns = spread(part.values.shape[1], left, right, shape[1])
        grid += np.einsum("ry,yxm,cx->rcm", rows, part.values, columns, optimize=True)
        added += part.values.sum(axis=(0, 1))
    outside = elsewhere + added - grid.sum(axis=(0, 1))
    return [
        AttributionMap(
            grid[:, :, i].copy(), float(outside[i]), float(constants[i]), float(totals[i])
        )
        for i in range(len(totals))
    ]


def grid_shape(contributions: Sequence[Contributions], width: int, height: int) -> tuple[int, int]:
    """Rows and columns of a grid on a picture with cells of about the finest map's size."""
    rows = max(c.values.shape[0] / (c.box[3] - c.box[1]) for c in contributions)
    columns = max(c.values.shape[1] / (c.box[2] - c.box[0]) for c in contributions)
    finest = max(rows / height, columns / width)  # cells a pixel
    return max(1, round(finest * height)), max(1, round(finest * width))


def spread(n: int, low: float, high: float, m: int) -> NDArray[np.float64]:
    """Weights that spread n even positions on low..high over m even cells on 0..1.

    Returns:
        float64[m, n]: the share of each position in each cell. A column sums to 1, less the share
        outside of 0..1.
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
