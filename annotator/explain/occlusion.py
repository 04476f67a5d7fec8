"""Attribution by occlusion, for any encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.encoders.local_runner import embed_frames
from annotator.explain.attribution import AttributionMap
from annotator.pipeline import Annotator

CELLS = 14  # along the longer side


def occlusion_maps(
    annotator: Annotator,
    frames: Sequence[Image.Image],
    middle: int,
    vector: NDArray[np.float32],
    targets: NDArray[np.float64],
) -> list[AttributionMap]:
    """Attribute products with targets to cells by the drop when a cell is occluded.

    (Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks".) A square two
    cells wide around each cell is filled with the image mean. The drops are not additive, so the
    map does not sum to the product.

    Args:
        annotator: Annotator with encoder and projection.
        frames: Frames of the image.
        middle: Index of the occluded frame.
        vector: float32[dim]: vector of the original image.
        targets: float64[m, out].
    """
    width, height = frames[middle].size
    longer = max(width, height)
    rows, columns = (max(1, round(CELLS * side / longer)) for side in (height, width))
    totals = targets @ annotator.project(vector[None])[0].astype(np.float64)
    covered = _covered(frames[middle], rows, columns)
    products = covered_products(annotator, frames, middle, covered, targets)
    drops = (totals - products).reshape(rows, columns, -1)
    return [
        AttributionMap(drops[:, :, i].copy(), 0.0, 0.0, 0.0, float(total))
        for i, total in enumerate(totals)
    ]


def covered_products(
    annotator: Annotator,
    frames: Sequence[Image.Image],
    middle: int,
    pictures: Iterable[Image.Image],
    targets: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Products with targets of an image with other pictures in the place of one of its frames.

    Args:
        annotator: Annotator with encoder and projection.
        frames: Frames of the image.
        middle: Index of the replaced frame.
        pictures: The n pictures, of which no more than a batch is held at once.
        targets: float64[m, out].

    Returns:
        float64[n, m].
    """
    embedder, rest = annotator.embedder, iter(pictures)
    products: list[NDArray[np.float64]] = []
    while batch := list(islice(rest, embedder.batch_size)):
        pixels = [
            embedder.prepare([*frames[:middle], picture, *frames[middle + 1 :]])
            for picture in batch
        ]
        vectors = embed_frames(pixels, embedder, embedder.batch_size)
        products.append(annotator.project(vectors).astype(np.float64) @ targets.T)
    return np.concatenate(products)


def cover(picture: Image.Image, mask: NDArray[np.bool_]) -> Image.Image:
    """Fill the cells of a picture selected by bool[h, w] with its mean."""
    over = Image.fromarray(mask.astype(np.uint8) * 255).resize(
        picture.size, Image.Resampling.NEAREST
    )
    covered = picture.copy()
    covered.paste(_mean(picture), mask=over)
    return covered


def _covered(picture: Image.Image, rows: int, columns: int) -> Iterator[Image.Image]:
    """Copies of the picture, with a square two cells wide occluded around each cell in turn."""
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
