"""Encoders of timm: by name, with weights from its hub, a file or a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from annotator.encoders.embedder import Encoder
from annotator.encoders.loading import explained, hub
from annotator.encoders.preprocess import Resize, preprocess_of
from annotator.encoders.recognise import read_config
from annotator.encoders.torch_setup import make_torchvision_importable
from annotator.encoders.weights import load_backbone
from annotator.errors import AnnotatorError

# Findings at the border of a radiograph count, and timm's own evaluation crops it away
# (docs/encoder.md has what either gives).
_RESIZE: Resize = "letterbox"
_FILES = ("model.safetensors", "pytorch_model.bin")


def make_timm(rest: str) -> Encoder:
    """`MODEL` with timm's own weights, `MODEL@FILE`, `hf-hub:ORG/MODEL` or a folder.

    Raises:
        AnnotatorError: There is no such model, or its weights do not fit or cannot be had.
    """
    folder = Path(rest)
    if folder.is_dir():
        file = next((folder / name for name in _FILES if (folder / name).is_file()), None)
        if file is None or "architecture" not in read_config(folder):
            raise AnnotatorError(
                f"{folder} is no folder of timm: it lacks "
                f"{'weights' if file is None else 'a config.json with an architecture'}.",
                f"timm writes config.json and {_FILES[0]}.",
            )
        return make_timm_file(file)
    architecture, _, file_name = rest.partition("@")
    model = _model(architecture, pretrained=not file_name)
    if file_name:
        load_backbone(model, Path(file_name))
    return _encoder(model)


def make_timm_file(path: Path) -> Encoder:
    """A weights file in timm's repository layout: `config.json` beside it names the network.

    Raises:
        AnnotatorError: There is no such file, or it does not say what network it is for.
    """
    config_path = path.with_name("config.json")
    if not path.is_file():
        raise AnnotatorError(f"There is no weights file {path}.")
    if not config_path.is_file():
        raise AnnotatorError(
            f"{path} does not say which network it is for: there is no {config_path}.",
            f"Name the network: timm:MODEL@{path}",
        )
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AnnotatorError(f"{config_path} is not JSON: {error}") from error
    if not isinstance(config, dict) or "architecture" not in config:
        raise AnnotatorError(f'{config_path} has no "architecture".', f"Write timm:MODEL@{path}")
    model = _model(f"local-dir:{path.parent}")
    load_backbone(model, path)
    return _encoder(model)


def _model(architecture: str, **options: Any) -> Any:
    make_torchvision_importable()
    import timm

    elsewhere = architecture.startswith(("hf-hub:", "hf_hub:", "local-dir:"))
    if not elsewhere and not timm.is_model(architecture):
        similar = timm.list_models(f"*{architecture}*")[:5]
        raise AnnotatorError(
            f"timm has no model {architecture!r}.",
            f"Similar: {', '.join(similar)}" if similar else "See timm.list_models().",
        )
    local = architecture.startswith("local-dir:") or not options.get("pretrained", True)
    with (explained if local else hub)(f"timm:{architecture}"):
        return timm.create_model(architecture, **{"num_classes": 0, **options}).eval()


def _encoder(model: Any) -> Encoder:
    from timm.data.config import resolve_model_data_config

    config = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    preprocess = preprocess_of(config["input_size"][-1], _RESIZE, config)
    architecture = f"timm {model.pretrained_cfg['architecture']}"
    return Encoder(model, preprocess, architecture, crop_pct=config["crop_pct"])
