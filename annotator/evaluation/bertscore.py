"""BERTScore of captions (Zhang et al. 2020), computed by the package `bert-score`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from annotator.encoders.torch_setup import Device, choose_device, make_torchvision_importable
from annotator.errors import AnnotatorError, first_line
from index.distribution import pip_install
from index.progress import track

_MOST_TOKENS = 512  # per caption; the rest is truncated
_PAIRS_AT_ONCE = 64


class BertScorer:
    """Score captions by the token vectors of one model, without rescaling.

    Args:
        model: Model folder of transformers, or a name on the hub.
        layer: Layer of the compared vectors, 1 for the first. None takes the published one for
            models of this name (the last part of a path).
        device: Device of the model.

    Raises:
        AnnotatorError: bert-score is not installed, the model cannot be loaded, or its layer is
            unknown or out of range.
    """

    def __init__(self, model: str, layer: int | None = None, *, device: Device = "auto") -> None:
        make_torchvision_importable()
        try:
            from bert_score import BERTScorer  # type: ignore[import-untyped]
            from bert_score.utils import model2layers  # type: ignore[import-untyped]
            from transformers.utils import logging
        except ImportError as error:
            raise AnnotatorError(
                f"BERTScore needs the package bert-score ({first_line(error)}).",
                f"Install it: {pip_install('captions')}.",
            ) from error
        published = {Path(name).name: number for name, number in model2layers.items()}
        layer = layer or published.get(Path(model).name)
        if layer is None:
            raise AnnotatorError(
                f"The BERTScore layer of {Path(model).name} is unknown.",
                "Set it with --bertscore-layer.",
            )
        self.model, self.layer = model, layer
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            self._scorer = BERTScorer(
                model, layer, idf=True, nthreads=0, device=str(choose_device(device))
            )
        except (OSError, ValueError, KeyError, ImportError, AssertionError) as error:
            raise AnnotatorError(
                f"{model} cannot be loaded for BERTScore: {first_line(error)}",
                "Give the folder of a model that transformers can read, such as a download of "
                "microsoft/deberta-xlarge-mnli, or its name where the hub can be reached.",
            ) from error
        # bert-score 0.3.13 uses tokenizer methods that transformers 5 has removed.
        tokenizer = self._scorer._tokenizer
        tokenizer.model_max_length = min(tokenizer.model_max_length, _MOST_TOKENS)
        tokenizer.build_inputs_with_special_tokens = lambda _: tokenizer.encode("")

    def score(
        self, truths: Sequence[str], captions: Sequence[str]
    ) -> list[tuple[float, float, float]]:
        """Compute precision, recall and F1 of each pair of a truth and a caption.

        The weight (idf) of a token is log((n + 1) / (m + 1)), with m of n truths containing it. A
        pair scores 0 if either text is empty or has only tokens of weight 0.
        """
        import torch

        self._scorer._idf_dict = None
        self._scorer.compute_idf(list(truths))
        found = [(0.0, 0.0, 0.0)] * len(truths)
        rows = [i for i, text in enumerate(truths) if text.strip() and captions[i].strip()]
        waiting = iter(track(rows, total=len(rows), label="BERTScore", unit="captions"))
        while chunk := list(itertools.islice(waiting, _PAIRS_AT_ONCE)):
            values = self._scorer.score([captions[i] for i in chunk], [truths[i] for i in chunk])
            for i, (precision, recall, f1) in zip(
                chunk, torch.stack(values, dim=1).nan_to_num().tolist(), strict=True
            ):
                found[i] = (precision, recall, f1)
        return found
