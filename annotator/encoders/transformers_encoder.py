"""Encoders of transformers (AutoModel), with their text towers.

Whatever gives hidden states for `pixel_values`: DINOv2 and DINOv3 (RAD-DINO among them), ViT, BEiT,
DeiT, Swin, ConvNeXt, and the image towers of CLIP, SigLIP (MedSigLIP among them) and their kin.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from annotator.encoders.embedder import Encoder
from annotator.encoders.image_processor import check_processor, read_processor
from annotator.encoders.loading import explained, hub, need
from annotator.encoders.recognise import Pooling, read_config, split_pooling
from annotator.encoders.torch_setup import make_torchvision_importable
from annotator.errors import AnnotatorError

# What configurations hold beside the network's shape.
_NOT_SHAPE = {"_name_or_path", "_commit_hash", "architectures", "auto_map", "dtype", "id2label"}
_NOT_SHAPE |= {"label2id", "text_config", "text_config_dict", "torch_dtype", "transformers_version"}


class ImageTower(nn.Module):
    """The image tower of a model of transformers, pooled to one vector an image.

    Args:
        model: In evaluation mode.
        pooling: "cls" takes the class token of the last hidden states, "mean" the mean of their
            patches' tokens (without class and register tokens), "pooled" the model's own pooling.
            None is the model's own choice: the projected features where there is a text tower to
            compare them with; else its own pooling, but the class token where that would go
            through one more dense layer, which most checkpoints never trained (ViT, DeiT).
        size: Side of its images in pixels.
    """

    def __init__(self, model: Any, pooling: Pooling | None, size: int) -> None:
        super().__init__()
        self.model = model
        vision = getattr(model.config, "vision_config", model.config)
        patch = getattr(vision, "patch_size", None)
        self._patches = (size // patch) ** 2 if isinstance(patch, int) else None
        self.pooling = pooling or _own_pooling(model)

    def forward(self, pixels: Tensor) -> Tensor:
        """float[n, 3, size, size] to float[n, dim]."""
        if self.pooling == "projected":
            features = self.model.get_image_features(pixel_values=pixels)
            return cast(Tensor, getattr(features, "pooler_output", features))
        tower = getattr(self.model, "vision_model", self.model)
        output = tower(pixel_values=pixels)
        if self.pooling == "pooled":
            pooled = getattr(output, "pooler_output", None)
            if pooled is None:
                raise AnnotatorError("The model does not pool by itself.", "Write @mean or @cls.")
            return cast(Tensor, pooled.flatten(1))
        tokens: Tensor = output.last_hidden_state
        if tokens.ndim == 4:  # a convolutional network's map, channels first
            tokens = tokens.flatten(2).transpose(1, 2)
        prefix = max(0, tokens.shape[1] - (self._patches or tokens.shape[1]))
        if self.pooling == "mean":
            return tokens[:, prefix:].mean(dim=1)
        if prefix == 0:
            raise AnnotatorError("The model has no class token.", "Write @mean or @pooled.")
        return tokens[:, 0]


def _own_pooling(model: Any) -> Pooling | Literal["projected"]:
    if hasattr(model, "get_image_features"):
        return "projected"
    pooler = getattr(model, "pooler", model)
    return "cls" if pooler is None or hasattr(pooler, "dense") else "pooled"


def make_transformers(rest: str) -> Encoder:
    """`ORG/MODEL` or a folder, each with `@cls`, `@mean` or `@pooled` if need be.

    Raises:
        AnnotatorError: There is no such model, it is none of images, its weights are not all there
            or not in safetensors, or its image processor is of another kind.
    """
    source, pooling = split_pooling(rest)
    with _loading(source):
        from transformers import AutoImageProcessor

        model = _load(source)
        processor = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            source, trust_remote_code=False
        )
        preprocess = read_processor(processor.to_dict(), source)
        check_processor(processor, preprocess, source)
        tower = _image_tower(model, pooling, preprocess.size)
        config, _ = type(model.config).get_config_dict(source)
    config = {**config, **config.get("vision_config", {})}
    config.pop("vision_config", None)
    shape = {key: value for key, value in config.items() if key not in _NOT_SHAPE}
    described = f"{type(model).__name__}, {tower.pooling} {json.dumps(shape, sort_keys=True)}"
    return Encoder(tower, preprocess, f"transformers {described}")


def transformers_texts(rest: str) -> tuple[nn.Module, Callable[[list[str]], Tensor]]:
    """The image tower, to compare its weights, and the function that encodes texts.

    Raises:
        AnnotatorError: As for `make_transformers`.
    """
    source, pooling = split_pooling(rest)
    with _loading(source):
        from transformers import AutoImageProcessor, AutoTokenizer

        model = _load(source)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        processor = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            source, trust_remote_code=False
        )
        size = read_processor(processor.to_dict(), source).size
        tower = _image_tower(model, pooling, size)
    length = model.config.text_config.max_position_embeddings
    # SigLIP was trained on texts in lower case, padded to full length and without a mask.
    siglip = model.config.model_type.startswith("siglip")

    def encode(model: Any, texts: list[str]) -> Tensor:
        tokens = tokenizer(
            [text.lower() for text in texts] if siglip else texts,
            padding="max_length" if siglip else True,
            truncation=True,
            max_length=length,
            return_tensors="pt",
        )
        known = ("input_ids",) if siglip else ("input_ids", "attention_mask")
        features = model.get_text_features(**{key: tokens[key] for key in known})
        return cast(Tensor, getattr(features, "pooler_output", features))

    return tower, partial(encode, _without_idle(model, lambda: encode(model, ["a"])))


@contextmanager
def _loading(source: str) -> Iterator[None]:
    """What has to hold while anything of `source` is loaded: clear errors, and no bars."""
    name = f"transformers:{source}"
    need("transformers", name, "transformers")
    make_torchvision_importable()
    is_folder = Path(source).is_dir()
    with (explained if is_folder else hub)(name):
        from transformers.utils import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _load(source: str) -> Any:
    """The whole model in fp32 and evaluation mode, all of whose weights were in its files."""
    from transformers import AutoConfig, AutoModel

    if "architecture" in read_config(Path(source)):
        raise AnnotatorError(f"{source} is a model of timm.", f"Write timm:{source}.")
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    model, report = AutoModel.from_pretrained(
        source,
        config=config,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    missing = sorted(report["missing_keys"])
    if any(name.startswith("pooler.") for name in missing):
        model.pooler = None  # drawn at random: the checkpoint is of a model without one
    unused = {name for name in missing if name.endswith("mask_token")}  # for training alone
    for name in unused:
        model.get_parameter(name).data.zero_()
    missing = [n for n in missing if not n.startswith("pooler.") and n not in unused]
    if missing:
        raise AnnotatorError(
            f"{source} lacks {len(missing)} tensors of {type(model).__name__}, such as "
            f"{missing[0]}.",
            "Save the model with save_pretrained.",
        )
    return model.float().eval()


def _image_tower(model: Any, pooling: Pooling | None, size: int) -> ImageTower:
    """The image tower without what it does not use, tried on a picture."""
    example = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    tower = ImageTower(model, pooling, size)
    tower.model = _without_idle(model, lambda: tower(example))
    with torch.inference_mode():
        if not torch.equal(tower(example), tower(example)):
            raise AnnotatorError(
                f"{type(model).__name__} gives another vector each time.",
                "Models that mask patches at random are for training.",
            )
    return tower


def _without_idle(model: Any, run: Callable[[], Any]) -> Any:
    """A copy of a model that shares its weights but lacks the children that `run` does not use."""
    used: set[str] = set()
    handles = [
        module.register_forward_hook(lambda *_, name=name: used.add(name))
        for name, child in model.named_children()
        for module in child.modules()
    ]
    try:
        with torch.inference_mode():
            run()
    finally:
        for handle in handles:
            handle.remove()
    light = copy.copy(model)
    light._modules = {name: m if name in used else None for name, m in model._modules.items()}
    return light
