"""Does covering the places of a heatmap change more than covering random ones?

The deletion test of attributions (Samek et al. 2017, "Evaluating the visualization of what a deep
neural network has learned"; Petsiuk et al. 2018, "RISE"), against places drawn at random.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.explain.attribution import AttributionMap
from annotator.explain.occlusion import cover, covered_products
from annotator.pipeline import Annotator

SHARE = 0.1  # of the cells that are not blank
DRAWS = 19  # random covers of each heatmap

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Deletion:
    """By how much a contrast falls when a tenth of the picture is covered with its mean.

    The tenth is of the cells that are not blank.

    Attributes:
        highest: Fall when the tenth with the highest contributions is covered.
        random: float64[DRAWS]: falls for random tenths of the same form.
    """

    highest: float
    random: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Mean of the random falls."""
        return float(self.random.mean())

    @property
    def upper_quartile(self) -> float:
        """The fall that a quarter of the random ones exceed."""
        return float(np.quantile(self.random, 0.75))

    @property
    def tells(self) -> bool:
        """Whether the places of the heatmap matter more than three quarters of the random ones.

        Of 100 heatmaps of radiological images 83 do, and 24 of 100 of other images. By the mean it
        would be 94 and 36, by the highest of the random falls 45 and 4 (docs/explain.md).
        """
        return self.highest > max(0.0, self.upper_quartile)


def deletions(
    annotator: Annotator,
    frames: Sequence[Image.Image],
    middle: int,
    targets: NDArray[np.float64],
    maps: Sequence[AttributionMap],
    blank: Mask,
) -> list[Deletion]:
    """Test the heatmaps of an image: 1 + DRAWS encodings each, in batches.

    Args:
        annotator: Annotator with encoder and projection.
        frames: Frames of the image.
        middle: Index of the frame that the maps are of.
        targets: float64[m, out]: what each map attributes the product with.
        maps: The m maps.
        blank: bool[h, w]: cells of the maps that are blank; not all of them.
    """
    rng = np.random.default_rng(0)  # the same image gives the same answer
    pictures = (
        cover(frames[middle], mask) for map_ in maps for mask in covers(map_.grid, blank, rng)
    )
    products = covered_products(annotator, frames, middle, pictures, targets)
    found = []
    for i, map_ in enumerate(maps):
        falls = map_.total - products[i * (1 + DRAWS) : (i + 1) * (1 + DRAWS), i]
        found.append(Deletion(float(falls[0]), falls[1:]))
    return found


def covers(grid: NDArray[np.float64], blank: Mask, rng: np.random.Generator) -> Iterator[Mask]:
    """The tenth of a map with the highest values, then `DRAWS` random tenths of the same form.

    A random one is the highest tenth of the map moved, cyclically, and mirrored.
    """
    yield highest_tenth(grid, blank)
    for _ in range(DRAWS):
        moved = np.roll(grid, rng.integers(0, grid.shape), (0, 1))
        for axis in np.flatnonzero(rng.random(2) < 0.5).tolist():
            moved = np.flip(moved, axis)
        yield highest_tenth(moved, blank)


def highest_tenth(grid: NDArray[np.float64], blank: Mask) -> Mask:
    """Mask the tenth of the cells that are not blank with the highest values, bool[h, w]."""
    values = np.where(blank, -np.inf, grid)
    count = max(1, round((~blank).sum() * SHARE))
    mask = np.zeros(grid.size, bool)
    mask[np.argsort(-values, axis=None, kind="stable")[:count]] = True
    return mask.reshape(grid.shape)
