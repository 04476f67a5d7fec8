"""Conversion of torch's networks to graphs of OpenVINO, each compared with what it came from."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from annotator.encoders.converted import Converted, keep
from annotator.encoders.embedder import Embedder, Encoder
from annotator.encoders.fold_batchnorm import example_input, fold_batchnorm
from annotator.encoders.normalise import Normalise
from annotator.encoders.openvino_embedder import (
    OpenVinoEmbedder,
    kept_embedder,
    load_openvino,
    runs_in,
)
from annotator.encoders.torch_embedder import TorchEmbedder, fingerprint_of, vector_length
from annotator.encoders.torch_setup import Precision, choose_precision
from annotator.errors import AnnotatorError, first_line

if TYPE_CHECKING:
    from annotator.images.frames import Frames

#: Least cosine between the vectors of one picture by the two engines. Vectors that agree so far
#: have the same fingerprint; a network whose vectors do not is left to torch (docs/encoder.md).
TOLERANCE = {"fp32": 0.99999, "bf16": 0.9998}
_PICTURES = 3


class FromBytes(nn.Module):
    """A network with its normalisation: uint8[n, size, size, 3] to float32[n, dim]."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.model = encoder.model
        self._normalise = Normalise(encoder.preprocess, torch.device("cpu"))

    def forward(self, pixels: Tensor) -> Tensor:
        vectors: Tensor = self.model(self._normalise(pixels))
        return vectors.float()


def openvino_or_torch(
    name: str,
    encoder: Encoder,
    in_torch: Callable[[], Embedder],
    *,
    precision: Precision,
    frames: Frames,
    required: bool,
) -> Embedder:
    """An embedder that runs an encoder by OpenVINO, where that gives the vectors of torch.

    What was converted before is taken from disk; else it is converted, compared, and kept.

    Args:
        name: The string that chose the encoder.
        encoder: On the CPU; its model is changed in place.
        in_torch: As for `OpenVinoEmbedder`.
        precision: As for `TorchEmbedder`.
        frames: Likewise.
        required: Raise where OpenVINO cannot run it, instead of giving it to torch.

    Raises:
        AnnotatorError: The network gives no vectors; or OpenVINO is required and cannot run it.
    """
    if encoder.runs_on is not None:
        if required:
            raise _refused(name, "onnxruntime runs it")
        return TorchEmbedder(name, encoder, device="cpu", precision=precision, frames=frames)
    model = encoder.model.eval().requires_grad_(False)
    example = example_input(3, encoder.preprocess.size)
    dim = vector_length(name, model, example)
    chosen = choose_precision(precision, torch.device("cpu"))
    fingerprint = fingerprint_of(encoder, dim, chosen, frames)
    able = runs_in(chosen)
    if able and (found := kept_embedder(name, fingerprint, in_torch)) is not None:
        return found
    fold_batchnorm(model, example)
    encoder = replace(encoder, weights=fingerprint.weights)
    by_openvino, reason = None, "this CPU does not multiply bf16"
    if able:
        try:
            network, weights = _convert(encoder)
            blocks = encoder.blocks or (dim,)
            converted = Converted(fingerprint, blocks, network, weights, encoder.fitted)
            by_openvino = OpenVinoEmbedder(name, converted, in_torch)
        except Exception as error:  # torch and OpenVINO raise a dozen types here
            reason = f"it cannot be converted: {first_line(error)}"
    by_torch = TorchEmbedder(name, encoder, device="cpu", precision=chosen, frames=frames)
    if by_openvino is not None:
        least = _least_cosine(by_openvino, by_torch)
        if least >= TOLERANCE[chosen]:
            keep(converted)
            return by_openvino
        reason = f"its vectors differ from those of torch (cosine {least:.4f})"
    if required:
        raise _refused(name, reason)
    return by_torch


def _convert(encoder: Encoder) -> tuple[bytes, NDArray[np.uint8]]:
    """The graph of an encoder with its normalisation, as XML, and its constants."""
    openvino = load_openvino()
    size = encoder.preprocess.size
    # Two images, so that a batch is seen to be one.
    example = torch.from_numpy(_pictures(size)[:2])
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what tracing takes for constant, is: sizes
        traced = torch.jit.trace(FromBytes(encoder).eval(), example, check_trace=False)  # type: ignore[no-untyped-call]
        shape = openvino.PartialShape([-1, size, size, 3])
        model = openvino.convert_model(traced, input=[shape], example_input=example)
    with TemporaryDirectory() as folder:
        path = Path(folder, "network.xml")
        openvino.save_model(model, path, compress_to_fp16=False)
        return path.read_bytes(), np.fromfile(path.with_suffix(".bin"), np.uint8)


def _least_cosine(one: Embedder, other: Embedder) -> float:
    """Between the vectors of a few pictures, each in a batch of another size."""
    pixels = _pictures(one.fingerprint.preprocess["size"])
    parts = [pixels[:1], pixels[1:], pixels]
    try:
        pairs = [(one.embed(part), other.embed(part)) for part in parts]
    except (AnnotatorError, RuntimeError):  # no vectors at all, or none of batches
        return 0.0
    return float(min((a * b).sum(axis=1).min() for a, b in pairs))


def _pictures(size: int) -> NDArray[np.uint8]:
    """Waves of a few frequencies with noise, uint8[n, size, size, 3]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    waves = [np.sin(2 * np.pi * (3 * (i + 1) * x + 5 * i * y)) for i in range(_PICTURES)]
    grey = np.stack(waves)[..., None] * 80 + 128 + rng.normal(0, 12, (_PICTURES, size, size, 3))
    return grey.clip(0, 255).astype(np.uint8)


def _refused(name: str, reason: str) -> AnnotatorError:
    return AnnotatorError(
        f"--engine openvino cannot run the encoder {name}: {reason}.", "Use --engine torch."
    )
