"""BERTScore (Zhang et al. 2020) with any encoder of transformers, weighted by idf.

Computed here and not by the package `bert-score`, which needs an older transformers: it asks its
tokenizer for a length that today's refuse where a model names none, as the task's does not.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annotator.encoders.torch_setup import Device, choose_device, make_torchvision_importable
from annotator.errors import AnnotatorError, first_line
from index.distribution import pip_install
from index.progress import track

if TYPE_CHECKING:
    import torch

#: The layer whose vectors agree best with people, as published with BERTScore, by the last part of
#: the model's name.
LAYERS = {
    "bert-base-uncased": 9,
    "bert-large-uncased": 18,
    "deberta-base": 9,
    "deberta-base-mnli": 9,
    "deberta-large": 16,
    "deberta-large-mnli": 18,
    "deberta-xlarge": 18,
    "deberta-xlarge-mnli": 40,  # the task's
    "roberta-base": 10,
    "roberta-large": 17,
    "roberta-large-mnli": 19,
}
_MOST_TOKENS = 512  # of a caption; what follows is cut off
_PAIRS_AT_ONCE = 32


class BertScorer:
    """A model that compares captions.

    Args:
        model: A folder that transformers can read, or a name on the hub.
        layer: Whose vectors are compared, 1 for the first; None for the one known for the model.
        device: Where the model runs.

    Raises:
        AnnotatorError: transformers is not installed, the model cannot be loaded, or its layer is
            not known or not there.
    """

    def __init__(
        self,
        model: str,
        layer: int | None = None,
        *,
        device: Device = "auto",
    ) -> None:
        name = Path(model).name
        layer = layer if layer is not None else LAYERS.get(name)
        if layer is None:
            raise AnnotatorError(
                f"Which layer of {name} BERTScore compares is not known.",
                "Name it by --bertscore-layer; it is known for " + ", ".join(LAYERS) + ".",
            )
        self.model, self.layer = model, layer
        self._device = choose_device(device)
        self._tokenizer, self._network = _load(model)
        layers = int(self._network.config.num_hidden_layers)
        if not 1 <= layer <= layers:
            raise AnnotatorError(f"{model} has no layer {layer}.", f"Choose one of 1 to {layers}.")
        self._network.to(self._device).eval()
        self._longest = min(
            self._tokenizer.model_max_length,
            getattr(self._network.config, "max_position_embeddings", _MOST_TOKENS),
            _MOST_TOKENS,
        )

    def describe(self) -> dict[str, Any]:
        """Model and layer."""
        return {"model": self.model, "layer": self.layer}

    def score(
        self, truths: Sequence[str], captions: Sequence[str]
    ) -> list[tuple[float, float, float]]:
        """Precision, recall and F1 of each pair of a truth and a caption.

        Each token is matched with the most similar one of the other text; the mean similarity,
        weighted by log((n + 1) / (m + 1)) where m of the n truths hold the token, is the recall
        from the truth's side and the precision from the caption's. A pair is 0 where a text is
        empty, or has only tokens that all truths hold.
        """
        idf = self._idf(truths)
        order = sorted(range(len(truths)), key=lambda i: len(truths[i]) + len(captions[i]))
        pairs = iter(track(order, total=len(order), label="BERTScore"))
        found: list[tuple[float, float, float]] = [(0.0, 0.0, 0.0)] * len(truths)
        while chunk := list(itertools.islice(pairs, _PAIRS_AT_ONCE)):
            texts = list(dict.fromkeys([s[i] for s in (truths, captions) for i in chunk]))
            tokens = {text: self._tokens(text) for text in texts if text.strip()}
            vectors = self._embed(tokens)
            for i in chunk:
                if truths[i] in vectors and captions[i] in vectors:
                    found[i] = _match(
                        vectors[truths[i]],
                        vectors[captions[i]],
                        [idf(token) for token in tokens[truths[i]]],
                        [idf(token) for token in tokens[captions[i]]],
                    )
        return found

    def _tokens(self, text: str) -> list[int]:
        # RoBERTa's kind tells a word at the very beginning from the same one after a space.
        spaced = any(kind in type(self._tokenizer).__name__ for kind in ("Roberta", "GPT2"))
        encoded = self._tokenizer(
            f" {text.strip()}" if spaced else text.strip(),
            truncation=True,
            max_length=self._longest,
        )
        return [int(token) for token in encoded["input_ids"]]

    def _idf(self, truths: Sequence[str]) -> Any:
        held: Counter[int] = Counter()
        for text in truths:
            held.update(set(self._tokens(text)))
        n = len(truths)
        return lambda token: math.log((n + 1) / (held[token] + 1))

    def _embed(self, tokens: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
        """Of each text: float32[its tokens, dim], of unit norm."""
        import torch

        if not tokens:
            return {}
        length = max(len(ids) for ids in tokens.values())
        padded = torch.full((len(tokens), length), self._tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(padded)
        for row, ids in enumerate(tokens.values()):
            padded[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
        with torch.inference_mode():
            output = self._network(
                input_ids=padded.to(self._device),
                attention_mask=mask.to(self._device),
                output_hidden_states=True,
            )
            states = torch.nn.functional.normalize(output.hidden_states[self.layer].float(), dim=-1)
        return {text: states[row, : len(ids)] for row, (text, ids) in enumerate(tokens.items())}


def _load(model: str) -> tuple[Any, Any]:
    make_torchvision_importable()
    try:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise AnnotatorError(
            f"BERTScore needs transformers ({first_line(error)}).",
            f"Install it: {pip_install('captions')}.",
        ) from error
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # of a second or two
    try:
        return AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise AnnotatorError(
            f"{model} cannot be loaded for BERTScore: {first_line(error)}",
            "Give the folder of a model that transformers can read, such as a download of "
            "microsoft/deberta-xlarge-mnli, or its name where the hub can be reached.",
        ) from error


def _match(
    truth: torch.Tensor, caption: torch.Tensor, wanted: Sequence[float], given: Sequence[float]
) -> tuple[float, float, float]:
    similarity = (truth @ caption.T).clamp(max=1)
    recall = _weighted(similarity.amax(dim=1), wanted)
    precision = _weighted(similarity.amax(dim=0), given)
    both = precision + recall
    return precision, recall, 2 * precision * recall / both if both else 0.0


def _weighted(similarities: torch.Tensor, weights: Sequence[float]) -> float:
    total = sum(weights)
    if total <= 0:
        return 0.0
    found: list[float] = similarities.tolist()
    return sum(s * w for s, w in zip(found, weights, strict=True)) / total
