"""Encoders of which only the vectors are at hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from annotator.encoders.fingerprint import Fingerprint
from annotator.errors import AnnotatorError
from annotator.ids import has_controls

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from annotator.encoders.contributions import ContributionMap
    from annotator.encoders.embedder import Embedder
    from annotator.encoders.fitted import Fitted
    from annotator.images.frames import Frames

UNNAMED = "own-vectors"
_LONGEST_NAME = 200


@dataclass
class VectorEncoder:
    """An `Embedder` without pixels: it says whose vectors these are, and refuses images.

    Either the encoder is one of ours that has run elsewhere (`annotator embed` records its
    fingerprint), or it is the user's, known by a name and the length of its vectors.

    Attributes:
        name: As `Embedder.name`; for the user's, the name that he gave.
        fingerprint: As `Embedder.fingerprint`; for the user's, `Fingerprint.of_own`.
        blocks: As `Embedder.blocks`.
    """

    name: str
    fingerprint: Fingerprint
    blocks: tuple[int, ...]

    dim: int = field(init=False)
    frames: Frames = field(default="middle", init=False)
    image_size: int = field(default=1, init=False)
    batch_size: int = field(default=256, init=False)
    fitted: Fitted | None = field(default=None, init=False)
    engine: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.dim = self.fingerprint.dim

    @classmethod
    def own(cls, name: str, dim: int) -> VectorEncoder:
        """The user's encoder of this name.

        Raises:
            AnnotatorError: The name is empty, too long or holds control characters.
        """
        if not name.strip() or len(name) > _LONGEST_NAME or has_controls(name):
            raise AnnotatorError(
                f"{name[:50]!r} cannot be the name of an encoder.",
                f"Give one line of at most {_LONGEST_NAME} characters.",
            )
        return cls(name, Fingerprint.of_own(name, dim), (dim,))

    @classmethod
    def of(cls, embedder: Embedder) -> VectorEncoder:
        """What is to be recorded of an encoder with its vectors."""
        return cls(embedder.name, embedder.fingerprint, tuple(embedder.blocks))

    def to_json(self) -> str:
        """For the metadata of a file of vectors."""
        fields = {
            "name": self.name,
            "fingerprint": self.fingerprint.to_dict(),
            "blocks": self.blocks,
        }
        return json.dumps(fields, ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, dim: int) -> VectorEncoder:
        """The reverse of `to_json`; a text that is no JSON object is the name of an own encoder.

        Args:
            text: From the metadata of a file.
            dim: Length of the vectors of the file.

        Raises:
            AnnotatorError: Fields are missing or of a wrong type, or do not fit `dim`.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            return cls.own(text, dim)
        try:
            fingerprint = Fingerprint.from_dict(fields["fingerprint"])
            encoder = cls(fields["name"], fingerprint, tuple(map(int, fields["blocks"])))
            texts = (encoder.name, fingerprint.architecture, fingerprint.weights)
            sound = all(isinstance(t, str) for t in (*texts, fingerprint.precision))
        except (KeyError, TypeError, ValueError, AttributeError, AnnotatorError):
            sound = False
        if not sound or encoder.dim != dim or sum(encoder.blocks) != dim:
            raise AnnotatorError(
                "What is recorded of the encoder is damaged, or belongs to other vectors.",
                "Write the vectors again: annotator embed.",
            )
        return encoder

    def prepare(self, frames: Sequence[Image.Image]) -> NDArray[np.uint8]:
        self._refuse()

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self._refuse()

    def position_contributions(self, frame: Image.Image) -> list[ContributionMap] | None:
        self._refuse()

    def patch_contributions(self, frame: Image.Image) -> list[ContributionMap] | None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise no_pixels(self.name)


def no_pixels(name: str) -> AnnotatorError:
    """The error that images are given where there is no encoder for them."""
    return AnnotatorError(
        f"The index was built from vectors of {name!r}, an encoder that is not ours to run.",
        "Encode the images with it and give the vectors (annotator annotate --vectors FILE), or "
        "build an index from images.",
    )
