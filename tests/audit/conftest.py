"""Drawn pictures, changed copies of them, and an encoder that sees their large structure."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from annotator.audit.align import SIDE, VERIFY_SIDE
from annotator.audit.candidates import Views
from annotator.encoders.fingerprint import Fingerprint
from annotator.images.ref import ImageRef
from annotator.images.thumbnails import grey_thumbnail_of, grey_thumbnails

Drawn = NDArray[np.uint8]


def draw_textures(n: int, seed: int = 0, side: int = 128) -> list[Drawn]:
    """Pictures that share their large structure and differ in the small one, as radiographs do."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    body = 120 * np.exp(-2 * x**2 - y**2)
    pictures = []
    for _ in range(n):
        noise = Image.fromarray(rng.normal(128, 300, (side, side)).clip(0, 255).astype(np.uint8))
        fine = np.asarray(noise.filter(ImageFilter.GaussianBlur(3)), np.float64)
        pictures.append((body + 2 * (fine - fine.mean()) + 60).clip(0, 255).astype(np.uint8))
    return pictures


def _encoded(picture: Drawn, type_: str = "PNG", **options: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, type_, **options)
    return file.getvalue()


def _cropped(image: Image.Image, share: float) -> Image.Image:
    """Less that share of the width and of the height, at the right and at the top."""
    width, height = image.size
    return image.crop((0, round(height * share), width - round(width * share), height))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "shrunk": lambda i: i.resize((i.width * 2 // 3, i.height * 2 // 3), Image.Resampling.BICUBIC),
    "enlarged": lambda i: i.resize((i.width * 3 // 2, i.height * 2), Image.Resampling.BICUBIC),
    "recompressed": lambda i: i,
    "cropped by 10 %": lambda i: _cropped(i, 0.1),
    "cropped by 20 %": lambda i: _cropped(i, 0.2),
    "brighter": lambda i: i.point(lambda v: min(255, v * 1.3)),
    "darker": lambda i: i.point(lambda v: v * 0.6),
    "rotated": lambda i: i.rotate(1, Image.Resampling.BICUBIC),
    "mirrored": lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def _changed(picture: Drawn, change: str) -> bytes:
    file = io.BytesIO()
    image = CHANGES[change](Image.fromarray(picture))
    image.save(file, "JPEG", quality=30 if change == "recompressed" else 90)
    return file.getvalue()


def _as_refs(files: Sequence[bytes]) -> list[ImageRef]:
    return [ImageRef(f"i{n:03d}", f"i{n:03d}", lambda d=d: d) for n, d in enumerate(files)]


def _views_of(refs: Sequence[ImageRef]) -> Views:
    """With the grey picture, less its mean, in place of an encoder's vector."""
    thumbnails = grey_thumbnails(refs, SIDE, workers=1)
    vectors = thumbnails.reshape(len(refs), -1).astype(np.float32)
    vectors += 1e-3 - vectors.mean(axis=1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Views(vectors, thumbnails, lambda row: grey_thumbnail_of(refs[row], VERIFY_SIDE))


class PixelEmbedder:
    """An encoder whose vector is the picture itself, in grey at 8 x 8 pixels."""

    name, dim, blocks, frames, image_size, batch_size = "pixels", 64, (64,), "middle", 8, 16
    fingerprint = Fingerprint("pixels", "none", {}, "fp32", "middle", 64)
    fitted = None
    engine = None

    def prepare(self, frames: Sequence[Image.Image]) -> NDArray[np.uint8]:
        small = [frame.convert("RGB").resize((8, 8), Image.Resampling.BOX) for frame in frames]
        return np.stack([np.asarray(picture) for picture in small])

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        vectors = pixels.mean(axis=3).reshape(len(pixels), -1) + 1.0
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float32)


@pytest.fixture(scope="session")
def textures() -> list[Drawn]:
    return draw_textures(24)


@pytest.fixture(scope="session")
def draw() -> Callable[..., list[Drawn]]:
    return draw_textures


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    return _encoded


@pytest.fixture(scope="session")
def changed() -> Callable[[Drawn, str], bytes]:
    return _changed


@pytest.fixture(params=CHANGES)
def change(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def as_refs() -> Callable[[Sequence[bytes]], list[ImageRef]]:
    return _as_refs


@pytest.fixture(scope="session")
def views_of() -> Callable[[Sequence[ImageRef]], Views]:
    return _views_of


@pytest.fixture(scope="session")
def pixel_embedder() -> PixelEmbedder:
    return PixelEmbedder()
