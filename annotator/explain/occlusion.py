"""Which places matter, asked of any encoder: cover each and look what changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.encoders.local_runner import embed_frames
from annotator.explain.attribution import Heat
from annotator.pipeline import Annotator

CELLS = 14  # along the longer side


def occluded(
    annotator: Annotator,
    frames: Sequence[Image.Image],
    middle: int,
    vector: NDArray[np.float32],
    targets: NDArray[np.float64],
) -> list[Heat]:
    """By how much products with targets fall when a cell of a picture is covered.

    (Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks".) Squares two
    cells wide are covered with the picture's mean, one around each cell. What covering two places
    takes is not the sum of what each takes, so this is no division of the whole.

    Args:
        annotator: Encodes and projects.
        frames: Of the image.
        middle: The frame whose cells are covered.
        vector: float32[dim]: of the image as it is.
        targets: float64[m, out].
    """
    width, height = frames[middle].size
    longer = max(width, height)
    rows, columns = (max(1, round(CELLS * side / longer)) for side in (height, width))
    totals = targets @ annotator.project(vector[None])[0].astype(np.float64)
    left: list[NDArray[np.float64]] = []
    embedder = annotator.embedder
    for batch in _batches(_covered(frames[middle], rows, columns), embedder.batch_size):
        pixels = [
            embedder.prepare([*frames[:middle], picture, *frames[middle + 1 :]])
            for picture in batch
        ]
        vectors = embed_frames(pixels, embedder, embedder.batch_size)
        left.append(annotator.project(vectors).astype(np.float64) @ targets.T)
    drops = (totals - np.concatenate(left)).reshape(rows, columns, -1)
    return [Heat(drops[:, :, i].copy(), 0.0, 0.0, float(t)) for i, t in enumerate(totals)]


def cover(picture: Image.Image, mask: NDArray[np.bool_]) -> Image.Image:
    """A picture with the cells of bool[h, w] that are true covered by its mean."""
    over = Image.fromarray(mask.astype(np.uint8) * 255).resize(
        picture.size, Image.Resampling.NEAREST
    )
    covered = picture.copy()
    covered.paste(_mean(picture), mask=over)
    return covered


def _covered(picture: Image.Image, rows: int, columns: int) -> Iterator[Image.Image]:
    """The picture with a square of two cells' width covered around each cell in turn."""
    mean = _mean(picture)
    high, wide = picture.height / rows, picture.width / columns
    for row in range(rows):
        for column in range(columns):
            box = (
                round((column - 0.5) * wide),
                round((row - 0.5) * high),
                round((column + 1.5) * wide),
                round((row + 1.5) * high),
            )
            covered = picture.copy()
            covered.paste(mean, box)
            yield covered


def _mean(picture: Image.Image) -> int | tuple[int, ...]:
    mean = np.asarray(picture).mean(axis=(0, 1)).round().astype(int)
    return int(mean) if mean.ndim == 0 else tuple(mean.tolist())


def _batches(pictures: Iterator[Image.Image], size: int) -> Iterator[list[Image.Image]]:
    batch: list[Image.Image] = []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
