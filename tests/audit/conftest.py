"""Pictures that an audit can tell something about."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from annotator.images.ref import ImageRef

Drawn = NDArray[np.uint8]


def draw_textures(n: int, seed: int = 0, side: int = 256) -> list[Drawn]:
    """Pictures that share their large structure and differ in the small one, as radiographs do."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    body = 120 * np.exp(-2 * x**2 - y**2)
    pictures = []
    for _ in range(n):
        noise = Image.fromarray(rng.normal(128, 300, (side, side)).clip(0, 255).astype(np.uint8))
        fine = np.asarray(noise.filter(ImageFilter.GaussianBlur(5)), np.float64)
        pictures.append((body + 2 * (fine - fine.mean()) + 60).clip(0, 255).astype(np.uint8))
    return pictures


def encoded(picture: Drawn, type_: str = "PNG", **options: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, type_, **options)
    return file.getvalue()


@pytest.fixture(scope="session")
def textures() -> list[Drawn]:
    return draw_textures(24)


@pytest.fixture(scope="session")
def as_refs() -> Callable[[list[bytes]], list[ImageRef]]:
    def make(files: list[bytes]) -> list[ImageRef]:
        return [ImageRef(f"i{n:03d}", f"i{n:03d}", lambda d=d: d) for n, d in enumerate(files)]

    return make


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    return encoded


def _changed(picture: Drawn, change: str) -> bytes:
    image = Image.fromarray(picture)
    quality, (w, h) = 90, image.size
    if change == "rescaled":
        image = image.resize((w * 2 // 3, h * 2 // 3), Image.Resampling.BICUBIC)
    elif change == "recompressed":
        quality = 30
    elif change == "cropped":
        image = image.crop((0, h // 20, w - w // 20, h))
    elif change == "brighter":
        image = image.point(lambda v: min(255, v * 1.3))
    elif change == "mirrored":
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


CHANGES = ("rescaled", "recompressed", "cropped", "brighter", "mirrored")


@pytest.fixture(scope="session")
def changed() -> Callable[[Drawn, str], bytes]:
    return _changed


@pytest.fixture(params=CHANGES)
def change(request: pytest.FixtureRequest) -> str:
    return str(request.param)
