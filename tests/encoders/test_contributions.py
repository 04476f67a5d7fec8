"""Positions add up to the vector, for every encoder that averages over them, and for no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from annotator.encoders.contributions import ContributionMap, patch_vectors, pooled_map
from annotator.encoders.embedder import Embedder, Encoder
from annotator.encoders.preprocess import Preprocess
from annotator.encoders.registry import make_embedder
from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.encoders.torch_setup import Precision, make_torchvision_importable

HALF = (0.5, 0.5, 0.5)


def total(maps: Sequence[ContributionMap], dim: int) -> NDArray[np.float64]:
    """float64[dim]: the sum of all contributions."""
    vector = np.zeros(dim)
    for map_ in maps:
        end = map_.start + map_.values.shape[2]
        vector[map_.start : end] += map_.values.sum(axis=(0, 1), dtype=np.float64)
    return vector


def picture(seed: int = 0, size: tuple[int, int] = (150, 90)) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (9, 15), np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def vector_of(embedder: Embedder, image: Image.Image) -> NDArray[np.float32]:
    (vector,) = embedder.embed(embedder.prepare([image]))
    return vector


def embedder(model: nn.Module, size: int, precision: Precision = "fp32") -> TorchEmbedder:
    encoder = Encoder(model, Preprocess(size, "letterbox", "bicubic", HALF, HALF), "test")
    return TorchEmbedder("test", encoder, device="cpu", precision=precision)


def of_timm(name: str, precision: Precision = "fp32", **options: Any) -> TorchEmbedder:
    """A network of timm with random weights and statistics; its normalisation is folded."""
    make_torchvision_importable()
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return embedder(model, 160, precision)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["efficientnet-lite0@64", "efficientnet-lite0@96"])
def test_positions_of_the_packaged_network_add_up(name: str, precision: Precision) -> None:
    encoder = make_embedder(name, device="cpu", precision=precision, engine="torch")
    for image in (picture(), Image.new("L", (64, 64))):  # the second one without texture
        maps = encoder.position_contributions(image)
        assert maps is not None
        sides = [map_.values.shape[:2] for map_ in maps]
        eighth = encoder.image_size // 8  # stage 2 has a position for each eight pixels
        assert sides[0] == sides[1] == (eighth, eighth) and sides[-1] == (eighth // 4, eighth // 4)
        assert total(maps, encoder.dim) == pytest.approx(vector_of(encoder, image), abs=1e-6)


def test_positions_of_several_encoders_side_by_side() -> None:
    name = "efficientnet-lite0@64+efficientnet-lite0@96"
    encoder = make_embedder(name, device="cpu", precision="fp32", engine="torch")
    maps = encoder.position_contributions(picture())
    assert maps is not None
    assert total(maps, encoder.dim) == pytest.approx(vector_of(encoder, picture()), abs=1e-6)
    assert encoder.patch_contributions(picture()) is None


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_byobnet"])
def test_positions_of_any_network_that_averages_at_the_end(name: str) -> None:
    encoder = of_timm(name)
    maps = encoder.position_contributions(picture())
    assert maps is not None and len(maps) == 1
    assert total(maps, encoder.dim) == pytest.approx(vector_of(encoder, picture()), abs=1e-6)
    half = of_timm(name, "bf16")
    maps = half.position_contributions(picture())
    assert maps is not None  # though its answer is rounded to three digits
    assert total(maps, half.dim) == pytest.approx(vector_of(half, picture()), abs=0.02)


def test_no_positions_where_something_follows_the_average(tiny_embedder: TorchEmbedder) -> None:
    assert tiny_embedder.position_contributions(picture()) is None
    assert tiny_embedder.patch_contributions(picture()) is None
    convnext = of_timm("test_convnext")  # which has a norm over channels at its end
    assert convnext.position_contributions(picture()) is None


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_a_transformer_has_patches(pool: str) -> None:
    encoder = of_timm("test_vit", global_pool=pool)
    assert encoder.position_contributions(picture()) is None
    (patches,) = encoder.patch_contributions(picture()) or [None]
    assert patches is not None
    side = patches.values.shape[0]
    assert patches.values.shape == (side, side, encoder.dim) and side == 160 // 16
    norms = np.linalg.norm(patches.values, axis=2) * side * side
    assert norms == pytest.approx(1, abs=1e-5)
    # Another bottom right corner changes that corner's patch most.
    changed = picture()
    changed.paste(255, (120, 60, 150, 90))
    (others,) = encoder.patch_contributions(changed) or [None]
    assert others is not None
    difference = np.linalg.norm(others.values - patches.values, axis=2)
    row, column = np.unravel_index(difference.argmax(), difference.shape)
    assert row in (6, 7) and column in (8, 9)  # the picture is letterboxed


def test_a_transformer_of_open_clip_has_patches() -> None:
    transformer = pytest.importorskip("open_clip.transformer", reason="an optional extra")
    torch.manual_seed(0)
    tower = transformer.VisionTransformer(
        image_size=64, patch_size=16, width=32, layers=2, heads=2, mlp_ratio=2, output_dim=24
    )
    (patches,) = embedder(tower.eval(), 64).patch_contributions(picture()) or [None]
    assert patches is not None and patches.values.shape == (4, 4, 24)


class Tokens(nn.Module):
    """Patches without attention, averaged and projected: each patch's vector is known."""

    def __init__(self) -> None:
        super().__init__()
        self.patchify, self.norm = nn.Conv2d(3, 8, 8, stride=8), nn.Identity()
        self.projection = nn.Linear(8, 4)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.norm(self.patchify(pixels).flatten(2).transpose(1, 2))
        answer: Tensor = self.projection(tokens.mean(dim=1))
        return answer


def test_each_patch_stands_for_all() -> None:
    torch.manual_seed(0)
    model, batch = Tokens().eval(), torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        vectors = patch_vectors(model, batch)
        assert vectors is not None
        expected = model.projection(model.patchify(batch)[0].movedim(0, 2))
        assert pooled_map(model, batch) is None
        answer = model(batch)
    assert vectors.numpy() == pytest.approx(expected.numpy(), abs=1e-6)
    # Nothing but averages and an affine map follows: here even their mean is the answer.
    assert vectors.mean(dim=(0, 1)).numpy() == pytest.approx(answer[0].numpy(), abs=1e-6)


def test_nothing_stays_hooked() -> None:
    encoder = of_timm("test_vit")
    before = vector_of(encoder, picture())
    encoder.patch_contributions(picture(1))
    encoder.position_contributions(picture(1))
    assert np.array_equal(vector_of(encoder, picture()), before)
    assert not any(module._forward_hooks for module in encoder._model.modules())
