"""Tiny random models, each saved in its library's own format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from annotator.encoders.torch_setup import make_torchvision_importable

HALF = [0.5, 0.5, 0.5]
LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LAYERS |= {"intermediate_size": 64}
TEXTS = {**LAYERS, "vocab_size": 300, "max_position_embeddings": 16, "eos_token_id": 1}
TEXTS |= {"pad_token_id": 0, "bos_token_id": 0, "projection_size": 32}
VIT = {**LAYERS, "image_size": 64, "patch_size": 16}
SPREAD = {"initializer_range": 0.2}  # so that images of other content give other vectors


def save_timm(folder: Path) -> str:
    """A timm network in timm's repository layout."""
    make_torchvision_importable()
    import timm
    from safetensors.torch import save_file

    folder.mkdir()
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0, img_size=64)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {"architecture": "test_vit", "model_args": {"img_size": 64}}
    config["pretrained_cfg"] = {"input_size": [3, 64, 64], "mean": HALF, "std": HALF}
    (folder / "config.json").write_text(json.dumps(config))
    return f"timm:{folder}"


def save_open_clip(folder: Path) -> str:
    """An open_clip model as a repository."""
    make_torchvision_importable()
    open_clip = pytest.importorskip("open_clip", reason="open_clip is an optional extra")
    from safetensors.torch import save_file

    folder.mkdir()
    tower = {"width": 32, "layers": 2}
    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "head_width": 16, "patch_size": 16, **tower},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "heads": 2, **tower},
    }
    named = folder / f"tiny-{folder.name}.json"
    named.write_text(json.dumps(config))
    open_clip.add_model_config(named)
    torch.manual_seed(0)
    model = open_clip.create_model(named.stem)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    described = {"model_cfg": config, "preprocess_cfg": {"mean": HALF, "std": HALF}}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    return f"local-dir:{folder}"


def transformers() -> Any:
    make_torchvision_importable()
    return pytest.importorskip("transformers", reason="transformers is an optional extra")


def save_transformers(folder: Path, model: Any, processor: Any) -> str:
    """A model of transformers and its image processor; weights are drawn here."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return f"transformers:{folder}"


def save_dinov2(folder: Path) -> str:
    """As DINOv2 and RAD-DINO are published, resized to 64 and cropped to 56."""
    t = transformers()
    torch.manual_seed(0)
    model = t.Dinov2Model(t.Dinov2Config(**{**VIT, "image_size": 56, "patch_size": 14}, **SPREAD))
    crop = {"height": 56, "width": 56}
    processor = t.BitImageProcessor(size={"shortest_edge": 64}, crop_size=crop)
    return save_transformers(folder, model, processor)


def save_clip(folder: Path) -> str:
    t = transformers()
    torch.manual_seed(0)
    config = t.CLIPConfig(text_config=TEXTS, vision_config={**VIT, **SPREAD}, projection_dim=24)
    side = {"height": 64, "width": 64}
    processor = t.CLIPImageProcessor(size={"shortest_edge": 64}, crop_size=side)
    _tokenizer(t).save_pretrained(folder)
    return save_transformers(folder, t.CLIPModel(config), processor)


def save_siglip(folder: Path) -> str:
    """As SigLIP and MedSigLIP are published."""
    t = transformers()
    torch.manual_seed(0)
    config = t.SiglipConfig(text_config=TEXTS, vision_config={**VIT, **SPREAD})
    processor = t.SiglipImageProcessor(size={"height": 64, "width": 64})
    _tokenizer(t).save_pretrained(folder)
    return save_transformers(folder, t.SiglipModel(config), processor)


def _tokenizer(t: Any) -> Any:
    """One token a byte; texts end in token 1, and are padded with it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1, **{token: i + 2 for i, token in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return t.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def save_onnx(folder: Path) -> str:
    folder.mkdir()
    return f"onnx:{write_onnx(folder / 'tower.onnx', ['n', 3, 64, 64])}"


def write_onnx(
    path: Path,
    shape: list[Any],
    *,
    of_bytes: bool = False,
    channels_last: bool = False,
    external: bool = False,
    outputs: tuple[str, ...] = ("vectors",),
    seed: int = 0,
) -> Path:
    """A small convolution, then the mean over positions; "map" as an output is not averaged."""
    onnx = pytest.importorskip("onnx", reason="onnx is needed to write a model")
    pytest.importorskip("onnxruntime", reason="onnxruntime is an optional extra")
    node, kinds = onnx.helper.make_node, onnx.TensorProto
    channels = shape[3] if channels_last else shape[1]
    channels = channels if isinstance(channels, int) else 3
    weight = np.random.default_rng(seed).normal(size=(16, channels, 8, 8)).astype(np.float32)
    nodes = [
        node("Cast", ["images"], ["floats"], to=kinds.FLOAT),
        node("Transpose", ["floats"], ["x"], perm=[0, 3, 1, 2] if channels_last else [0, 1, 2, 3]),
        node("Conv", ["x", "weight"], ["found"], strides=[4, 4]),
        node("Tanh", ["found"], ["map"]),
        node("GlobalAveragePool", ["map"], ["averaged"]),
        node("Flatten", ["averaged"], ["vectors"]),
        node("Neg", ["vectors"], ["others"]),
    ]
    shapes = {"map": [shape[0], 16, None, None]}
    graph = onnx.helper.make_graph(
        nodes,
        "tiny",
        [onnx.helper.make_tensor_value_info(
            "images", kinds.UINT8 if of_bytes else kinds.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info(
            name, kinds.FLOAT, shapes.get(name, [shape[0], 16])) for name in outputs],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    place = {"save_as_external_data": external, "location": f"{path.name}.data"}
    onnx.save(model, str(path), **place, size_threshold=0)
    return path


def save_xrv(folder: Path) -> str:
    """The weights of a network of torchxrayvision, as its state dict."""
    from safetensors.torch import save_file

    folder.mkdir()
    torch.manual_seed(0)
    save_file(xrv_models().DenseNet().state_dict(), folder / "weights.safetensors")
    return f"xrv:densenet121-res224-nih@{folder / 'weights.safetensors'}"


def xrv_models() -> Any:
    make_torchvision_importable()
    reason = "torchxrayvision is an optional extra"
    return pytest.importorskip("torchxrayvision", reason=reason).models


def make_xrv_small(patch: pytest.MonkeyPatch) -> None:
    """Let torchxrayvision's network be small: the real one takes as long as all the others."""
    models = xrv_models()
    build = models.DenseNet.__init__  # growth rate, layers of each block, channels at first, ...
    patch.setattr(build, "__defaults__", (4, (2, 2, 2, 2), 8, *build.__defaults__[3:]))
    patch.setitem(models.model_urls["densenet121-res224-nih"], "input_resolution", 64)


SAVERS: dict[str, Callable[[Path], str]] = {
    "timm": save_timm,
    "open_clip": save_open_clip,
    "dinov2": save_dinov2,
    "clip": save_clip,
    "siglip": save_siglip,
    "onnx": save_onnx,
    "xrv": save_xrv,
}
