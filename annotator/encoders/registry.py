"""Encoders by name. Weights load as tensors only, never by unpickling."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annotator.encoders.combined import CombinedEmbedder
from annotator.encoders.efficientnet import PACKAGED, packaged
from annotator.encoders.embedder import Embedder, Encoder, TorchEmbedder
from annotator.encoders.preprocess import Preprocess, Resize
from annotator.encoders.torch_setup import Device, Precision, make_torchvision_importable
from annotator.encoders.weights import load_backbone
from annotator.errors import AnnotatorError, first_line
from index.distribution import pip_install

if TYPE_CHECKING:
    from annotator.images.frames import Frames

DEFAULT = "efficientnet-lite0"


def make_embedder(
    name: str = DEFAULT,
    *,
    device: Device = "auto",
    precision: Precision = "auto",
    frames: Frames = "middle",
) -> Embedder:
    """Load an encoder by name, or several joined by "+".

    Args:
        name: One of
            ``efficientnet-lite0`` (the default), ``efficientnet-lite1``, ``efficientnet-lite2``
            (their weights ship in packages; with ``@SIZE`` for images of other than their own size
            in pixels), ``timm:MODEL`` (weights from timm's hub), ``timm:MODEL@WEIGHTS_FILE``,
            ``open_clip:MODEL@PRETRAINED`` (a tag or a checkpoint file), ``hf-hub:ORG/MODEL`` and
            ``local-dir:FOLDER`` (an open_clip repository on the hub or on disk), or a path to a
            ``.safetensors`` or state-dict file with timm's ``config.json`` beside it.
        device: "auto" takes CUDA where there is one.
        precision: "auto" takes bf16 where the hardware multiplies it natively, else fp32.
        frames: "middle" or "all" frames of multi-frame images (the mean of their vectors).

    Raises:
        AnnotatorError: Unknown name, missing file or package, weights that do not fit.
    """
    if "+" in name and not Path(name).is_file():
        parts = [
            make_embedder(part, device=device, precision=precision, frames=frames)
            for part in name.split("+")
        ]
        return CombinedEmbedder(parts)
    kind, _, rest = name.partition(":")
    network, _, size = name.partition("@")
    if network in PACKAGED:
        encoder = packaged(network, _size(name, size) if size else None)
    elif kind in _MAKERS and rest:
        encoder = _MAKERS[kind](rest)
    elif Path(name).suffix in {".safetensors", ".pt", ".pth", ".bin"}:
        encoder = _local_file(Path(name))
    else:
        raise AnnotatorError(
            f"Unknown encoder {name!r}.",
            f"Use {', '.join(PACKAGED)}, timm:MODEL, timm:MODEL@FILE, open_clip:MODEL@PRETRAINED, "
            "hf-hub:ORG/MODEL, local-dir:FOLDER or a path to a .safetensors file.",
        )
    return TorchEmbedder(name, encoder, device=device, precision=precision, frames=frames)


def _size(name: str, size: str) -> int:
    if not size.isdecimal() or not 64 <= int(size) <= 1024:
        raise AnnotatorError(
            f"{name}: {size!r} is no size in pixels, 64 to 1024.", f"For example {DEFAULT}@320."
        )
    return int(size)


def _timm(rest: str) -> Encoder:
    """`MODEL` with timm's own weights, or `MODEL@FILE`."""
    architecture, _, file = rest.partition("@")
    model = _timm_model(architecture, pretrained=not file)
    if file:
        load_backbone(model, Path(file))
    return _timm_encoder(model)


def _local_file(path: Path) -> Encoder:
    """A weights file in timm's repository layout: `config.json` beside it names the network."""
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
    model = _timm_model(f"local-dir:{path.parent}")
    load_backbone(model, path)
    return _timm_encoder(model)


def has_text_tower(name: str) -> bool:
    """Whether an encoder of this name has a text tower."""
    kind, _, rest = name.partition(":")
    return kind in ("open_clip", "hf-hub", "local-dir") and bool(rest) and "+" not in name


def open_clip_model(name: str) -> tuple[str, Any] | None:
    """Load an open_clip model with its text tower; None if the encoder is of another kind.

    Args:
        name: As for `make_embedder`.

    Returns:
        The model's name in open_clip, and the model in evaluation mode.

    Raises:
        AnnotatorError: As `make_embedder`.
    """
    if not has_text_tower(name):
        return None
    kind, _, rest = name.partition(":")
    model, pretrained = _model_and_weights(rest) if kind == "open_clip" else (name, None)
    return model, _load_open_clip(model, pretrained)[0]


def _open_clip(rest: str) -> Encoder:
    """`MODEL@PRETRAINED`, where PRETRAINED is a tag of open_clip's or a checkpoint file."""
    return _open_clip_encoder(*_model_and_weights(rest))


def _model_and_weights(rest: str) -> tuple[str, str]:
    model, _, pretrained = rest.partition("@")
    if not pretrained:
        raise AnnotatorError(
            f"open_clip:{model} does not say which weights.",
            f"Write open_clip:{model}@TAG or open_clip:{model}@/path/to/checkpoint.",
        )
    return model, pretrained


def _load_open_clip(model_name: str, pretrained: str | None) -> tuple[Any, Any]:
    """The whole model, and its configuration."""
    make_torchvision_importable()
    if importlib.util.find_spec("open_clip") is None:
        raise AnnotatorError(
            f"The encoder {model_name} needs open_clip, which is not installed.",
            pip_install("clip"),
        )
    import open_clip

    name = f"open_clip:{model_name}@{pretrained}" if pretrained else model_name
    with explained(name), warnings.catch_warnings():
        # open_clip only warns when a tag's weights were trained with another activation.
        warnings.filterwarnings("error", message="QuickGELU mismatch")
        clip = open_clip.create_model(
            model_name, pretrained, require_pretrained=True, weights_only=True
        )
        network = open_clip.get_model_config(model_name)
    return clip.eval(), network


def _open_clip_encoder(model_name: str, pretrained: str | None) -> Encoder:
    clip, network = _load_open_clip(model_name, pretrained)
    # Only the image tower is kept: the text tower would double the memory for nothing.
    visual = clip.visual
    if getattr(visual, "output_tokens", False):
        visual.output_tokens = False  # CoCa's gives its patches too
    # The weights alone do not tell the number of heads or the activation.
    described = {key: network.get(key) for key in ("embed_dim", "quick_gelu", "vision_cfg")}
    config = visual.preprocess_cfg
    size = config["size"] if isinstance(config["size"], int) else config["size"][0]
    resize: dict[str, Resize] = {"shortest": "crop", "longest": "letterbox", "squash": "stretch"}
    preprocess = _preprocess(size, resize[config["resize_mode"]], config)
    return Encoder(visual, preprocess, f"open_clip {json.dumps(described, sort_keys=True)}")


def _timm_model(architecture: str, **options: Any) -> Any:
    make_torchvision_importable()
    import timm

    elsewhere = architecture.startswith(("hf-hub:", "hf_hub:", "local-dir:"))
    if not elsewhere and not timm.is_model(architecture):
        similar = timm.list_models(f"*{architecture}*")[:5]
        raise AnnotatorError(
            f"timm has no model {architecture!r}.",
            f"Similar: {', '.join(similar)}" if similar else "See timm.list_models().",
        )
    with explained(f"timm:{architecture}"):
        return timm.create_model(architecture, **{"num_classes": 0, **options}).eval()


def _timm_encoder(model: Any) -> Encoder:
    from timm.data.config import resolve_model_data_config

    config = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    # timm's own evaluation crops the centre; findings at the border of a radiograph count here.
    preprocess = _preprocess(config["input_size"][-1], "letterbox", config)
    return Encoder(model, preprocess, f"timm {model.pretrained_cfg['architecture']}")


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn the many ways in which a download or a checkpoint fails into one clear error."""
    try:
        yield
    except AnnotatorError:
        raise
    except Exception as error:
        raise AnnotatorError(
            f"The encoder {name} could not be loaded: {first_line(error)}",
            "Check the name and the files; weights that are not on disk come from a hub, "
            "over the network.",
        ) from error


def _preprocess(size: Any, resize: Resize, config: Any) -> Preprocess:
    """Preprocessing with interpolation, mean and std from timm or open_clip."""
    return Preprocess(
        size=int(size),
        resize=resize,
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        mean=_three(config["mean"]),
        std=_three(config["std"]),
    )


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in values)
    return red, green, blue


_MAKERS: dict[str, Callable[[str], Encoder]] = {
    "timm": _timm,
    "open_clip": _open_clip,
    "hf-hub": lambda rest: _open_clip_encoder(f"hf-hub:{rest}", None),
    "local-dir": lambda rest: _open_clip_encoder(f"local-dir:{rest}", None),
}
