"""Models of transformers: families, pooling, and files that are not taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import LAYERS, SPREAD, TEXTS, VIT, save_clip, save_dinov2, transformers
from torch import Tensor

from annotator.encoders.registry import make_embedder
from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.errors import AnnotatorError

SQUARE = {"height": 64, "width": 64}
Make = Callable[[Any], Any]

FAMILIES: dict[str, Make] = {
    "dinov2": lambda t: t.Dinov2Model(t.Dinov2Config(**VIT, **SPREAD)),
    "dinov2 with registers": lambda t: t.Dinov2WithRegistersModel(
        t.Dinov2WithRegistersConfig(**VIT, **SPREAD)
    ),
    "dinov3": lambda t: t.DINOv3ViTModel(t.DINOv3ViTConfig(num_register_tokens=4, **VIT, **SPREAD)),
    "vit": lambda t: t.ViTModel(t.ViTConfig(**VIT, **SPREAD)),
    "deit": lambda t: t.DeiTModel(t.DeiTConfig(**VIT, **SPREAD)),
    "beit": lambda t: t.BeitModel(t.BeitConfig(**VIT, **SPREAD)),
    "swin": lambda t: t.SwinModel(
        t.SwinConfig(image_size=64, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4)
    ),
    "convnext": lambda t: t.ConvNextModel(
        t.ConvNextConfig(hidden_sizes=[8, 8, 16, 32], depths=[1, 1, 1, 1])
    ),
    "siglip vision": lambda t: t.SiglipVisionModel(t.SiglipVisionConfig(**VIT, **SPREAD)),
}
PREFIX = {"dinov2": 1, "dinov2 with registers": 5, "dinov3": 5, "vit": 1, "deit": 2, "beit": 1}


def save(folder: Path, model: Any) -> str:
    model.save_pretrained(folder)
    transformers().ViTImageProcessor(size=SQUARE).save_pretrained(folder)
    return f"transformers:{folder}"


def make(name: str) -> TorchEmbedder:
    made = make_embedder(name, device="cpu", precision="fp32", engine="torch")
    assert isinstance(made, TorchEmbedder)
    return made


def picture() -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (5, 8), np.uint8)
    return Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)


def unit(vectors: Tensor) -> Any:
    return torch.nn.functional.normalize(vectors.float()).numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_pooling_of_each_family(tmp_path: Path, family: str) -> None:
    if family == "dinov3" and not hasattr(transformers(), "DINOv3ViTModel"):
        pytest.skip("this version of transformers has no DINOv3")
    torch.manual_seed(0)
    model = FAMILIES[family](transformers()).eval()
    name = save(tmp_path / "m", model)
    embedder = make(name)
    pixels = embedder.prepare([picture()])
    with torch.inference_mode():
        scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        output = model(pixel_values=scaled)
    tokens, prefix = output.last_hidden_state, PREFIX.get(family, 0)
    if tokens.ndim == 4:
        tokens = tokens.flatten(2).transpose(1, 2)
    expected = {
        "@mean": tokens[:, prefix:].mean(dim=1),
        "@pooled": output.pooler_output.flatten(1),
        "@cls": tokens[:, 0],
    }
    expected[""] = expected["@cls" if family in ("vit", "deit") else "@pooled"]
    for suffix, vectors in expected.items():
        if suffix == "@cls" and not prefix:
            with pytest.raises(AnnotatorError, match="no class token"):
                make(f"{name}@cls")
            continue
        found = make(name + suffix)
        np.testing.assert_allclose(found.embed(pixels), unit(vectors), atol=1e-5)
        assert ("Model, mean {" in found.fingerprint.architecture) == (suffix == "@mean")


def test_contributions_of_patches_and_positions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    patches = make(save(tmp_path / "vit", FAMILIES["dinov2 with registers"](transformers())))
    assert patches.position_contributions(picture()) is None
    (found,) = patches.patch_contributions(picture()) or [None]
    assert found is not None and found.values.shape == (4, 4, 32)
    config = transformers().ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 32],
                                         depths=[1, 1, 1, 1])  # fmt: skip
    positions = make(save(tmp_path / "resnet", transformers().ResNetModel(config)))
    (exact,) = positions.position_contributions(picture()) or [None]
    (vector,) = positions.embed(positions.prepare([picture()]))
    assert exact is not None
    assert exact.values.sum(axis=(0, 1)) == pytest.approx(vector, abs=1e-5)


def test_a_classifier_s_checkpoint_has_no_pooler(tmp_path: Path) -> None:
    """What is not in the file is drawn at random each time, so it must not take part."""
    torch.manual_seed(0)
    model = transformers().ViTForImageClassification(transformers().ViTConfig(**VIT, **SPREAD))
    name = save(tmp_path / "m", model)
    first, second = make(name), make(name)
    assert first.fingerprint == second.fingerprint
    pixels = first.prepare([picture()])
    assert np.array_equal(first.embed(pixels), second.embed(pixels))
    with pytest.raises(AnnotatorError, match="does not pool by itself"):
        make(f"{name}@pooled")


def test_the_text_tower_is_not_kept(tmp_path: Path) -> None:
    name = save_clip(tmp_path / "m")
    embedder = make(name)
    kept = {key.split(".")[1] for key in embedder._model.state_dict()}
    assert kept == {"vision_model", "visual_projection", "logit_scale"}
    hidden = make(f"{name}@mean")
    assert (embedder.dim, hidden.dim) == (24, 32)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = FAMILIES["dinov2"](transformers()).half()
    half = make(save(tmp_path / "half", model))
    full = make(save(tmp_path / "full", model.float()))
    pixels = full.prepare([picture()])
    assert half.fingerprint == full.fingerprint
    assert np.array_equal(half.embed(pixels), full.embed(pixels))


def test_the_number_of_heads_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    name = save_dinov2(tmp_path / "m")
    before = make(name).fingerprint
    path = tmp_path / "m" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "transformers_version": "4.1", "architectures": ["X"]}))
    assert make(name).fingerprint == before
    path.write_text(json.dumps({**config, "num_attention_heads": 4}))
    (difference,) = make(name).fingerprint.differences(before)
    assert difference.startswith("architecture:")


# --- What is not taken ----------------------------------------------------------------------------


def test_tensors_that_are_missing(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    name, file = save_dinov2(tmp_path / "m"), tmp_path / "m" / "model.safetensors"
    tensors = load_file(file)
    del tensors["embeddings.mask_token"]  # for training alone
    save_file(tensors, file, {"format": "pt"})
    assert make(name).fingerprint == make(name).fingerprint
    del tensors["layernorm.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(AnnotatorError, match=r"lacks 1 tensors of Dinov2Model.*layernorm\.weight"):
        make(name)


class Runs:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled_and_no_code_is_run(tmp_path: Path) -> None:
    folder, ran = tmp_path / "m", tmp_path / "ran"
    name = save_dinov2(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Runs(ran)}, folder / "pytorch_model.bin")
    with pytest.raises(AnnotatorError, match=r"could not be loaded.*safetensors"):
        make(name)
    (folder / "own.py").write_text(f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(AnnotatorError, match="could not be loaded"):
        make(name)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("model", "processor", "said"),
    [
        (lambda t: t.ViTMAEModel(t.ViTMAEConfig(**VIT)), None, "another vector each time"),
        (lambda t: t.BertModel(t.BertConfig(**LAYERS)), None, "could not be loaded"),
        (
            lambda t: t.Siglip2Model(
                t.Siglip2Config(text_config=TEXTS, vision_config={**LAYERS, "num_patches": 16})
            ),
            lambda t: t.Siglip2ImageProcessor(),
            "NaFlex",
        ),
        (
            lambda t: t.ViTModel(t.ViTConfig(**{**VIT, "image_size": (64, 32)})),
            lambda t: t.ViTImageProcessor(size={"height": 64, "width": 32}),
            "no squares",
        ),
        (
            lambda t: t.ViTModel(t.ViTConfig(**VIT)),
            lambda t: t.ViTImageProcessor(size={"height": 48, "width": 48}),
            "could not be loaded",
        ),
    ],
    ids=["masked", "of texts", "naflex", "rectangular", "another size"],
)
def test_models_that_are_no_encoders(
    tmp_path: Path, model: Make, processor: Make | None, said: str
) -> None:
    t = transformers()
    name = save(tmp_path / "m", model(t))
    if processor is not None:
        processor(t).save_pretrained(tmp_path / "m")
    with pytest.raises(AnnotatorError, match=said):
        make(f"{name}@mean")


def test_the_end_of_the_string(tmp_path: Path) -> None:
    name = save_dinov2(tmp_path / "at@cls")  # a folder may be called so
    assert make(name).dim == 32
    assert make(f"{name}@mean").name == f"{name}@mean"
    with pytest.raises(AnnotatorError, match="'max' is no pooling") as error:
        make("transformers:microsoft/rad-dino@max")
    assert "@cls, @mean, @pooled" in error.value.hint
