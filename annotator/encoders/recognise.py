"""Which library a model on disk or by its name belongs to, and the string that loads it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, Literal, cast, get_args

from annotator.encoders.torch_setup import make_torchvision_importable
from annotator.errors import AnnotatorError

FITTED_FORMAT = "fitted encoder of annotator"  # "format" in the config.json of its folder
Pooling = Literal["cls", "mean", "pooled"]  # of a model of transformers
WEIGHTS = (".safetensors", ".pt", ".pth", ".bin")


def strings_for(model: str) -> list[str]:
    """The strings for `make_embedder` that fit a model, best first; none for an unknown one.

    Args:
        model: A folder, a file, the name of a repository on the hub, or a library's own name.
    """
    path = Path(model)
    if path.is_dir():
        return _of_folder(path)
    if path.is_file():
        return _of_file(path)
    if "/" in model:
        return _of_repository(model)
    return _of_name(model)


def _of_folder(folder: Path, name: str = "") -> list[str]:
    """By the configuration in it; `name` is that of the repository that it is a copy of."""
    found = []
    if (folder / "open_clip_config.json").is_file():
        found.append(f"hf-hub:{name}" if name else f"local-dir:{folder}")
    config = read_config(folder)
    if config.get("format") == FITTED_FORMAT:
        found.append(f"fitted:{folder}")
    if "architecture" in config:
        found.append(f"timm:hf-hub:{name}" if name else f"timm:{folder}")
    elif "model_type" in config or "architectures" in config:
        found.append(f"transformers:{name or folder}")
    networks = [] if name else sorted(folder.glob("*.onnx"))
    if len(networks) == 1:
        found.append(f"onnx:{networks[0]}")
    return found


def _of_file(path: Path) -> list[str]:
    if path.suffix == ".onnx":
        return [f"onnx:{path}"]
    if path.suffix not in WEIGHTS:
        return []
    beside = [name for name in _of_folder(path.parent) if not name.startswith("onnx:")]
    return [str(path) if name.startswith("timm:") else name for name in beside]


def _of_repository(repository: str) -> list[str]:
    folder = cached_folder(repository)
    return _of_folder(folder, repository) if folder else []


def cached_folder(repository: str) -> Path | None:
    """The folder of the hub's cache with what was downloaded of a repository, if anything was."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for file in ("config.json", "open_clip_config.json"):
        try:
            found = try_to_load_from_cache(repository, file)
        except HFValidationError:  # it has not the form of a name
            return None
        if isinstance(found, str):
            return Path(found).parent
    return None


def _of_name(name: str) -> list[str]:
    """By the lists of models of the libraries."""
    make_torchvision_importable()
    import timm

    found = [f"timm:{name}"] if timm.is_model(name) else []
    if importlib.util.find_spec("open_clip"):
        import open_clip

        if name in open_clip.list_models():
            tags = open_clip.list_pretrained_tags_by_model(name)
            found.append(f"open_clip:{name}@{tags[-1] if tags else 'TAG'}")
    if name.startswith(("densenet121-res", "resnet50-res")):
        found.append(f"xrv:{name}")
    return found


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a folder; empty if there is none that can be read."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def has_transformers_text(rest: str) -> bool:
    """Whether there is a text tower whose vectors can be compared with those of the images.

    Asks the configuration on disk or in the hub's cache alone: False where there is none.
    """
    source, pooling = split_pooling(rest)
    folder = Path(source)
    if not folder.is_dir():
        folder = cached_folder(source) or folder
    config = read_config(folder)
    return pooling is None and "text_config" in config and "vision_config" in config


def split_pooling(rest: str) -> tuple[str, Pooling | None]:
    """Name or folder of a model of transformers, and the pooling that is asked for.

    Raises:
        AnnotatorError: There is no such pooling.
    """
    source, at, pooling = rest.rpartition("@")
    if not at or Path(rest).is_dir():
        return rest, None
    if pooling not in get_args(Pooling):
        raise AnnotatorError(
            f"transformers:{rest}: {pooling!r} is no pooling.",
            f"Write @{', @'.join(get_args(Pooling))}, or leave it out.",
        )
    return source, cast(Pooling, pooling)
