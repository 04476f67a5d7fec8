"""BERTScore of captions (Zhang et al. 2020), computed by the package `bert-score`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from annotator.encoders.torch_setup import Device, choose_device, make_torchvision_importable
from annotator.errors import AnnotatorError, first_line
from index.distribution import pip_install
from index.progress import track

_MOST_TOKENS = 512  # of a caption; what follows is cut off
_PAIRS_AT_ONCE = 64


class BertScorer:
    """Compares captions by the token vectors of one model, without rescaling.

    Args:
        model: A folder that transformers can read, or a name on the hub.
        layer: Layer whose vectors are compared, 1 for the first. None takes the one published for
            models of this name (the last part of a path).
        device: Where the model runs.

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
                f"The layer at which BERTScore compares {Path(model).name} is unknown.",
                "Name it with --bertscore-layer.",
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
        # bert-score 0.3.13 expects of a tokenizer what those of transformers 5 no longer have.
        tokenizer = self._scorer._tokenizer
        tokenizer.model_max_length = min(tokenizer.model_max_length, _MOST_TOKENS)
        tokenizer.build_inputs_with_special_tokens = lambda _: tokenizer.encode("")

    def score(
        self, truths: Sequence[str], captions: Sequence[str]
    ) -> list[tuple[float, float, float]]:
        """Precision, recall and F1 of each pair of a truth and a caption.

        A token weighs log((n + 1) / (m + 1)), where m of the n truths hold it. A pair is 0 where
        either text is empty or has only tokens that all truths hold.
        """
        import torch

        self._scorer._idf_dict = None
        self._scorer.compute_idf(list(truths))
        found = [(0.0, 0.0, 0.0)] * len(truths)
        rows = [i for i, text in enumerate(truths) if text.strip() and captions[i].strip()]
        waiting = iter(track(rows, total=len(rows), label="BERTScore"))
        while chunk := list(itertools.islice(waiting, _PAIRS_AT_ONCE)):
            values = self._scorer.score([captions[i] for i in chunk], [truths[i] for i in chunk])
            for i, (precision, recall, f1) in zip(
                chunk, torch.stack(values, dim=1).nan_to_num().tolist(), strict=True
            ):
                found[i] = (precision, recall, f1)
        return found
