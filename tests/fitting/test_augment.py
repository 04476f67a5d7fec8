"""Augmented copies: drawn by content, never mirrored where sides are labelled."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from annotator.encoders.preprocess import Preprocess
from annotator.fitting.augment import copies_of, has_sides
from annotator.fitting.recipe import Recipe

HALF = (0.5, 0.5, 0.5)
PREPROCESS = Preprocess(32, "letterbox", "bicubic", HALF, HALF)
STILL = Recipe(copies=5, gamma=0, rotation=0, area=1, stretch=0, noise=0)
ONE, OTHER = (hashlib.sha256(text).digest() for text in (b"one", b"other"))


def picture(mode: str = "L") -> Image.Image:
    """Bright on its left."""
    shades = np.tile(np.linspace(200, 40, 150).astype(np.uint8), (90, 1))
    shades[:30] //= 2
    return Image.fromarray(shades).convert(mode)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_first_copy_is_what_the_encoder_sees(mode: str) -> None:
    copies = copies_of(picture(mode), ONE, PREPROCESS, Recipe(copies=4), flip=True, seed=0)
    assert copies.shape == (4, 32, 32, 3) and copies.dtype == np.uint8
    assert np.array_equal(copies[0], PREPROCESS(picture(mode)))
    assert np.array_equal(copies[1], PREPROCESS(ImageOps.mirror(picture(mode))))
    assert len(np.unique(copies.reshape(4, -1), axis=0)) == 4


def test_without_flip_left_stays_left() -> None:
    recipe = Recipe(copies=40)
    for flip in (False, True):
        copies = copies_of(picture(), ONE, PREPROCESS, recipe, flip=flip, seed=0).astype(int)
        left, right = copies[:, 12:20, :8].mean((1, 2, 3)), copies[:, 12:20, -8:].mean((1, 2, 3))
        mirrored = int((left < right).sum())
        assert (10 < mirrored < 30) if flip else mirrored == 0


def test_content_and_seed_decide() -> None:
    def copies(content: bytes, seed: int) -> bytes:
        made = copies_of(picture(), content, PREPROCESS, Recipe(), flip=False, seed=seed)
        return made[1:].tobytes()

    assert copies(ONE, 0) == copies(ONE, 0)
    assert len({copies(ONE, 0), copies(OTHER, 0), copies(ONE, 1)}) == 3


def test_no_change_is_the_image_itself() -> None:
    small = picture().resize((48, 40))
    copies = copies_of(small, ONE, PREPROCESS, STILL, flip=False, seed=0)
    assert all(np.array_equal(copy, copies[0]) for copy in copies)


@pytest.mark.parametrize(
    ("name", "sided"),
    [("Left lung", True), ("lung, right", True), ("Leftover", False), ("bright", False)],
)
def test_names_that_tell_a_side(name: str, sided: bool) -> None:
    assert has_sides(["C1"], {"C1": name}) == sided
    assert not has_sides(["C2"], {"C1": name})


def test_concepts_that_are_a_side() -> None:
    assert has_sides(["C0205091"], {}) and has_sides(["C0205090"], {})
