"""Voting parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Kernel = Literal["exponential", "inverse", "rank", "uniform"]
Decider = Literal["expected-f1", "threshold", "top-r", "macro-f1"]
Objective = Literal["f1", "macro-f1"]

BANDS = ("1-3", "4-19", "20-99", "100 or more")  # images of a concept
_BAND_STARTS = (4, 20, 100)


@dataclass(frozen=True)
class Voting:
    """Parameters of the vote of neighbours on concepts.

    The defaults suit projected vectors of a mixed set of radiological images (docs/accuracy.md);
    raw encoder vectors are closer together and need a larger beta.

    Attributes:
        k: Number of voting neighbours.
        beta: Sharpness of the kernel.
        kernel: "exponential", "inverse", "rank" or "uniform" (`posterior.weigh`).
        prior: Weight of the prior, in typical neighbours.
        typical: Similarity of a typical image to its nearest neighbour; the unit of `prior`.
        decider: "expected-f1" takes the set of concepts with the highest expected F1; "threshold"
            those with at least `threshold` of the votes; "top-r" the `top_r` with the most votes;
            "macro-f1" those with the least share of the votes that `macro_thresholds` sets.
        threshold: For "threshold": minimum share of the votes.
        top_r: For "top-r": number of concepts; None for the rounded weighted mean number of the
            neighbours (as in AUEB's submissions of 2019 and 2020, there with equal weights).
        macro_thresholds: For "macro-f1": minimum share of the votes of a concept with 1 to 3, 4 to
            19, 20 to 99, and 100 images or more in the index (`annotator.knn.macro_f1`), at most
            1/2; None before tuning.
        min_score: Minimum share of the votes, applied after any decider.
        head_weight: How much a neighbour counts by what the encoder's heads say of its concepts
            (`annotator.knn.head`); 0 for not at all. Without effect for encoders without heads.
        assume_incomplete: Whether each case votes also with what its own neighbours fill in
            (`annotator.knn.incomplete`), in an index that was built so.

    Raises:
        ValueError: A parameter is out of range.
    """

    k: int = 50
    beta: float = 12.0
    kernel: Kernel = "exponential"
    prior: float = 0.0
    typical: float = 1.0
    decider: Decider = "expected-f1"
    threshold: float = 0.35
    top_r: int | None = None
    macro_thresholds: tuple[float, ...] | None = None
    min_score: float = 0.0
    head_weight: float = 0.0
    assume_incomplete: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.macro_thresholds, list):  # from JSON
            object.__setattr__(self, "macro_thresholds", tuple(self.macro_thresholds))
        ranges = {
            "k": _is_number(self.k, int) and self.k >= 1,
            "beta": _is_number(self.beta) and 0 <= self.beta < math.inf,
            "kernel": self.kernel in get_args(Kernel),
            "prior": _is_number(self.prior) and 0 <= self.prior < math.inf,
            "typical": _is_number(self.typical) and -1 <= self.typical <= 1 + 1e-6,
            "decider": self.decider in get_args(Decider),
            "threshold": _is_number(self.threshold) and 0 <= self.threshold <= 1,
            "top_r": self.top_r is None or (_is_number(self.top_r, int) and self.top_r >= 0),
            "macro_thresholds": self.macro_thresholds is None
            or (
                isinstance(self.macro_thresholds, tuple)
                and len(self.macro_thresholds) == len(BANDS)
                and all(_is_number(t) and 0 <= t <= 0.5 for t in self.macro_thresholds)
            ),
            "min_score": _is_number(self.min_score) and 0 <= self.min_score <= 1,
            "head_weight": _is_number(self.head_weight) and 0 <= self.head_weight < math.inf,
            "assume_incomplete": isinstance(self.assume_incomplete, bool),
        }
        for name, fits in ranges.items():
            if not fits:
                raise ValueError(f"{name} cannot be {getattr(self, name)!r}")


def frequency_bands(frequencies: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position in `BANDS` of concepts by their number of images, int64[c]."""
    return np.searchsorted(_BAND_STARTS, frequencies, side="right")


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds or (int, float)) and not isinstance(value, bool)
