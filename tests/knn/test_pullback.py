"""A direction of the encoder's space ranks projected vectors as it ranks the encoder's own."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from annotator.knn.fit import Fitter
from annotator.knn.projection import Projection
from annotator.knn.pullback import towards
from index import LabelTable

DIM = 12


def unit_rows(seed: int, n: int, dim: int = DIM) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(n, dim))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("meaning", [0, 4])
def test_nothing_but_lengths_and_a_constant_is_lost(meaning: int) -> None:
    rng = np.random.default_rng(0)
    mean, scale = rng.normal(size=DIM) / 10, rng.random(DIM) + 0.5
    matrix, centre = rng.normal(size=(DIM, DIM + meaning)), rng.normal(size=DIM) / 10
    arrays = [np.asarray(a, np.float32) for a in (mean, scale, matrix, centre @ matrix)]
    projection = Projection(*arrays, looks=DIM)
    images, directions = unit_rows(1, 30), unit_rows(2, 5)
    seen = towards(projection, directions)
    assert seen.shape == (5, DIM + meaning) and seen.dtype == np.float32
    assert not seen[:, DIM:].any() and np.linalg.norm(seen, axis=1) == pytest.approx(1)
    inverse = np.linalg.inv(matrix[:, :DIM])
    for image, found in zip(images, projection.apply(images) @ seen.T, strict=True):
        z = (image - mean) * scale
        length = np.linalg.norm(z)
        looks = (z / length - centre) @ matrix[:, :DIM]
        for direction, similarity in zip(directions.astype(float), found, strict=True):
            pulled = inverse @ (direction / scale)
            added = (direction @ image - direction @ mean) / length - direction / scale @ centre
            expected = added / np.linalg.norm(pulled) / np.linalg.norm(looks)
            assert similarity == pytest.approx(expected / np.sqrt(2 if meaning else 1), abs=1e-4)


def test_numbers_that_do_not_vary_take_no_part() -> None:
    scale = np.ones(DIM, np.float32)
    scale[3] = 0
    matrix, zeros = np.eye(DIM, dtype=np.float32), np.zeros(DIM, np.float32)
    projection = Projection(zeros, scale, matrix, zeros, looks=DIM)
    seen = towards(projection, np.eye(DIM, dtype=np.float32)[[2, 3]])
    assert seen[0].tolist() == np.eye(DIM)[2].tolist()
    assert np.isfinite(seen[1]).all()


def test_what_lies_among_no_images_still_ranks_them() -> None:
    """As texts do: far off in a direction in which images do not differ, and a little apart."""
    rng = np.random.default_rng(3)
    centres, offset = unit_rows(4, 6, 40), unit_rows(5, 1, 40)
    centres[:, 30:], offset[:, :30] = 0, 0
    kinds = rng.integers(0, 6, 300)
    images = centres[kinds] + rng.normal(0, 0.1, (300, 40)).astype(np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    labels = LabelTable.from_sets([[f"C{kind}"] for kind in kinds])
    projection = Fitter(images, labels, [40]).projection(1.0)
    texts = centres - images.mean(axis=0) + 5 * offset
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    held = projection.apply(images)

    def precision(queries: NDArray[np.float32], among: NDArray[np.float32]) -> float:
        nearest = np.argsort(-(queries @ among.T), axis=1)[:, :20]
        return float((kinds[nearest] == np.arange(6)[:, None]).mean())

    assert precision(texts, images) > 0.9
    assert precision(towards(projection, texts), held) > 0.9
