"""Blank background is found, whatever is drawn beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from annotator.explain.background import blank_cells


@given(st.integers(0, 2**32), st.integers(3, 40), st.integers(3, 40), st.booleans())
@settings(deadline=None)
def test_a_cell_is_blank_if_its_neighbourhood_is(
    seed: int, height: int, width: int, colour: bool
) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.choice([0, 4, 8, 9], (height, width, 3), p=(0.5, 0.3, 0.19, 0.01)).astype(np.uint8)
    if not colour:
        pixels[:] = pixels[:, :, :1]
    picture = Image.fromarray(pixels) if colour else Image.fromarray(pixels[:, :, 0])
    rows, columns = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
    found = blank_cells(picture, (rows, columns))
    for row in range(rows):
        for column in range(columns):
            around = pixels[
                max(0, row - 1) * height // rows : min(rows, row + 2) * height // rows,
                max(0, column - 1) * width // columns : min(columns, column + 2) * width // columns,
            ]
            assert found[row, column] == (np.ptp(around.astype(int), axis=(0, 1)).max() <= 8)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_margins_are_blank_and_what_is_drawn_is_not(mode: str) -> None:
    pixels = np.full((100, 100), 3, np.uint8)
    pixels[:, 50:] = np.random.default_rng(0).integers(0, 256, (100, 50))
    found = blank_cells(Image.fromarray(pixels).convert(mode), (10, 10))
    assert found[:, :4].all() and not found[:, 4:].any()


def test_a_picture_smaller_than_the_grid() -> None:
    pixels = np.array([[0, 0, 0, 0, 255]], np.uint8)
    assert blank_cells(Image.fromarray(pixels), (1, 10)).tolist() == [
        [True] * 7 + [False, False, True]
    ]
