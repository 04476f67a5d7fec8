"""Encoders by name. Weights load as tensors only, never by unpickling.

Each library, torch among them, is imported when an encoder of its kind is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from annotator.encoders.combined import CombinedEmbedder
from annotator.encoders.converted import keep_parts, kept_parts
from annotator.encoders.embedder import Embedder, Encoder
from annotator.encoders.openvino_embedder import has_openvino, kept_embedder, runs_in
from annotator.encoders.packaged import PACKAGED
from annotator.encoders.preprocess import Resize
from annotator.encoders.recognise import WEIGHTS, strings_for
from annotator.encoders.torch_setup import Device, Engine, Precision, on_gpu, threads_per_operation
from annotator.errors import AnnotatorError
from index.distribution import pip_install

if TYPE_CHECKING:
    from annotator.encoders.fingerprint import Fingerprint
    from annotator.images.frames import Frames

DEFAULT = "efficientnet-lite0"


def _timm(rest: str) -> Encoder:
    from annotator.encoders.timm_encoder import make_timm

    return make_timm(rest)


def _open_clip(rest: str) -> Encoder:
    from annotator.encoders.open_clip_encoder import make_open_clip

    return make_open_clip(rest)


def _transformers(rest: str) -> Encoder:
    from annotator.encoders.transformers_encoder import make_transformers

    return make_transformers(rest)


def _xrv(rest: str) -> Encoder:
    from annotator.encoders.xrv_encoder import make_xrv

    return make_xrv(rest)


def _fitted(rest: str) -> Encoder:
    from annotator.encoders.fitted_encoder import make_fitted

    return make_fitted(rest, load_encoder)


_MAKERS: dict[str, Callable[[str], Encoder]] = {
    "timm": _timm,
    "open_clip": _open_clip,
    "hf-hub": lambda rest: _open_clip(f"hf-hub:{rest}"),
    "local-dir": lambda rest: _open_clip(f"local-dir:{rest}"),
    "transformers": _transformers,
    "xrv": _xrv,
    "fitted": _fitted,
}
_KINDS = (*_MAKERS, "onnx")
_FORMS = (
    f"{', '.join(PACKAGED)}, timm:MODEL, timm:MODEL@FILE, open_clip:MODEL@PRETRAINED, "
    "hf-hub:ORG/MODEL, local-dir:FOLDER, transformers:ORG/MODEL, transformers:FOLDER, onnx:FILE, "
    "xrv:WEIGHTS, fitted:FOLDER, a folder, or a path to a .safetensors file"
)


def make_embedder(
    name: str = DEFAULT,
    *,
    device: Device = "auto",
    precision: Precision = "auto",
    frames: Frames = "middle",
    engine: Engine = "auto",
    recorded: Fingerprint | None = None,
) -> Embedder:
    """Load an encoder by name, or several joined by "+".

    Args:
        name: One of
            ``efficientnet-lite0`` (the default), ``efficientnet-lite1``, ``efficientnet-lite2``
            (their weights ship in packages; with ``@SIZE`` for images of other than their own size
            in pixels);
            ``timm:MODEL`` (weights from timm's hub), ``timm:MODEL@WEIGHTS_FILE``,
            ``timm:hf-hub:ORG/MODEL``, ``timm:FOLDER``, or a path to a ``.safetensors`` or
            state-dict file with timm's ``config.json`` beside it;
            ``open_clip:MODEL@PRETRAINED`` (a tag or a checkpoint file), ``hf-hub:ORG/MODEL`` and
            ``local-dir:FOLDER`` (an open_clip repository on the hub or on disk);
            ``transformers:ORG/MODEL`` and ``transformers:FOLDER``, with ``@cls``, ``@mean`` or
            ``@pooled`` for another pooling than its own;
            ``onnx:FILE``, ``onnx:FILE@OUTPUT``;
            ``xrv:WEIGHTS``, ``xrv:WEIGHTS@FILE`` (torchxrayvision);
            ``fitted:FOLDER`` (one of these, fitted to a collection by `annotator fit-encoder`).
            A folder or an ``.onnx`` file alone is loaded by the string that fits it.
            ``letterbox:``, ``crop:`` or ``stretch:`` before any of these sets how images become
            squares; ``crop:timm:MODEL`` is what timm itself does.
        device: "auto" takes CUDA where there is one.
        precision: "auto" takes bf16 where the hardware multiplies it natively, else fp32.
        frames: "middle" or "all" frames of multi-frame images (the mean of their vectors).
        engine: "auto" takes OpenVINO on a CPU, where it is installed and gives the vectors of
            torch.
        recorded: The fingerprint that the encoder is to have, as an index records it. What OpenVINO
            has kept of it then runs without the encoder's own library, and without torch.

    Raises:
        AnnotatorError: Unknown name, missing file or package, weights that do not fit, an engine
            that cannot run the encoder.
    """
    names = split_names(name)
    if len(names) > 1:
        known = kept_parts(recorded) if recorded is not None else []
        own = dict(enumerate(known)) if len(known) == len(names) else {}
        parts = [
            make_embedder(
                part, device=device, precision=precision, frames=frames, engine=engine,
                recorded=own.get(i),
            )
            for i, part in enumerate(names)
        ]  # fmt: skip
        joined = CombinedEmbedder(parts)
        if not own and joined.engine == "openvino":
            keep_parts([part.fingerprint for part in parts])
        return joined
    name = full_name(name)
    use_openvino = _uses_openvino(engine, device)
    in_torch = partial(
        make_embedder, name, device="cpu", precision=precision, frames=frames, engine="torch"
    )
    if use_openvino and recorded is not None and runs_in(recorded.precision):
        embedder = kept_embedder(name, recorded, in_torch)
        if embedder is not None:
            return embedder
    from annotator.encoders.torch_embedder import TorchEmbedder

    with threads_per_operation(1):  # in a few small passes more of them only wait for each other
        encoder = _encoder(name, device)
        if not use_openvino:
            return TorchEmbedder(name, encoder, device=device, precision=precision, frames=frames)
        from annotator.encoders.convert import openvino_or_torch

        required = engine == "openvino"
        return openvino_or_torch(
            name, encoder, in_torch, precision=precision, frames=frames, required=required
        )


def _uses_openvino(engine: Engine, device: Device) -> bool:
    """Whether OpenVINO is to run an encoder, if it can.

    Raises:
        AnnotatorError: It is asked for and not installed, or asked for on a GPU.
    """
    if engine == "openvino":
        if not has_openvino():
            raise AnnotatorError(
                "--engine openvino: OpenVINO is not installed.", pip_install("openvino")
            )
        if device == "cuda":
            raise AnnotatorError(
                "--engine openvino runs on the CPU.", "Leave out --device cuda, or --engine."
            )
        return True
    return engine == "auto" and has_openvino() and not on_gpu(device)


def load_encoder(name: str) -> Encoder:
    """Load the network and the preprocessing of one encoder, on the CPU.

    Args:
        name: As for `make_embedder`, without "+".

    Raises:
        AnnotatorError: As `make_embedder`.
    """
    return _encoder(full_name(name), "cpu")


def split_names(name: str) -> list[str]:
    """The names that are joined by "+"; one that is part of a path joins nothing."""
    if Path(name).exists():
        return [name]
    names: list[str] = []
    for part in name.split("+"):
        begins = part.partition("@")[0] in PACKAGED or ":" in part or Path(part).exists()
        if names and "/" in part and not begins:
            names[-1] += f"+{part}"
        else:
            names.append(part)
    return names


def full_name(name: str) -> str:
    """The string that stands for a folder or an ONNX file that is named alone; else `name`."""
    path = Path(name)
    if name in PACKAGED or not name:
        return name
    if path.is_dir() or (path.suffix == ".onnx" and path.is_file()):
        return next(iter(strings_for(name)), name)
    return name


def _encoder(name: str, device: Device) -> Encoder:
    kind, _, rest = name.partition(":")
    if kind in get_args(Resize) and rest:
        encoder = _encoder(full_name(rest), device)
        own, resize = encoder.preprocess, cast(Resize, kind)
        if own.resize != resize:
            crop_pct = encoder.crop_pct if resize == "crop" else 1.0
            own = replace(own, resize=resize, crop_pct=crop_pct)
        return replace(encoder, preprocess=own)
    network, _, size = name.partition("@")
    if network in PACKAGED:
        from annotator.encoders.efficientnet import packaged

        return packaged(network, _size(name, size) if size else None)
    if kind in _KINDS and rest:
        try:
            if kind == "onnx":
                from annotator.encoders.onnx_encoder import make_onnx

                return make_onnx(rest, device)
            return _MAKERS[kind](rest)
        except AnnotatorError as error:
            raise _explained(error, kind, rest) from error
    if Path(name).suffix in WEIGHTS:
        found = strings_for(name)
        if found and str(Path(name)) not in found:
            raise AnnotatorError(
                f"{name} is part of a model of {_library(found[0])}.",
                f"Write {' or '.join(found)}.",
            )
        from annotator.encoders.timm_encoder import make_timm_file

        return make_timm_file(Path(name))
    raise _unknown(name)


def _unknown(name: str) -> AnnotatorError:
    """The error for a name without a kind, and what it may have meant."""
    if name and Path(name).is_dir():
        return AnnotatorError(
            f"{name} is no folder of open_clip, timm or transformers: it has none of "
            "open_clip_config.json, a config.json of theirs, and a single .onnx file.",
            "For weights alone, name the network: timm:MODEL@FILE.",
        )
    if _is_path(name):
        return AnnotatorError(f"There is no folder or file {name}.", f"Use {_FORMS}.")
    found = strings_for(name) if name else []
    hint = f"Write {' or '.join(found)}." if found else f"Use {_FORMS}."
    if not found and name.count("/") == 1:
        hint = (
            f"Write transformers:{name} for a model of transformers, hf-hub:{name} for one of "
            f"open_clip, timm:hf-hub:{name} for one of timm. Or use {_FORMS}."
        )
    return AnnotatorError(f"Unknown encoder {name!r}.", hint)


def _explained(error: AnnotatorError, kind: str, rest: str) -> AnnotatorError:
    """The error that says most: that the model is of another kind, or of none, or `error`."""
    model = rest if Path(rest).exists() else rest.partition("@")[0]
    model = model.removeprefix("hf-hub:").removeprefix("local-dir:")
    found = strings_for(model)
    if any(string.startswith(f"{kind}:") for string in found):
        return error
    if found:
        return AnnotatorError(
            f"{model} is a model of {_library(found[0])}, which {kind}: does not load.",
            f"Write {' or '.join(found)}.",
        )
    if _is_path(model) and not Path(model).exists():
        hint = "Where it has moved, name its new place: --embedder NAME. A repository is ORG/MODEL."
        return AnnotatorError(f"There is no folder or file {model}.", hint)
    return error


def _is_path(name: str) -> bool:
    """Whether a name has the form of a path, and not that of a repository on the hub."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def _library(string: str) -> str:
    kind = string.partition(":")[0]
    return {"hf-hub": "open_clip", "local-dir": "open_clip"}.get(kind, kind)


def _size(name: str, size: str) -> int:
    if not size.isdecimal() or not 64 <= int(size) <= 1024:
        raise AnnotatorError(
            f"{name}: {size!r} is no size in pixels, 64 to 1024.", f"For example {DEFAULT}@320."
        )
    return int(size)
