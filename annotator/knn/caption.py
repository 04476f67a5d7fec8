"""Consensus caption of the neighbours.

Devlin et al. 2015, "Exploring nearest neighbor approaches for image captioning", with the
neighbours' weights: the caption of least Bayes risk (Kumar and Byrne 2004) for ROUGE-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from annotator.evaluation.rouge import similarities

Method = Literal["consensus", "nearest"]

_DIGITS = 9  # of an expected similarity; rounding errors must not break ties


@dataclass(frozen=True)
class CaptionChoice:
    """Chosen caption.

    Attributes:
        position: Position among the given captions.
        expected: Expected ROUGE-1 under the neighbours' votes, 0..1.
    """

    position: int
    expected: float


def choose_caption(
    captions: Sequence[str],
    weights: Sequence[float] | NDArray[np.float64],
    method: Method = "consensus",
) -> CaptionChoice | None:
    """Choose one of the neighbours' captions; None if there are none.

    The model: the true caption is that of neighbour j with probability w_j, its share of the votes
    of neighbours with a caption. The consensus is the caption i with the largest
    sum_j w_j * ROUGE-1(i, j), including j = i; ties go to the first.

    Args:
        captions: Captions of the neighbours, most similar first; "" for none.
        weights: Weights of the neighbours, non-negative; all 0 means equal weights.
        method: "consensus", or "nearest" for the first caption.

    Raises:
        ValueError: Unknown method, or numbers of weights and captions differ.
    """
    if method not in get_args(Method):
        raise ValueError(f"unknown method {method!r}; one of {', '.join(get_args(Method))}")
    if len(captions) != len(weights):
        raise ValueError(f"{len(captions)} captions and {len(weights)} weights")
    given = [i for i, caption in enumerate(captions) if caption.strip()]
    if not given:
        return None
    shares = np.asarray(weights, np.float64)[given]
    total = shares.sum()
    shares = shares / total if total > 0 else np.full(len(given), 1 / len(given))
    expected = np.round(similarities([captions[i] for i in given]) @ shares, _DIGITS)
    best = int(expected.argmax()) if method == "consensus" else 0
    return CaptionChoice(given[best], float(expected[best]))
