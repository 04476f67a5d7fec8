"""Encoders of open_clip, with their text towers: by name, from the hub or from a folder."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from annotator.encoders.embedder import Encoder
from annotator.encoders.loading import explained, hub, need
from annotator.encoders.preprocess import Resize, preprocess_of
from annotator.encoders.torch_setup import make_torchvision_importable
from annotator.errors import AnnotatorError

_RESIZE: dict[str, Resize] = {"shortest": "crop", "longest": "letterbox", "squash": "stretch"}


def make_open_clip(rest: str) -> Encoder:
    """`MODEL@PRETRAINED`, where PRETRAINED is a tag of open_clip's or a checkpoint file; or a
    repository, `hf-hub:ORG/MODEL` or `local-dir:FOLDER`.

    Raises:
        AnnotatorError: There is no such model, or its weights do not fit or cannot be had.
    """
    clip, network, _ = _load(rest)
    # Only the image tower is kept: the text tower would double the memory for nothing.
    visual = clip.visual
    if getattr(visual, "output_tokens", False):
        visual.output_tokens = False  # CoCa's gives its patches too
    # The weights alone do not tell the number of heads or the activation.
    described = {key: network.get(key) for key in ("embed_dim", "quick_gelu", "vision_cfg")}
    config = visual.preprocess_cfg
    size = config["size"] if isinstance(config["size"], int) else config["size"][0]
    preprocess = preprocess_of(size, _RESIZE[config["resize_mode"]], config)
    return Encoder(visual, preprocess, f"open_clip {json.dumps(described, sort_keys=True)}")


def open_clip_texts(rest: str) -> tuple[torch.nn.Module, Callable[[list[str]], torch.Tensor]]:
    """The image tower, to compare its weights, and the function that encodes texts.

    Args:
        rest: As for `make_open_clip`.

    Raises:
        AnnotatorError: As for `make_open_clip`.
    """
    clip, _, model_name = _load(rest)
    import open_clip

    with hub(f"open_clip:{model_name}"):
        tokenizer = open_clip.get_tokenizer(model_name)
    visual, clip.visual = clip.visual, None
    clip = clip.requires_grad_(False).float()
    return visual, lambda texts: clip.encode_text(tokenizer(texts))


def _load(rest: str) -> tuple[Any, Any, str]:
    """The whole model, its configuration, and its name in open_clip."""
    make_torchvision_importable()
    repository = rest.startswith(("hf-hub:", "local-dir:"))
    model_name, pretrained = (rest, None) if repository else _model_and_weights(rest)
    name = rest if repository else f"open_clip:{rest}"
    need("open_clip", name, "clip")
    import open_clip

    local = rest.startswith("local-dir:") or Path(pretrained or "").is_file()
    with (explained if local else hub)(name), warnings.catch_warnings():
        # open_clip only warns when a tag's weights were trained with another activation.
        warnings.filterwarnings("error", message="QuickGELU mismatch")
        clip = open_clip.create_model(
            model_name, pretrained, require_pretrained=True, weights_only=True
        )
        network = open_clip.get_model_config(model_name)
    return clip.eval(), network, model_name


def _model_and_weights(rest: str) -> tuple[str, str]:
    model, _, pretrained = rest.partition("@")
    if not pretrained:
        raise AnnotatorError(
            f"open_clip:{model} does not say which weights.",
            f"Write open_clip:{model}@TAG or open_clip:{model}@/path/to/checkpoint.",
        )
    return model, pretrained
