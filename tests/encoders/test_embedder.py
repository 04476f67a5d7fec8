"""The embedder: unit vectors that depend on the image alone."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from annotator.encoders.embedder import Encoder
from annotator.encoders.preprocess import Preprocess
from annotator.encoders.registry import DEFAULT, make_embedder
from annotator.encoders.torch_embedder import TorchEmbedder, pad_batch
from annotator.encoders.torch_setup import Precision, make_torchvision_importable
from annotator.errors import AnnotatorError

HALF = (0.5, 0.5, 0.5)
ARCHITECTURES = ["packaged", "resnet10t", "vit_tiny_patch16_224", "convnext_atto"]


def encoder_of(model: nn.Module, size: int = 16) -> Encoder:
    return Encoder(model, Preprocess(size, "stretch", "bicubic", HALF, HALF), "test")


@cache
def embedder(architecture: str, precision: Precision = "fp32") -> TorchEmbedder:
    """The packaged network as it is, others from timm with random weights at 64 pixels."""
    if architecture == "packaged":
        made = make_embedder(DEFAULT, device="cpu", precision=precision, engine="torch")
        assert isinstance(made, TorchEmbedder)
        return made
    make_torchvision_importable()
    import timm

    torch.manual_seed(0)
    options = {"img_size": 64} if architecture.startswith("vit") else {}
    model = timm.create_model(architecture, False, num_classes=0, **options)  # type: ignore[arg-type]
    return TorchEmbedder(architecture, encoder_of(model, 64), device="cpu", precision=precision)


def pictures(n: int, size: int) -> NDArray[np.uint8]:
    """Smooth random pictures: coarse noise, enlarged."""
    coarse = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), np.uint8)
    bicubic = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(c).resize((size, size), bicubic)) for c in coarse])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_unit_vectors_whatever_the_batch(architecture: str, precision: Precision) -> None:
    network = embedder(architecture, precision)
    pixels = pictures(9, network.image_size)
    vectors = network.embed(pixels)
    assert vectors.shape == (9, network.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors, network.embed(pixels))
    assert np.max(vectors @ vectors.T - np.eye(9)) < 1 - 1e-5  # they tell pictures apart

    # In bf16 another batch may take another kernel, and its last bit is worth 1 part in 256: of
    # numbers of up to 0.25, about 0.001 each time that it is rounded otherwise.
    tolerance = 1e-6 if precision == "fp32" else 4e-3
    for batch in (1, 2, 5):
        parts = [network.embed(pixels[i : i + batch]) for i in range(0, 9, batch)]
        np.testing.assert_allclose(np.concatenate(parts), vectors, atol=tolerance)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bf16_is_close_to_fp32(architecture: str) -> None:
    exact, quick = embedder(architecture), embedder(architecture, "bf16")
    pixels = pictures(4, exact.image_size)
    cosines = np.sum(exact.embed(pixels) * quick.embed(pixels), axis=1)
    assert np.all(cosines > 0.99)
    assert np.any(cosines < 1 - 1e-7)  # it is another precision
    # The weights' digest is of those in the file, neither folded nor rounded.
    assert exact.fingerprint.differences(quick.fingerprint) == ["precision: fp32, not bf16"]


def test_many_threads_get_the_same_vectors(tiny_embedder: TorchEmbedder) -> None:
    pixels = pictures(64, 32)
    expected = tiny_embedder.embed(pixels)
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(lambda i: tiny_embedder.embed(pixels[i : i + 4]), range(0, 64, 4))
        np.testing.assert_allclose(np.concatenate(list(parts)), expected, atol=1e-6)


class Mean(nn.Module):
    """The mean of each channel, so that what reaches a network can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) * self.scale


def test_pixels_reach_the_network_as_rgb_normalised_by_mean_and_std() -> None:
    preprocess = Preprocess(8, "stretch", "bicubic", (0.1, 0.2, 0.3), (0.5, 0.25, 0.125))
    network = TorchEmbedder("m", Encoder(Mean(), preprocess, "m"), device="cpu", precision="fp32")
    colour = (255, 102, 51)
    vector = network.embed(network.prepare([Image.new("RGB", (20, 10), colour)]))[0]
    expected = (np.array(colour) / 255 - (0.1, 0.2, 0.3)) / (0.5, 0.25, 0.125)
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)


def test_prepare_stacks_frames_of_any_size(tiny_embedder: TorchEmbedder) -> None:
    frames = [Image.new("L", (50, 10)), Image.new("RGB", (1, 5000)), Image.new("L", (32, 32))]
    pixels = tiny_embedder.prepare(frames)
    assert pixels.shape == (3, 32, 32, 3)
    assert pixels.dtype == np.uint8
    assert tiny_embedder.embed(pixels[:0]).shape == (0, 16)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 32, 32, 3), np.float32),
        np.zeros((2, 3, 32, 32), np.uint8),
        np.zeros((2, 32, 31, 3), np.uint8),
        np.zeros((32, 32, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(tiny_embedder: TorchEmbedder, pixels: NDArray[np.uint8]) -> None:
    said = re.escape(f"takes uint8[n, 32, 32, 3], not {pixels.dtype}{list(pixels.shape)}")
    with pytest.raises(ValueError, match=said):
        tiny_embedder.embed(pixels)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_vectors_without_a_direction_are_an_error(value: float) -> None:
    model = Mean()
    nn.init.constant_(model.scale, value)
    network = TorchEmbedder("broken", encoder_of(model), device="cpu", precision="fp32")
    with pytest.raises(AnnotatorError, match="broken returned a vector that is zero or not finite"):
        network.embed(pictures(2, 16))


class Returns(nn.Module):
    """Whatever is asked for as an output."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> object:
        return x if self.kind == "map" else (x.flatten(1), x)


@pytest.mark.parametrize(
    ("kind", "said"), [("map", r"gives \[1, 3, 16, 16\] for"), ("pair", "gives tuple for")]
)
def test_networks_that_do_not_pool_are_refused(kind: str, said: str) -> None:
    with pytest.raises(AnnotatorError, match=said):
        TorchEmbedder("odd", encoder_of(Returns(kind)), device="cpu", precision="fp32")


def test_layers_were_folded_and_memory_is_channels_last() -> None:
    network = embedder("packaged")._model
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    weights = [p for p in network.parameters() if p.ndim == 4]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    ("n", "wanted"), [(1, 1), (2, 16), (16, 16), (17, 128), (128, 128), (129, 256), (256, 256)]
)
def test_batches_of_a_few_sizes(n: int, wanted: int) -> None:
    pixels = np.random.default_rng(n).integers(1, 256, (n, 4, 4, 3), np.uint8)
    filled = pad_batch(pixels, (1, 16, 128))
    assert filled.shape == (wanted, 4, 4, 3) and filled.dtype == np.uint8
    assert np.array_equal(filled[:n], pixels) and not filled[n:].any()
    assert filled.flags.c_contiguous


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_the_vectors_are_those_of_the_cpu() -> None:
    here, there = make_embedder(device="cpu"), make_embedder(device="cuda", precision="fp32")
    pixels = np.random.default_rng(0).integers(
        0, 256, (20, here.image_size, here.image_size, 3), np.uint8
    )
    vectors = there.embed(pixels)
    assert vectors.shape == (20, there.dim)
    assert np.abs((vectors * here.embed(pixels)).sum(axis=1) - 1).max() < 1e-3
    with ThreadPoolExecutor(4) as pool:  # as the runner's threads do
        for again in pool.map(there.embed, [pixels] * 4):
            assert again.tobytes() == vectors.tobytes()
