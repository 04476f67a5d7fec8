from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from annotator.audit.align import fit_closely, fit_pairs
from annotator.images.thumbnails import grey_thumbnail

Drawn = NDArray[np.uint8]
EVERY = np.arange(8)


@pytest.fixture(scope="module")
def small(textures: list[Drawn]) -> Drawn:
    return np.stack([np.asarray(Image.fromarray(t).resize((64, 64))) for t in textures[:8]])


def fitted(a: Drawn, b: Drawn, mirrored: bool = False, workers: int = 1) -> NDArray[np.float32]:
    rows = np.arange(len(a))
    return fit_pairs(a, b, rows, rows, np.full(len(a), mirrored), workers=workers)


def test_a_changed_copy_fits_and_another_image_does_not(
    textures: list[Drawn], change: str, changed: Callable[[Drawn, str], bytes], encode: Callable
) -> None:
    for side, fit in ((64, fitted), (128, fit_closely)):
        first = np.stack([grey_thumbnail(encode(t), side) for t in textures[:2]])
        second = np.stack([grey_thumbnail(changed(t, change), side) for t in textures[:2]])
        if change == "mirrored":
            assert fit(first, second).max() < 0.75
            second = second[:, :, ::-1]
        assert fit(first, second).min() > 0.88
        assert fit(first, np.roll(second, 1, axis=0)).max() < 0.75


@settings(max_examples=25, deadline=None)
@given(gain=st.floats(0.4, 1.5), offset=st.floats(-20, 40))
def test_brightness_and_contrast_change_nothing(gain: float, offset: float) -> None:
    picture = np.random.default_rng(0).uniform(60, 140, (1, 64, 64))
    other = (picture * gain + offset).clip(0, 255)
    assert fitted(picture.astype(np.uint8), other.astype(np.uint8))[0] > 0.99


def test_mirrored_pairs_are_laid_over_as_mirror_images(small: Drawn) -> None:
    assert fitted(small, small[:, :, ::-1].copy(), mirrored=True).min() > 0.999
    assert fitted(small, small, mirrored=True).max() < 0.75


def test_the_order_of_the_two_does_not_matter(small: Drawn) -> None:
    crop = np.stack(
        [np.asarray(Image.fromarray(t).resize((64, 64), box=(0, 3, 61, 64))) for t in small]
    )
    assert fitted(small, crop).tolist() == fitted(crop, small).tolist()
    assert fitted(small, crop).min() > 0.9


def test_a_crop_by_a_tenth_fits_without_a_large_structure_that_stays_in_place() -> None:
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (256, 256), np.uint8)) for _ in EVERY]
    clouds = [ImageOps.autocontrast(n.filter(ImageFilter.GaussianBlur(20))) for n in noise]
    whole = np.stack([np.asarray(c.resize((64, 64))) for c in clouds])
    crops = np.stack([np.asarray(c.resize((64, 64), box=(0, 26, 230, 256))) for c in clouds])
    assert fitted(whole, crops).min() > 0.9
    assert fitted(whole, np.roll(crops, 1, axis=0)).max() < 0.75


@pytest.mark.parametrize("side", [64, 128])
def test_a_picture_of_one_colour_fits_nothing(textures: list[Drawn], side: int) -> None:
    fit = fitted if side == 64 else fit_closely
    pictures = np.stack([np.asarray(Image.fromarray(t).resize((side, side))) for t in textures[:2]])
    grey, faint = np.full_like(pictures, 90), np.full_like(pictures, 90)
    faint[:, ::2] += 1  # a deviation of half a grey level
    for flat in (grey, faint):
        assert not fit(flat, pictures).any() and not fit(pictures, flat).any()
        assert not fit(flat, flat).any()


@pytest.mark.parametrize(("angle", "least", "most"), [(1, 0.88, 1.0), (4, -1.0, 0.8)])
def test_a_rotation_fits_by_one_degree_and_not_by_four(
    textures: list[Drawn], angle: float, least: float, most: float
) -> None:
    images = [Image.fromarray(t) for t in textures[:2]]
    whole = np.stack([np.asarray(i) for i in images])
    turned = np.stack([np.asarray(i.rotate(angle, Image.Resampling.BICUBIC)) for i in images])
    fits = fit_closely(whole, turned)
    assert fits.min() >= least and fits.max() <= most


def test_pairs_do_not_depend_on_their_company_or_on_threads(small: Drawn) -> None:
    rows, others = np.repeat(EVERY, 8), np.tile(EVERY, 8)
    no = np.zeros(64, bool)
    together = fit_pairs(small, small, rows, others, no, workers=3)
    alone = [fit_pairs(small, small, rows[[i]], others[[i]], no[[i]])[0] for i in range(64)]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert len(fit_pairs(small, small, rows[:0], others[:0], no[:0])) == 0
