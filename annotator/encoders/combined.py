"""Concatenation of several encoders, or of one at several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.encoders.embedder import Embedder
from annotator.encoders.fingerprint import Fingerprint
from annotator.encoders.fitted import Fitted
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from annotator.encoders.contributions import ContributionMap


class CombinedEmbedder:
    """An `Embedder` that concatenates the vectors of its parts with equal weight.

    An image is decoded once, at the largest size that a part needs.

    Args:
        parts: At least two, with the same frames.

    Raises:
        AnnotatorError: Several of them are fitted.
    """

    def __init__(self, parts: Sequence[Embedder]) -> None:
        self._parts = parts
        self.name = "+".join(part.name for part in parts)
        self.dim = sum(part.dim for part in parts)
        self.blocks = tuple(block for part in parts for block in part.blocks)
        self.frames = parts[0].frames
        self.image_size = max(part.image_size for part in parts)
        self.batch_size = min(part.batch_size for part in parts)
        self.fitted = _fitted(parts)
        self.engine: str | None = " + ".join(dict.fromkeys(str(part.engine) for part in parts))
        grey = [Image.new("L", (8, 8))]
        self._shapes = [part.prepare(grey).shape[1:] for part in parts]
        self.fingerprint = Fingerprint.joined([part.fingerprint for part in parts])

    def prepare(self, frames: Sequence[Image.Image]) -> NDArray[np.uint8]:
        """Decoded frames of one image to uint8[frames, bytes]: the pixels of each part in turn."""
        pixels = [part.prepare(frames) for part in self._parts]
        return np.hstack([p.reshape(len(p), -1) for p in pixels])

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        vectors, start = [], 0
        for part, shape in zip(self._parts, self._shapes, strict=True):
            end = start + int(np.prod(shape))
            own = np.ascontiguousarray(pixels[:, start:end]).reshape(-1, *shape)
            vectors.append(part.embed(own))
            start = end
        joined = np.hstack(vectors)
        unit: NDArray[np.float32] = joined / np.linalg.norm(joined, axis=1, keepdims=True)
        return unit

    def position_contributions(self, frame: Image.Image) -> list[ContributionMap] | None:
        return self._joined([part.position_contributions(frame) for part in self._parts])

    def patch_contributions(self, frame: Image.Image) -> list[ContributionMap] | None:
        return self._joined([part.patch_contributions(frame) for part in self._parts])

    def _joined(
        self, maps_of_parts: list[list[ContributionMap] | None]
    ) -> list[ContributionMap] | None:
        """The maps of all parts as maps of the joint vector; None if a part has none."""
        starts = np.cumsum([0, *(part.dim for part in self._parts)]).tolist()
        share = len(self._parts) ** -0.5  # each part is of unit norm
        joined: list[ContributionMap] = []
        for start, maps in zip(starts, maps_of_parts, strict=False):
            if maps is None:
                return None
            joined += [map_.within(start, share) for map_ in maps]
        return joined


def _fitted(parts: Sequence[Embedder]) -> Fitted | None:
    """That of the fitted part, for the joint vector."""
    starts = np.cumsum([0, *(part.dim for part in parts)]).tolist()
    fitted = [
        part.fitted.within(start)
        for part, start in zip(parts, starts, strict=False)
        if part.fitted is not None
    ]
    if len(fitted) > 1:
        names = ", ".join(part.name for part in parts if part.fitted is not None)
        raise AnnotatorError(
            f"Several fitted encoders cannot be joined: {names}.",
            "Join one with encoders that are not fitted.",
        )
    return fitted[0] if fitted else None
