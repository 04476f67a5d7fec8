"""The text tower of an open_clip model: texts to vectors in the space of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from annotator.encoders.embedder import to_unit_norm
from annotator.encoders.fingerprint import Fingerprint, weights_digest
from annotator.encoders.registry import explained, open_clip_model
from annotator.errors import AnnotatorError


class TextTower:
    """Encoder of texts, whose vectors are compared with those of images.

    In fp32 on the CPU, whatever the images were encoded with: a text is encoded in milliseconds.

    Args:
        name: Of the encoder.
        model: An open_clip model; its image tower is dropped.
        tokenizer: Texts to int64[n, context].
    """

    def __init__(
        self, name: str, model: Any, tokenizer: Callable[[list[str]], torch.Tensor]
    ) -> None:
        self.name = name
        self._tokenizer = tokenizer
        self._model = model.requires_grad_(False).float()
        self._model.visual = None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts to float32[n, dim], each row of unit norm; long texts are truncated.

        Raises:
            AnnotatorError: The model returned a vector that is zero or not finite.
        """
        with torch.inference_mode():
            tokens = self._tokenizer(list(texts))
            vectors: NDArray[np.float32] = self._model.encode_text(tokens).float().numpy()
        return to_unit_norm(vectors, f"The text tower of {self.name}", "Its weights are damaged.")


def make_text_tower(name: str, fingerprint: Fingerprint) -> TextTower:
    """Load the text tower that belongs to an encoder.

    Args:
        name: Of the encoder, as for `make_embedder`.
        fingerprint: Of the encoder whose vectors the texts are compared with.

    Raises:
        AnnotatorError: The encoder has no text tower, or it cannot be loaded, or the weights are
            others now.
    """
    found = open_clip_model(name)
    if found is None:
        raise AnnotatorError(
            f"The index's encoder {name} has no text tower, so it cannot be searched by free text.",
            "Search by an image or a concept, or build an index with an encoder of open_clip: "
            "annotator build-index … --embedder hf-hub:ORG/MODEL",
        )
    model_name, model = found
    if weights_digest(model.visual) != fingerprint.weights:
        raise AnnotatorError(
            f"The weights of {name} are not those that the index was built with.",
            "Put the former weights back, or build the index again.",
        )
    import open_clip

    with explained(name):
        return TextTower(name, model, open_clip.get_tokenizer(model_name))
