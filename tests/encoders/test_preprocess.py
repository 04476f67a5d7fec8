"""Preprocessing: always a square of the right size, grey and colour alike, and the right part."""

from __future__ import annotations

import dataclasses
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from annotator.encoders.preprocess import Preprocess, Resize

HALF = (0.5, 0.5, 0.5)
MODES: tuple[Resize, ...] = get_args(Resize)
LETTERBOX = Preprocess(64, "letterbox", "bicubic", HALF, HALF)
EXTREMES = [(1, 5000), (5000, 1), (1, 1), (2, 3), (4999, 7)]

preprocesses = st.builds(
    Preprocess,
    size=st.integers(1, 96),
    resize=st.sampled_from(MODES),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    mean=st.just(HALF),
    std=st.just(HALF),
    crop_pct=st.sampled_from([1.0, 0.875, 0.5]),
)
sides = st.tuples(st.integers(1, 200), st.integers(1, 200)) | st.sampled_from(EXTREMES)


def noise(width: int, height: int, *channels: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), np.uint8)


@given(preprocesses, sides, st.integers(0, 99))
@settings(deadline=None)
def test_grey_equals_three_equal_channels(
    preprocess: Preprocess, size: tuple[int, int], seed: int
) -> None:
    grey = noise(*size, seed=seed)
    colour = np.repeat(grey[:, :, None], 3, axis=2)
    from_grey = preprocess(Image.fromarray(grey))
    from_colour = preprocess(Image.fromarray(colour))
    for pixels in (from_grey, from_colour):
        assert pixels.shape == (preprocess.size, preprocess.size, 3)
        assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(from_grey, from_colour)


@pytest.mark.parametrize("resize", MODES)
@pytest.mark.parametrize("size", [(64, 64), (128, 128), (20, 20)])
def test_a_square_image_is_simply_resized(resize: Resize, size: tuple[int, int]) -> None:
    image = Image.fromarray(noise(*size, 3))
    pixels = dataclasses.replace(LETTERBOX, resize=resize)(image)
    expected = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (320, 80), (64, 16), (5000, 1)])
def test_letterbox_keeps_proportions_centred_on_black(size: tuple[int, int]) -> None:
    pixels = LETTERBOX(Image.new("RGB", size, (200, 150, 100)))
    width, height = (max(1, round(64 * side / max(size))) for side in size)
    left, top = (64 - width) // 2, (64 - height) // 2
    expected = np.zeros((64, 64, 3), np.uint8)
    expected[top : top + height, left : left + width] = (200, 150, 100)
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (101, 64), (5000, 10)])
def test_crop_keeps_the_centre(size: tuple[int, int]) -> None:
    # One axis ramps from -1 to 1 about the centre: the crop must be its antisymmetric middle.
    long = max(size)
    ramp = np.linspace(0, 255, long).round().astype(np.uint8)
    grey = np.repeat(ramp[None], min(size), axis=0)
    grey = grey if size[0] == long else grey.T.copy()
    pixels = dataclasses.replace(LETTERBOX, resize="crop")(Image.fromarray(grey))[:, :, 0]
    line = (pixels if size[0] == long else pixels.T).astype(int)
    assert np.all(line == line[0])
    np.testing.assert_allclose(line[0] + line[0, ::-1], 255, atol=2)
    kept = min(size) / long
    np.testing.assert_allclose(line[0, -1] - line[0, 0], 255 * kept, atol=5)


def test_stretch_keeps_every_corner() -> None:
    image = np.zeros((100, 300), np.uint8)
    image[:50, :150], image[:50, 150:], image[50:, :150] = 50, 100, 150
    pixels = dataclasses.replace(LETTERBOX, resize="stretch")(Image.fromarray(image))[:, :, 0]
    assert [pixels[0, 0], pixels[0, -1], pixels[-1, 0], pixels[-1, -1]] == [50, 100, 150, 0]


@pytest.mark.parametrize("size", [(200, 200), (200, 120), (120, 360)])
@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_a_part_is_kept_as_if_resized_and_then_cropped(
    resize: Resize, size: tuple[int, int]
) -> None:
    coarse = Image.fromarray(noise(6, 6, 3)).resize(size, Image.Resampling.BICUBIC)
    preprocess = dataclasses.replace(LETTERBOX, resize=resize, crop_pct=0.8)
    assert preprocess.smallest_side == 80
    scale = 80 / min(size)
    width, height = (round(side * scale) for side in size) if resize == "crop" else (80, 80)
    resized = coarse.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - 64) // 2, (height - 64) // 2
    expected = np.asarray(resized.crop((left, top, left + 64, top + 64)), float)
    assert np.abs(preprocess(coarse) - expected).mean() < 2


def test_a_part_of_one_is_not_recorded() -> None:
    """So that fingerprints of indexes stay what they were."""
    assert "crop_pct" not in LETTERBOX.to_dict()
    assert dataclasses.replace(LETTERBOX, crop_pct=0.8).to_dict()["crop_pct"] == 0.8


def test_interpolation_is_antialiased() -> None:
    """A fine checkerboard shrinks to its mean instead of to a moiré pattern."""
    checkerboard = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
    for interpolation in ("bicubic", "bilinear"):
        pixels = Preprocess(32, "stretch", interpolation, HALF, HALF)(Image.fromarray(checkerboard))
        np.testing.assert_allclose(pixels[2:-2, 2:-2].astype(float), 127.5, atol=2)


@given(preprocesses, st.tuples(st.integers(24, 300), st.integers(24, 300)))
@settings(deadline=None)
def test_the_box_says_which_part_of_the_picture_the_square_shows(
    preprocess: Preprocess, sides: tuple[int, int]
) -> None:
    preprocess = dataclasses.replace(preprocess, size=64)
    width, height = sides
    left, top, right, bottom = preprocess.box(width, height)
    # A picture whose red says how far right a pixel is, and its green how far down.
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = (255 * (np.arange(width) + 0.5) / width)[None]
    picture[..., 1] = (255 * (np.arange(height) + 0.5) / height)[:, None]
    shown = preprocess(Image.fromarray(picture)).astype(float)[..., :2] / 255
    centres = (np.arange(64) + 0.5) / 64
    x, y = left + (right - left) * centres, top + (bottom - top) * centres
    # Away from the borders, where resampling has no neighbours.
    columns, rows = ((at > 0.1) & (at < 0.9) for at in (x, y))
    inner = shown[rows][:, columns]
    step = 2 / 64 + 2 / min(sides)
    assert np.abs(inner[..., 0] - x[columns]).max(initial=0) < step
    assert np.abs(inner[..., 1] - y[rows][:, None]).max(initial=0) < step
    assert rows.any() and columns.any()
