"""Colours of heat, and where they lie."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from annotator.explain.attribution import Heat
from annotator.explain.overlay import AGAINST, FOR, blended, jpeg, layer, png


def heat(grid: list[list[float]]) -> Heat:
    values = np.array(grid)
    return Heat(values, 0.0, 0.0, float(values.sum()))


def test_orange_speaks_for_and_blue_against() -> None:
    pixels = np.asarray(layer(heat([[2.0, 0.0, -1.0]]), (30, 10)))
    assert pixels.shape == (10, 30, 4)
    assert tuple(pixels[5, 1, :3]) == FOR and tuple(pixels[5, 28, :3]) == AGAINST
    assert pixels[5, 1, 3] == pytest.approx(2 * pixels[5, 28, 3], abs=1)
    assert pixels[5, 15, 3] == 0  # nothing is laid over what says nothing


def test_rows_are_from_the_top() -> None:
    pixels = np.asarray(blended(Image.new("L", (20, 20), 100), heat([[1.0], [0.0]])))
    assert pixels[1, 10, 0] > pixels[1, 10, 2]
    assert tuple(pixels[19, 10]) == (100, 100, 100)


def test_no_heat_leaves_the_picture() -> None:
    picture = Image.new("RGB", (8, 6), (10, 20, 30))
    assert blended(picture, heat([[0.0, 0.0]])).tobytes() == picture.tobytes()


def test_files_are_what_they_say() -> None:
    picture = layer(heat([[1.0, -1.0]]))
    with Image.open(io.BytesIO(png(picture))) as read:
        assert read.format == "PNG" and read.size == picture.size
    with Image.open(io.BytesIO(jpeg(Image.new("L", (5, 4))))) as read:
        assert read.format == "JPEG" and read.size == (5, 4)
