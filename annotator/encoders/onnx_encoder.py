"""Encoders in ONNX files, run by onnxruntime."""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from annotator.encoders.embedder import Encoder
from annotator.encoders.image_processor import read_processor
from annotator.encoders.loading import explained, need
from annotator.encoders.preprocess import Interpolation, Preprocess, Resize, three
from annotator.encoders.torch_setup import Device, choose_device
from annotator.errors import AnnotatorError

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
_CHANNELS = (1, 3)
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x00-\x7f])")  # of tensors outside the file
_BLOCK = 1 << 20
_LARGEST = 2048
# Where nothing beside a file says how its images were prepared: as most networks were trained.
_DEFAULTS: dict[str, Any] = {
    "size": 224,
    "resize": "letterbox",
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_pct": 1.0,
}
_BYTES = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


class OnnxNetwork(nn.Module):
    """A network in an ONNX file, from images to one of its outputs.

    Args:
        session: Of onnxruntime.
        output: Name of the output, a vector an image.
    """

    def __init__(self, session: Any, output: str) -> None:
        super().__init__()
        self._session, self._output = session, output
        (self._input,) = session.get_inputs()
        self._dtype = _TYPES[self._input.type]
        self._batch, *sides = self._input.shape
        self._channels_last = _channels_last(sides)
        self._grey = (sides[2] if self._channels_last else sides[0]) == 1

    def forward(self, pixels: Tensor) -> Tensor:
        """float32[n, 3, size, size] to float32[n, dim]."""
        if self._grey:
            pixels = pixels.mean(dim=1, keepdim=True)
        if self._channels_last:
            pixels = pixels.permute(0, 2, 3, 1)
        if self._dtype == np.uint8:
            pixels = (pixels * 255).round().clamp(0, 255)
        images = np.ascontiguousarray(pixels.float().cpu().numpy().astype(self._dtype))
        step = self._batch if isinstance(self._batch, int) else max(1, len(images))
        found = [self._run(images[i : i + step], step) for i in range(0, len(images), step)]
        return torch.from_numpy(np.concatenate(found)).to(pixels.device)

    def _run(self, images: Any, batch: int) -> Any:
        """Vectors of a batch; one of fixed size is filled up with zeros."""
        n = len(images)
        if n < batch:
            images = np.concatenate([images, np.zeros((batch - n, *images.shape[1:]), self._dtype)])
        (vectors,) = self._session.run([self._output], {self._input.name: images})
        if vectors.ndim < 2 or vectors[0].size != vectors.shape[1]:
            raise AnnotatorError(
                f"The output {self._output} is {list(vectors.shape)}, not one vector an image.",
                "Name another one, onnx:FILE@OUTPUT, or export one that is pooled.",
            )
        return vectors[:n].reshape(n, -1).astype(np.float32)


def make_onnx(rest: str, device: Device = "auto") -> Encoder:
    """`FILE`, or `FILE@OUTPUT` where several outputs are vectors.

    Images are preprocessed as `preprocess.json` beside the file says, or else transformers'
    `preprocessor_config.json`, or else by `_DEFAULTS`.

    Raises:
        AnnotatorError: There is no such file, it is no network from images to vectors, or there is
            no GPU for onnxruntime.
    """
    file, _, output = (rest, "", "") if Path(rest).is_file() else rest.rpartition("@")
    path = Path(file or rest)
    if not path.is_file():
        raise AnnotatorError(f"There is no ONNX file {path}.")
    need("onnxruntime", f"onnx:{path}", "onnx")
    with explained(f"onnx:{path}"):
        session, runs_on = _session(path, device)
    size, is_bytes = _image_input(path, session)
    preprocess = _preprocess(path, size, is_bytes)
    network = OnnxNetwork(session, _vector_output(path, session, output)).eval()
    with explained(f"onnx:{path}"), torch.inference_mode():
        network(torch.zeros(1, 3, preprocess.size, preprocess.size))
    weights, name = _digest(path), f"onnx {network._output}"
    return Encoder(network, preprocess, name, weights=weights, runs_on=(runs_on, "fp32"))


def _session(path: Path, device: Device) -> tuple[Any, Device]:
    """A session of onnxruntime, and the device that it runs on."""
    import onnxruntime

    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    wants = choose_device(device).type == "cuda"
    if device == "cuda" and not has_cuda:
        raise AnnotatorError(
            "--device cuda: onnxruntime has no CUDA here.",
            "Install onnxruntime-gpu in the place of onnxruntime, or use --device cpu.",
        )
    options = onnxruntime.SessionOptions()
    options.use_deterministic_compute = True
    options.intra_op_num_threads = 1  # the runner's threads share the cores
    options.log_severity_level = 3  # errors
    on_gpu = wants and has_cuda
    providers = ["CUDAExecutionProvider"] * on_gpu + ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    return session, "cuda" if on_gpu else "cpu"


def _image_input(path: Path, session: Any) -> tuple[int | None, bool]:
    """Side of the images that a network takes, None for any; and whether it takes bytes."""
    inputs = session.get_inputs()
    described = ", ".join(f"{i.name} {i.type}{i.shape}" for i in inputs)
    wrong = AnnotatorError(
        f"{path} does not take images alone: its inputs are {described}.",
        "It has to take one tensor of float, float16 or uint8, [n, 3, size, size] or "
        "[n, size, size, 3]. Of a model with a text tower, export the image tower.",
    )
    if len(inputs) != 1 or inputs[0].type not in _TYPES or len(inputs[0].shape) != 4:
        raise wrong
    _, *shape = inputs[0].shape
    last = _channels_last(shape)
    channels, sides = (shape[2], shape[:2]) if last else (shape[0], shape[1:])
    if isinstance(channels, int) and channels not in _CHANNELS:
        raise wrong
    fixed = {side for side in sides if isinstance(side, int)}
    if len(fixed) > 1:
        raise AnnotatorError(f"{path} takes images of {sides[0]} x {sides[1]}, not squares.")
    return next(iter(fixed), None), inputs[0].type == "tensor(uint8)"


def _vector_output(path: Path, session: Any, name: str) -> str:
    """Name of the output to use: the one asked for, or the only one that is a vector an image."""
    outputs = session.get_outputs()
    names: list[str] = [output.name for output in outputs]
    if name:
        if name not in names:
            raise AnnotatorError(f"{path} has no output {name!r}.", f"It has {', '.join(names)}.")
        return name
    vectors: list[str] = [o.name for o in outputs if len(o.shape) == 2 or o.shape[2:] == [1, 1]]
    if len(outputs) == 1:
        return names[0]
    if len(vectors) != 1:
        shapes = ", ".join(f"{output.name} {output.shape}" for output in outputs)
        raise AnnotatorError(
            f"{path} has {len(vectors)} outputs that are one vector an image: {shapes}.",
            f"Name one: onnx:{path}@{vectors[0]}." if vectors else "Export one that is pooled.",
        )
    return vectors[0]


def _channels_last(shape: Sequence[int | str | None]) -> bool:
    """Whether a shape without the batch ends in the channels; sizes that vary are no numbers."""
    return shape[2] in _CHANNELS and shape[0] not in _CHANNELS


def _preprocess(path: Path, size: int | None, is_bytes: bool) -> Preprocess:
    own, processor = (path.with_name(n) for n in ("preprocess.json", "preprocessor_config.json"))
    defaults = _DEFAULTS | (_BYTES if is_bytes else {}) | ({"size": size} if size else {})
    if processor.is_file() and not own.is_file():
        source, preprocess = processor, read_processor(_json(processor), str(processor))
    else:
        source, preprocess = own, _own(_json(own) if own.is_file() else {}, defaults, own)
    if size not in (None, preprocess.size):
        raise AnnotatorError(
            f"{path} takes images of {size} pixels, but {source} says {preprocess.size}."
        )
    return preprocess


def _own(fields: dict[str, Any], defaults: dict[str, Any], source: Path) -> Preprocess:
    """The fields of `Preprocess`, those that are missing by default."""
    values = defaults | fields
    try:
        if unknown := sorted(values.keys() - defaults.keys()):
            raise ValueError(f"it has {unknown[0]!r}, which is not known")
        for field, choices in (("resize", Resize), ("interpolation", Interpolation)):
            if values[field] not in get_args(choices):
                raise ValueError(f"{field} is {values[field]!r}")
        mean, std = three(values["mean"]), three(values["std"])
        size, crop_pct = int(values["size"]), float(values["crop_pct"])
        if not (1 <= size <= _LARGEST and 0 < crop_pct <= 1 and min(std) > 0):
            raise ValueError(f"size, crop_pct or std is out of range: {size}, {crop_pct}, {std}")
    except (TypeError, ValueError) as error:
        raise AnnotatorError(
            f"{source} is no preprocessing: {error}.", f"For example: {json.dumps(_DEFAULTS)}"
        ) from error
    return Preprocess(size, values["resize"], values["interpolation"], mean, std, crop_pct)


def _json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AnnotatorError(f"{path} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise AnnotatorError(f"{path} holds no object of JSON.")
    return fields


def _digest(path: Path) -> str:
    """ "sha256:…" of the file and of those beside it that hold its tensors."""
    digest = hashlib.sha256()
    for part in [path, *sorted(_external(path))]:
        with part.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _external(path: Path) -> set[Path]:
    """Files that hold tensors of a network, named in it as `location` (onnx.proto: external_data).

    They are found by the bytes with which protobuf writes such an entry. Bytes of a weight that
    look the same do no harm: they would have to name a file that is there.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        names = {data[m.end() : m.end() + m[1][0]] for m in _LOCATION.finditer(data)}
    files = (path.parent / name.decode("utf-8", "replace") for name in names if b"\0" not in name)
    return {file for file in files if file.is_file()}
