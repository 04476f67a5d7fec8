"""Attribution of similarities to the positions of an image. Pure NumPy.

A weighted sum of similarities is an additive game of the positions of the feature maps that an
encoder pools: the value of a set of positions is the sum of their contributions, so
each contribution is a Shapley value (Shapley 1953, "A value for n-person games": additivity and
the dummy player). For the last feature map this equals class activation maps with the weights of a
classifier (Zhou et al. 2016, "Learning deep features for discriminative localization") and the
similarity maps of an image pair (Stylianou et al. 2019, "Visualizing deep similarity networks").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.preprocess import Box
from annotator.knn.joint_projection import JointProjection
from annotator.knn.projection import Projection

# Half-width of the tent kernel that spreads a contribution: in positions, but at least a share of
# the map's side. Chosen on phantoms by how often the peak hits the lesion.
_REACH = 1.5
_LEAST_REACH = 1 / 8


@dataclass(frozen=True)
class AttributionMap:
    """Attribution of a sum of similarities to the cells of an image.

    Attributes:
        grid: float64[h, w]: contribution of each cell; rows from the top; 0 in blank background.
        background: Contribution of the blank background.
        elsewhere: Contribution from outside the image: its padding and other frames.
        constant: Contribution of the means subtracted by the projection.
        total: The attributed sum.
    """

    grid: NDArray[np.float64]
    background: float
    elsewhere: float
    constant: float
    total: float

    @property
    def rest(self) -> float:
        """Residual of `total`; rounding error if the method is additive."""
        parts = float(self.grid.sum()) + self.background + self.elsewhere + self.constant
        return self.total - parts

    def without(self, blank: NDArray[np.bool_]) -> AttributionMap:
        """The same with the contributions of the cells in bool[h, w] moved to `background`."""
        background = self.background + float(self.grid[blank].sum())
        return replace(self, grid=np.where(blank, 0.0, self.grid), background=background)


@dataclass(frozen=True)
class Contributions:
    """Contributions of the positions of one feature map to each of m sums.

    Attributes:
        values: float64[h, w, m].
        box: Part of the image covered by the map.
    """

    values: NDArray[np.float64]
    box: Box


def linear_forms(
    projection: Projection | JointProjection | None,
    vector: NDArray[np.float32],
    targets: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Write the products of a projected vector with targets as affine forms of the raw vector.

    Args:
        projection: Projection of the index, or None.
        vector: float32[dim], from the encoder.
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
    """Resample feature maps of different sizes to one grid over the image.

    The receptive field of a position is larger than its cell, so each contribution is spread by a
    tent kernel, truncated at the border of the map and rescaled to preserve sums.

    Args:
        contributions: Contributions of each feature map.
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
            grid[:, :, i].copy(), 0.0, float(outside[i]), float(constants[i]), float(totals[i])
        )
        for i in range(len(totals))
    ]


def grid_shape(contributions: Sequence[Contributions], width: int, height: int) -> tuple[int, int]:
    """Rows and columns of a grid over the image, with about the resolution of the finest map."""
    rows = max(c.values.shape[0] / (c.box[3] - c.box[1]) for c in contributions)
    columns = max(c.values.shape[1] / (c.box[2] - c.box[0]) for c in contributions)
    finest = max(rows / height, columns / width)  # cells per pixel
    return max(1, round(finest * height)), max(1, round(finest * width))


def spread(n: int, low: float, high: float, m: int) -> NDArray[np.float64]:
    """Compute weights that spread n even positions on low..high over m even cells on 0..1.

    Returns:
        float64[m, n]: the share of each position in each cell. A column sums to 1, less the share
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
    """Integral of max(0, 1 - |x|) up to u."""
    u = np.clip(u, -1, 1)
    area: NDArray[np.float64] = np.where(u < 0, (1 + u) ** 2 / 2, 1 - (1 - u) ** 2 / 2)
    return area
