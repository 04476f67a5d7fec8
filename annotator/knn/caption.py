"""The consensus of the neighbours' captions.

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

_DIGITS = 9  # of an expected similarity; more are noise of the sums, and would decide ties


@dataclass(frozen=True)
class CaptionChoice:
    """The chosen one of several captions.

    Attributes:
        position: Its position among those given.
        expected: Its ROUGE-1 to be expected under the neighbours' votes, 0..1.
    """

    position: int
    expected: float


def choose_caption(
    captions: Sequence[str],
    weights: Sequence[float] | NDArray[np.float64],
    method: Method = "consensus",
) -> CaptionChoice | None:
    """Choose one of the neighbours' captions; None if none of them has one.

    An image's true caption is taken to be that of neighbour j with the probability w_j, its share
    of the votes of those that have a caption. The consensus is the caption i with the largest
    sum_j w_j * ROUGE-1(i, j), its own share among them; of equals the first, so that a neighbour
    which decides alone gives its own caption.

    Args:
        captions: Of the neighbours, most similar first; an empty one is none.
        weights: Of the neighbours, at least 0; all 0 stands for all the same.
        method: "consensus", or "nearest" for that of the first neighbour that has one.

    Raises:
        ValueError: The method is unknown, or there are not as many weights as captions.
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
