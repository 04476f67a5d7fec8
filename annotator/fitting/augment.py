"""Copies of an image that show the same findings: other exposure, position and scale."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from annotator.encoders.preprocess import Preprocess
from annotator.fitting.recipe import Recipe

_SIDED_WORDS = re.compile(r"(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)
_SIDED_CUIS = {"C0205090", "C0205091"}  # Right, Left
_SPARE = 2  # a picture is shrunk to no less than so many times the encoder's size


def has_sides(concepts: Sequence[str], names: Mapping[str, str]) -> bool:
    """Whether a concept names a side, so that a mirror image would show another finding.

    Args:
        concepts: Concept ids.
        names: Their names, where known.
    """
    return any(
        concept in _SIDED_CUIS or _SIDED_WORDS.search(names.get(concept, ""))
        for concept in concepts
    )


def copies_of(
    frame: Image.Image,
    content: bytes,
    preprocess: Preprocess,
    recipe: Recipe,
    *,
    flip: bool,
    seed: int,
) -> NDArray[np.uint8]:
    """The pixels of an image and of its augmented copies.

    Copy 0 is the image as the encoder sees it; copy 1 its mirror image if `flip`. The others are
    drawn by the image's content, so that its place among the others does not matter.

    Args:
        frame: The decoded image, "L" or "RGB".
        content: sha256 of its file.
        preprocess: Of the encoder.
        recipe: Number of copies, and how far they may differ.
        flip: Whether mirror images may be shown.
        seed: Another seed gives other copies.

    Returns:
        uint8[copies, size, size, 3].
    """
    pixels = [preprocess(frame)]
    if flip:
        pixels.append(preprocess(ImageOps.mirror(frame)))
    factor = max(1, min(frame.size) // (_SPARE * preprocess.size))
    small = frame.reduce(factor) if factor > 1 else frame
    words = np.frombuffer(content, "<u4").tolist()
    for copy in range(len(pixels), recipe.copies):
        rng = np.random.default_rng([seed, copy, *words])
        changed = preprocess(_augmented(small, recipe, flip, rng)).astype(np.float32)
        deviation = rng.uniform(0, recipe.noise)
        changed += rng.normal(0, deviation, (*changed.shape[:2], 1)).astype(np.float32)
        pixels.append(changed.round().clip(0, 255).astype(np.uint8))
    return np.stack(pixels[: recipe.copies])


def _augmented(
    image: Image.Image, recipe: Recipe, flip: bool, rng: np.random.Generator
) -> Image.Image:
    gamma = np.exp(rng.uniform(-recipe.gamma, recipe.gamma))
    levels = [round(255 * (i / 255) ** gamma) for i in range(256)]
    image = image.point(levels * len(image.getbands()))
    angle = rng.uniform(-recipe.rotation, recipe.rotation)
    image = image.rotate(angle, Image.Resampling.BILINEAR)
    side = np.sqrt(rng.uniform(recipe.area, 1.0))
    ratio = np.exp(rng.uniform(-recipe.stretch, recipe.stretch))
    width = int(np.clip(image.width * side * ratio, 1, image.width))
    height = int(np.clip(image.height * side / ratio, 1, image.height))
    x, y = rng.integers(0, image.width - width + 1), rng.integers(0, image.height - height + 1)
    image = image.crop((int(x), int(y), int(x) + width, int(y) + height))
    return ImageOps.mirror(image) if flip and rng.random() < 0.5 else image
