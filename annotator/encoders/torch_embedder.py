"""Embedders that run a network of torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from annotator.encoders.allocator import keep_freed_memory
from annotator.encoders.contributions import ContributionMap, patch_vectors, pooled_map
from annotator.encoders.embedder import NO_VECTOR_HINT, Encoder, check_pixels, to_unit_norm
from annotator.encoders.fingerprint import Fingerprint, weights_digest
from annotator.encoders.fold_batchnorm import example_input, fold_batchnorm
from annotator.encoders.normalise import Normalise
from annotator.encoders.preprocess import DECODER_VERSION, Box
from annotator.encoders.torch_setup import (
    Device,
    Precision,
    choose_device,
    choose_precision,
)
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from PIL import Image

    from annotator.images.frames import Frames


_T = TypeVar("_T")


class TorchEmbedder:
    """An `Embedder` that runs a torch network.

    Fast on CPU by three means, none of which needs compilation: batch normalisation folded into the
    convolutions, channels-last memory, and bf16 where the hardware has it.

    Args:
        name: The string that chose the encoder.
        encoder: Its model is changed in place.
        device: "auto" takes CUDA where there is one.
        precision: "auto" takes bf16 where the hardware multiplies it natively, else fp32.
        frames: Which frames of multi-frame images are used.

    Raises:
        AnnotatorError: There is no such device, or the network does not give one vector an image.
    """

    def __init__(
        self,
        name: str,
        encoder: Encoder,
        *,
        device: Device = "auto",
        precision: Precision = "auto",
        frames: Frames = "middle",
    ) -> None:
        self.name = name
        self.engine: str | None = "torch" if encoder.runs_on is None else "onnxruntime"
        if encoder.runs_on is not None:
            device, precision = encoder.runs_on
        self.device = choose_device(device)
        self.frames: Frames = frames
        # On a CPU small batches stay in its caches; a GPU is busy only with large ones.
        self.batch_size = 128 if self.device.type == "cuda" else 16
        if self.device.type == "cpu":
            keep_freed_memory()
        self._preprocess = encoder.preprocess
        self._size, self.image_size = encoder.preprocess.size, encoder.preprocess.smallest_side
        chosen = choose_precision(precision, self.device)
        self._dtype = torch.bfloat16 if chosen == "bf16" else torch.float32
        model = encoder.model.eval().requires_grad_(False)
        example = example_input(3, self._size)
        self.dim = vector_length(name, model, example)
        self.blocks = encoder.blocks or (self.dim,)
        self.fitted = encoder.fitted
        self.fingerprint = fingerprint_of(encoder, self.dim, chosen, frames)
        fold_batchnorm(model, example)
        model = model.to(device=self.device, dtype=self._dtype)
        self._model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._normalise = Normalise(encoder.preprocess, self.device)
        # On a GPU one thread does it all: two batches at once would double its memory, and torch
        # keeps cuDNN's plans by thread, whose making takes seconds.
        self._thread = (
            ThreadPoolExecutor(1, thread_name_prefix="cuda") if self.device.type == "cuda" else None
        )

    def prepare(self, frames: Sequence[Image.Image]) -> NDArray[np.uint8]:
        return self._preprocess.stack(frames)

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Embedder.embed`.

        Raises:
            AnnotatorError: The network returned a vector that is zero or not finite.
            ValueError: `pixels` has another shape or dtype.
        """
        check_pixels(pixels, self.name, self._size)
        vectors = self._run(lambda: self._forward(pixels))
        return to_unit_norm(vectors, f"The encoder {self.name}", NO_VECTOR_HINT)

    def position_contributions(self, frame: Image.Image) -> list[ContributionMap] | None:
        return self._run(lambda: self._position_contributions(frame))

    def patch_contributions(self, frame: Image.Image) -> list[ContributionMap] | None:
        return self._run(lambda: self._patch_contributions(frame))

    def _run(self, work: Callable[[], _T]) -> _T:
        """Do `work` in the thread of the network."""
        return work() if self._thread is None else self._thread.submit(work).result()

    def _position_contributions(self, frame: Image.Image) -> list[ContributionMap] | None:
        with torch.inference_mode():
            batch = self._batch(self.prepare([frame]))
            raw = float(torch.linalg.norm(self._model(batch).float()))
            own = getattr(self._model, "position_contributions", None)
            if own is not None:
                found = own(batch)
                if found is None:
                    return None
                parts = [part[0].movedim(0, 2) for part in found]
            else:
                map_ = pooled_map(self._model, batch)
                if map_ is None:
                    return None
                parts = [map_ / map_[..., 0].numel()]
        starts = np.cumsum([0, *(part.shape[2] for part in parts)]).tolist()
        return [
            ContributionMap(start, part.cpu().numpy(), self._box(frame)).within(0, 1 / raw)
            for start, part in zip(starts, parts, strict=False)
        ]

    def _patch_contributions(self, frame: Image.Image) -> list[ContributionMap] | None:
        with torch.inference_mode():
            batch = self._batch(self.prepare([frame]))
            own = getattr(self._model, "patch_vectors", None)
            if own is not None:
                parts = own(batch)
            else:
                vectors = patch_vectors(self._model, batch)
                parts = None if vectors is None else [vectors]
            if parts is None:
                return None
            unit = [nn.functional.normalize(part, dim=2) for part in parts]
            shares = [(part / part[..., 0].numel()).cpu().numpy() for part in unit]
        starts = np.cumsum([0, *(share.shape[2] for share in shares)]).tolist()
        return [
            ContributionMap(start, share, self._box(frame)).within(0, len(shares) ** -0.5)
            for start, share in zip(starts, shares, strict=False)
        ]

    def _box(self, frame: Image.Image) -> Box:
        return self._preprocess.box(frame.width, frame.height)

    def _batch(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        return self._normalise(torch.from_numpy(pixels)).to(self._dtype)

    def _forward(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        n = len(pixels)
        if self._thread is not None:
            pixels = pad_batch(pixels, (1, 16, self.batch_size))
        with torch.inference_mode():
            output = self._model(self._batch(pixels))
            vectors: NDArray[np.float32] = output[:n].float().cpu().numpy()
        return vectors


def fingerprint_of(
    encoder: Encoder, dim: int, precision: Literal["fp32", "bf16"], frames: Frames
) -> Fingerprint:
    """The fingerprint of an encoder whose model is still as it was loaded."""
    return Fingerprint(
        architecture=encoder.architecture,
        weights=encoder.weights or weights_digest(encoder.model),
        preprocess={**encoder.preprocess.to_dict(), "decoder": DECODER_VERSION},
        precision=precision,
        frames=frames,
        dim=dim,
    )


def pad_batch(pixels: NDArray[np.uint8], sizes: Sequence[int]) -> NDArray[np.uint8]:
    """Pad a batch with black images to the next of `sizes`.

    cuDNN plans each new batch size for seconds; encoding the padding takes milliseconds.

    Args:
        pixels: uint8[n, size, size, 3].
        sizes: Ascending; beyond the last one, multiples of it.

    Returns:
        uint8[m, size, size, 3].
    """
    n = len(pixels)
    wanted = next((size for size in sizes if size >= n), -(-n // sizes[-1]) * sizes[-1])
    if wanted == n:
        return pixels
    return np.concatenate([pixels, np.zeros((wanted - n, *pixels.shape[1:]), np.uint8)])


def vector_length(name: str, model: nn.Module, example: torch.Tensor) -> int:
    """Length of the vectors that a network gives.

    Raises:
        AnnotatorError: It does not give one vector an image.
    """
    with torch.inference_mode():
        output = model(example)
    if not isinstance(output, torch.Tensor) or output.ndim != 2:
        shape = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise AnnotatorError(
            f"The encoder {name} gives {shape} for one image, not one vector.",
            "Choose a network that pools its features.",
        )
    return output.shape[1]
