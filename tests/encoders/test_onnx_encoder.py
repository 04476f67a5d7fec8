"""ONNX files: every form of input, what is beside them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import write_onnx

from annotator.encoders.registry import make_embedder
from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.errors import AnnotatorError

FLOATS = ["n", 3, 32, 32]
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def make(path: Path | str, **options: Any) -> TorchEmbedder:
    made = make_embedder(f"onnx:{path}", **{"device": "cpu", **options})
    assert isinstance(made, TorchEmbedder)
    return made


def pixels(n: int, size: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), np.uint8)


@pytest.mark.parametrize(
    ("shape", "options", "size"),
    [
        (["n", 3, 32, 32], {}, 32),
        ([1, 3, 32, 32], {}, 32),
        ([4, 3, 32, 32], {}, 32),
        (["n", "c", "h", "w"], {}, 224),
        (["n", 3, None, None], {}, 224),
        (["n", 32, 32, 3], {"channels_last": True}, 32),
        (["n", 32, 32, 3], {"channels_last": True, "of_bytes": True}, 32),
        (["n", 3, 40, 40], {"of_bytes": True}, 40),
        (["n", 1, 32, 32], {}, 32),
        (["n", 3, 32, 32], {"external": True}, 32),
        (["n", 3, 32, 32], {"outputs": ("map", "vectors")}, 32),
    ],
)
def test_images_go_in_as_the_network_takes_them(
    tmp_path: Path, shape: list[Any], options: dict[str, Any], size: int
) -> None:
    import onnxruntime

    path = write_onnx(tmp_path / "a.onnx", shape, **options)
    embedder = make(path)
    assert embedder.image_size == size
    seen = embedder.fingerprint.preprocess
    images = pixels(6, size)
    if options.get("of_bytes"):
        assert (seen["mean"], seen["std"]) == ([0.0] * 3, [1.0] * 3)
        given = images
    else:
        assert {key: seen[key] for key in IMAGENET} == IMAGENET
        given = ((images / 255 - IMAGENET["mean"]) / IMAGENET["std"]).astype(np.float32)
    if shape[1] == 1:
        given = given.mean(axis=3, keepdims=True)
    if not options.get("channels_last"):
        given = given.transpose(0, 3, 1, 2)
    session, batch = onnxruntime.InferenceSession(path), shape[0] if shape[0] != "n" else 6
    padded = np.concatenate([given, given[:2]])  # 8 images fill batches of 1 and of 4
    found = [
        session.run(["vectors"], {"images": np.ascontiguousarray(padded[i : i + batch])})[0]
        for i in range(0, 6, batch)
    ]
    expected = torch.nn.functional.normalize(torch.from_numpy(np.concatenate(found)[:6])).numpy()
    np.testing.assert_allclose(embedder.embed(images), expected, atol=1e-5)
    assert np.array_equal(embedder.embed(images), embedder.embed(images))


def test_the_fingerprint_is_of_the_file_and_of_those_that_it_names(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "a.onnx", FLOATS, external=True)
    first = make(path).fingerprint
    (tmp_path / "unrelated.data").write_bytes(b"x")
    assert make(path).fingerprint == first
    tensors = tmp_path / "a.onnx.data"
    content = bytearray(tensors.read_bytes())
    content[3] ^= 1
    tensors.write_bytes(content)
    (difference,) = make(path).fingerprint.differences(first)
    assert difference.startswith("weights:")


def test_it_runs_in_its_own_precision_alone(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "a.onnx", FLOATS)
    assert make(path, precision="bf16").fingerprint == make(path, precision="fp32").fingerprint
    joined = make_embedder(f"onnx:{path}+efficientnet-lite0@64", device="cpu", precision="bf16")
    asked = joined.fingerprint.asked_precision
    again = make_embedder(joined.name, device="cpu", precision=asked)
    assert asked == "bf16" and again.fingerprint == joined.fingerprint


OWN = {"size": 32, "resize": "crop", "interpolation": "bilinear", "crop_pct": 0.5,
       "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}  # fmt: skip


def test_preprocessing_beside_the_file(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "a.onnx", ["n", 3, "h", "w"])
    processor = {"size": {"height": 48, "width": 48}, "image_mean": [0.5] * 3,
                 "image_std": [0.5] * 3, "resample": 3}  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    seen = dict(make(path).fingerprint.preprocess)
    assert (seen["size"], seen["resize"], seen["mean"]) == (48, "stretch", [0.5] * 3)
    own = tmp_path / "preprocess.json"
    own.write_text(json.dumps(OWN))
    seen = dict(make(path).fingerprint.preprocess)
    del seen["decoder"]
    assert seen == OWN
    assert make(path).image_size == 64  # of whose middle half are the 32
    own.write_text('{"mean": [0, 0, 0]}')
    assert make(path).fingerprint.preprocess["std"] == IMAGENET["std"]


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"side": 3}', '{"resize": "pad"}', '{"interpolation": 3}', '{"mean": [0.5]}',
     '{"mean": "no"}', '{"std": [1, 1, 0]}', '{"size": 0}', '{"size": 9999}', '{"crop_pct": 2}',
     '{"size": 64}'],
)  # fmt: skip
def test_preprocessing_that_is_none(tmp_path: Path, content: str) -> None:
    path = write_onnx(tmp_path / "a.onnx", FLOATS)
    (tmp_path / "preprocess.json").write_text(content)
    with pytest.raises(AnnotatorError, match=r"preprocess\.json"):
        make(path)


@pytest.mark.parametrize(
    ("shape", "options", "suffix", "said"),
    [
        (["n", 3, 32, 64], {}, "", "not squares"),
        (["n", 5, 32, 32], {}, "", "does not take images alone"),
        (["n", 3, 32], {}, "", "could not be loaded|does not take images alone"),
        (FLOATS, {"outputs": ("vectors", "others")}, "", "has 2 outputs that are one vector"),
        (FLOATS, {"outputs": ("map", "vectors")}, "@none", "has no output 'none'"),
        (FLOATS, {"outputs": ("map",)}, "", "not one vector an image"),
        (FLOATS, {"outputs": ("map", "vectors")}, "@map", "not one vector an image"),
    ],
)
def test_networks_that_are_no_encoders(
    tmp_path: Path, shape: list[Any], options: dict[str, Any], suffix: str, said: str
) -> None:
    path = write_onnx(tmp_path / "a.onnx", shape, **options)
    with pytest.raises(AnnotatorError, match=said) as error:
        make(f"{path}{suffix}")
    if said.startswith("has 2"):
        assert f"onnx:{path}@vectors" in error.value.hint


def test_the_output_may_be_named(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "a.onnx", FLOATS, outputs=("vectors", "others"))
    images = pixels(2, 32)
    assert make(f"{path}@others").embed(images) == pytest.approx(
        -make(f"{path}@vectors").embed(images)
    )


@pytest.mark.parametrize("content", [b"", b"no network", b"\x08\x08" * 99])
def test_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(AnnotatorError, match="could not be loaded"):
        make(tmp_path / "a.onnx")


def test_a_gpu_that_onnxruntime_has_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    path = write_onnx(tmp_path / "a.onnx", FLOATS)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(AnnotatorError, match="onnxruntime has no CUDA") as error:
        make(path, device="cuda")
    assert "onnxruntime-gpu" in error.value.hint
    image = Image.new("L", (40, 30), 77)
    assert make(path, device="auto").embed(make(path).prepare([image])).shape == (1, 16)
