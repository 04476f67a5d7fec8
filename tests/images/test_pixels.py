from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from annotator.images.pixels import is_blank, is_washed_out, map_values, stretch, to_uint8

RAMP = np.add.outer(np.arange(240), np.arange(320))
SEEDED = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">u2", "<i2", ">i2", "<u4", "<i4", "f4"])
@pytest.mark.parametrize("shape", [(300, 400), (90, 500, 3), (2, 2)])
def test_a_table_or_stripes_give_what_the_function_gives(dtype: str, shape: tuple[int]) -> None:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        values = SEEDED.normal(0, 1000, shape).astype(kind)
    else:
        span = np.iinfo(kind)
        values = SEEDED.integers(span.min, span.max, shape, endpoint=True).astype(kind)

    def shade(part: np.ndarray) -> np.ndarray:
        return to_uint8(part.astype(np.float64) / 777)

    np.testing.assert_array_equal(map_values(shade, values), shade(values))
    np.testing.assert_array_equal(map_values(shade, values[::2, ::-1]), shade(values[::2, ::-1]))


@pytest.mark.parametrize("dtype", ["u2", "i2", "i4", "f4", "f8"])
def test_a_stretch_shows_the_range_of_the_values(dtype: str) -> None:
    values = (RAMP * 5 + 100).astype(dtype)
    low, high = np.percentile(values, (0.5, 99.5))
    expected = np.rint(np.clip((values - low) * 255 / (high - low), 0, 255))
    assert np.abs(stretch(values).astype(int) - expected).max() <= 1
    large = np.tile(values, (8, 9))  # of which a sample is taken
    assert np.abs(stretch(large).astype(int) - np.tile(expected, (8, 9))).max() <= 2


def test_a_stretch_of_odd_values() -> None:
    assert stretch(np.full((5, 5), 7, np.uint16)).max() == 0
    assert stretch(np.full((5, 5), np.nan, np.float32)).max() == 0
    speck = np.zeros((50, 50), np.uint16)
    speck[3, 4] = 900  # too few for the percentiles
    assert stretch(speck)[3, 4] == 255
    odd = (RAMP / 10).astype(np.float32)
    odd[0, :3] = np.nan, np.inf, -np.inf
    assert stretch(odd)[0, :3].tolist() == [0, 255, 0]
    ignore = np.zeros(RAMP.shape, bool)
    ignore[:, :20] = True
    far = np.where(ignore, 60_000, RAMP).astype(np.uint16)
    assert np.ptp(stretch(far, ignore)[:, 20:]) == 255 > np.ptp(stretch(far)[:, 20:])
    assert stretch(far, np.ones_like(ignore)).max() == 0


@settings(max_examples=50)
@given(arrays(np.uint16, (7, 9)), st.integers(0, 20_000))
def test_a_stretch_does_not_depend_on_an_offset(values: np.ndarray, offset: int) -> None:
    wide = values.astype(np.int32)
    moved = stretch(wide + offset).astype(int)
    assert np.abs(moved - stretch(wide).astype(int)).max() <= 1


def picture(values: Any, mode: str = "L") -> Image.Image:
    return Image.fromarray(np.asarray(values, np.uint8), mode if mode == "RGB" else None)


def test_blank_pictures() -> None:
    flat = np.full((200, 300), 90, np.uint8)
    noise = np.rint(SEEDED.normal(90, 1, flat.shape)).astype(np.uint8)
    specks = flat.copy()
    specks[5, :30] = 255  # half a thousandth
    for values in (flat, noise, specks, flat[:1, :1]):
        assert is_blank(picture(values))
        assert is_blank(picture(np.stack([values] * 3, -1), "RGB"))


def test_pictures_that_are_not_blank() -> None:
    small = np.zeros((200, 300), np.uint8)
    small[100:110, 100:110] = 40  # a dim spot of a six hundredth of the picture
    ramp = RAMP.astype(np.uint8)
    for values in (small, ramp, 255 - small, ramp[:1], np.array([[0, 9]])):
        assert not is_blank(picture(values))
    one_band = np.zeros((200, 300, 3), np.uint8)
    one_band[..., 1] = ramp[:200, :300]
    assert not is_blank(picture(one_band, "RGB"))


def test_what_a_window_has_lost() -> None:
    values = (RAMP * 8).astype(np.uint16)

    def window(low: float, high: float) -> np.ndarray:
        return to_uint8((values.astype(np.float64) - low) * 255 / (high - low))

    assert is_washed_out(window(20_000, 30_000), values)  # above the values
    assert is_washed_out(window(-900, -800), values)  # below them
    assert is_washed_out(window(0, 65_535), values)  # far wider
    assert is_washed_out(window(4468, 9000), values)  # a few pixels in a corner
    assert not is_washed_out(window(0, 4472), values)
    assert not is_washed_out(window(2000, 2100), values)  # narrow, but it shows an edge
    constant = np.full_like(values, 7)
    assert not is_washed_out(np.zeros(values.shape, np.uint8), constant)


def test_a_small_object_on_black_is_no_fault_of_the_window() -> None:
    values = np.zeros((300, 300), np.uint16)
    values[10:14, 10:20] = 1000
    assert not is_washed_out(to_uint8(values * 0.255), values)


def test_padding_does_not_count_as_a_picture() -> None:
    values = (RAMP * 8).astype(np.uint16)
    padding = np.zeros(values.shape, bool)
    padding[:100] = True
    grey = np.where(padding, 255, 0).astype(np.uint8)
    assert not is_washed_out(grey, values)
    assert is_washed_out(grey, values, padding)
