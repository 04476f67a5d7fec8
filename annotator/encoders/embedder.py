"""Embedders: a network with its preprocessing, device and precision, as images to unit vectors.

Nothing here imports torch: `torch_embedder` and `openvino_embedder` run the networks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from PIL import Image
    from torch import nn

    from annotator.encoders.contributions import ContributionMap
    from annotator.encoders.fingerprint import Fingerprint
    from annotator.encoders.fitted import Fitted
    from annotator.encoders.preprocess import Preprocess
    from annotator.encoders.torch_setup import Device, Precision
    from annotator.images.frames import Frames


class Embedder(Protocol):
    """Interface of encoders.

    Attributes:
        name: The string that chose it, such as "timm:resnet50".
        dim: Length of its vectors.
        blocks: Lengths of the parts of a vector that have equal norm, in order; their sum is dim.
        fingerprint: Everything that its vectors depend on.
        frames: Which frames of a multi-frame image are used.
        image_size: The smallest side in pixels that an image may be decoded to.
        batch_size: Fastest number of images at once.
        fitted: What it knows of the collection that it was fitted to; None for all others.
        engine: What runs the network, such as "openvino"; None where nothing does.
    """

    name: str
    dim: int
    blocks: tuple[int, ...]
    fingerprint: Fingerprint
    frames: Frames
    image_size: int
    batch_size: int
    fitted: Fitted | None
    engine: str | None

    def prepare(self, frames: Sequence[Image.Image]) -> NDArray[np.uint8]:
        """Decoded frames of one image to uint8[frames, size, size, 3]. Thread-safe."""
        ...

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8[n, size, size, 3] to float32[n, dim], each row of unit norm. Thread-safe."""
        ...

    def position_contributions(self, frame: Image.Image) -> list[ContributionMap] | None:
        """Exact contributions of the positions of a picture, whose sum is its vector; None where
        the vector is no sum over positions. Not thread-safe.
        """
        ...

    def patch_contributions(self, frame: Image.Image) -> list[ContributionMap] | None:
        """Contributions of the patches of a picture: the unit vectors that the encoder gives for
        each patch alone, divided by their number. Their sum is close to the picture's vector; None
        where the encoder has no patches. Not thread-safe.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A loaded network and its preprocessing: fp32, on the CPU, in evaluation mode.

    Attributes:
        model: float32[n, 3, size, size] to float32[n, dim].
        preprocess: Of its input.
        architecture: For the fingerprint.
        blocks: As `Embedder.blocks`; None for one part.
        weights: For the fingerprint; None for the digest of the model's tensors.
        crop_pct: As `Preprocess.crop_pct`, where the centre is asked for.
        runs_on: Device and precision, if the model runs on these alone; it takes and gives float32.
        fitted: As `Embedder.fitted`.
    """

    model: nn.Module
    preprocess: Preprocess
    architecture: str
    blocks: tuple[int, ...] | None = None
    weights: str | None = None
    crop_pct: float = 1.0
    runs_on: tuple[Device, Precision] | None = None
    fitted: Fitted | None = None


def to_unit_norm(vectors: NDArray[np.float32], source: str, hint: str) -> NDArray[np.float32]:
    """Scale each row of float32[n, dim] to unit norm.

    Raises:
        AnnotatorError: A row is zero or not finite; the message names `source`.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(np.isfinite(norms) & (norms > 0)):
        raise AnnotatorError(f"{source} returned a vector that is zero or not finite.", hint)
    unit: NDArray[np.float32] = vectors / norms
    return unit


def check_pixels(pixels: NDArray[np.uint8], name: str, size: int) -> None:
    """Check the pixels that an encoder of this name is given.

    Raises:
        ValueError: They are not uint8[n, size, size, 3].
    """
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (size, size, 3):
        raise ValueError(
            f"{name} takes uint8[n, {size}, {size}, 3], not {pixels.dtype}{list(pixels.shape)}"
        )


#: What to say of an encoder's vectors that are zero or not finite.
NO_VECTOR_HINT = "Its weights are damaged, or overflow in this precision: try --precision fp32."
