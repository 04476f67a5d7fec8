"""Text towers, of encoders that have one: texts to vectors in the space of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.embedder import to_unit_norm
from annotator.encoders.fingerprint import Fingerprint, weights_digest
from annotator.encoders.preprocess import Resize
from annotator.encoders.recognise import has_transformers_text
from annotator.encoders.registry import full_name, split_names
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    import torch
    from torch import nn


class TextTower:
    """Encoder of texts, whose vectors are compared with those of images.

    In fp32 on the CPU, whatever the images were encoded with: a text is encoded in milliseconds.

    Args:
        name: Of the encoder.
        encode: Texts to float[n, dim]; long texts are truncated.
    """

    def __init__(self, name: str, encode: Callable[[list[str]], torch.Tensor]) -> None:
        self.name = name
        self._encode = encode

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts to float32[n, dim], each row of unit norm; long texts are truncated.

        Raises:
            AnnotatorError: The model returned a vector that is zero or not finite.
        """
        import torch

        with torch.inference_mode():
            vectors: NDArray[np.float32] = self._encode(list(texts)).float().numpy()
        return to_unit_norm(vectors, f"The text tower of {self.name}", "Its weights are damaged.")


def has_text_tower(name: str) -> bool:
    """Whether an encoder of this name has a text tower; nothing is downloaded to find out.

    Raises:
        AnnotatorError: A package is missing.
    """
    if len(split_names(name)) > 1:
        return False
    kind, rest = _kind(name)
    if kind == "transformers" and rest:
        return has_transformers_text(rest)
    return kind in ("open_clip", "hf-hub", "local-dir") and bool(rest)


def make_text_tower(name: str, fingerprint: Fingerprint) -> TextTower:
    """Load the text tower that belongs to an encoder.

    Args:
        name: Of the encoder, as for `make_embedder`.
        fingerprint: Of the encoder whose vectors the texts are compared with.

    Raises:
        AnnotatorError: The encoder has no text tower, or it cannot be loaded, or the weights are
            others now.
    """
    kind, rest = _kind(name)
    visual: nn.Module
    if not has_text_tower(name):
        raise AnnotatorError(
            f"The index's encoder {name} has no text tower, so it cannot be searched by free text.",
            "Search by an image or a concept, or build an index with an encoder of images and "
            "texts (CLIP, SigLIP): annotator build-index … --embedder hf-hub:ORG/MODEL, or "
            "transformers:ORG/MODEL",
        )
    if kind == "transformers":
        from annotator.encoders.transformers_encoder import transformers_texts

        visual, encode = transformers_texts(rest)
    else:
        from annotator.encoders.open_clip_encoder import open_clip_texts

        visual, encode = open_clip_texts(rest if kind == "open_clip" else f"{kind}:{rest}")
    if weights_digest(visual) != fingerprint.weights:
        raise AnnotatorError(
            f"The weights of {name} are not those that the index was built with.",
            "Put the former weights back, or build the index again.",
        )
    return TextTower(name, encode)


def _kind(name: str) -> tuple[str, str]:
    """Kind of an encoder and the rest of its name, without how images become squares."""
    kind, _, rest = full_name(name).partition(":")
    return _kind(rest) if kind in get_args(Resize) and rest else (kind, rest)
