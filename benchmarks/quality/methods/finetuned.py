"""Fine-tuned classifiers: one network or several seeds, each with the decisions that people take.

Thresholds are chosen on predictions out of fold, by networks that have seen none of an image's
group; the sets with the highest expected F1 need no such predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.registry import DEFAULT
from annotator.fitting.recipe import Recipe
from benchmarks.quality.data import Data
from benchmarks.quality.labels import best_threshold, best_thresholds, f1_of_rows
from benchmarks.quality.methods.expected_f1 import expected_f1_sets
from benchmarks.quality.methods.networks import Floats, Networks

RECIPE = Recipe()
Rule = Literal["threshold", "thresholds", "half", "expected F1", "union", "intersection"]

_RULES: dict[Rule, str] = {
    "threshold": "tuned threshold",
    "thresholds": "a threshold for each concept",
    "half": "threshold 0.5",
    "expected F1": "expected F1",
    "union": "union, tuned threshold",
    "intersection": "intersection, tuned threshold",
}
_TITLES = {
    "efficientnet-lite0": "EfficientNet-Lite0",
    "efficientnet-lite1": "EfficientNet-Lite1",
}


class FineTuned:
    """A fine-tuned network, or some, with a rule that turns probabilities into sets.

    Args:
        folder: Where networks are kept.
        rule: "half" and "threshold" (chosen out of fold) are one threshold for all concepts;
            "thresholds" are one for each, by coordinate search out of fold. "union" and
            "intersection" are of the sets of each network, at the threshold of the first; the other
            rules decide by the networks' mean probability.
        seeds: One network for each.
        recipe: How they are trained.
        encoder: The pretrained network, as for `load_encoder`.
        early: Stop after the epoch that was best on groups held out, of a network of the first
            seed.

    Attributes:
        vocabulary: The concepts, in the order of the columns below.
        out_of_fold: float32[n, concepts], probabilities of the training side, after `fit` with a
            rule that needs them: by networks of the first seed.
    """

    def __init__(
        self,
        folder: Path,
        rule: Rule = "threshold",
        seeds: Sequence[int] = (0,),
        *,
        recipe: Recipe = RECIPE,
        encoder: str = DEFAULT,
        early: bool = False,
    ) -> None:
        self._early = early
        self._folder, self._recipe, self._encoder = folder, recipe, encoder
        self._rule: Rule = rule
        self._seeds = seeds
        self.name = _title(encoder, recipe, rule, len(seeds), early)
        self.chosen: dict[str, Any] = {}

    def fit(self, train: Data) -> None:
        """Train, or take what is kept; choose thresholds."""
        self._networks = networks = Networks(self._folder, self._encoder, self._recipe, train)
        self.vocabulary, truth = networks.vocabulary, networks.truth
        stop = networks.best_epoch(self._seeds[0]) if self._early else None
        self._models = [networks.trained(seed, stop) for seed in self._seeds]
        self.chosen = {"epochs": stop or self._recipe.epochs, "seeds": len(self._seeds)}
        self._threshold: float | NDArray[np.float64] = 0.5
        if self._rule in ("half", "expected F1"):
            return
        self.out_of_fold = networks.out_of_fold(self._seeds[0])
        found = best_thresholds if self._rule == "thresholds" else best_threshold
        self._threshold = found(truth, self.out_of_fold)
        f1 = f1_of_rows(truth, self.out_of_fold >= self._threshold).mean()
        self.chosen |= {
            "threshold": np.round(np.mean(self._threshold), 4).item(),
            "f1_on_training_side": round(float(f1), 4),
        }

    def predict(self, test: Data) -> list[set[str]]:
        """Probabilities, then sets."""
        return self.vocabulary.sets(self._decide(self._opinions(test)))

    def probabilities(self, data: Data) -> Floats:
        """float32[n, concepts], the mean of the networks."""
        mean: Floats = self._opinions(data).mean(axis=0)
        return mean

    def _opinions(self, data: Data) -> Floats:
        """float32[networks, n, concepts]."""
        return np.stack([self._networks.probabilities(model, data) for model in self._models])

    def _decide(self, opinions: Floats) -> NDArray[np.bool_]:
        """bool[n, concepts]."""
        if self._rule == "expected F1":
            return expected_f1_sets(opinions.mean(axis=0))[0]
        pool = {"union": np.max, "intersection": np.min}.get(self._rule, np.mean)
        chosen: NDArray[np.bool_] = pool(opinions, axis=0) >= self._threshold
        return chosen


def _title(encoder: str, recipe: Recipe, rule: Rule, networks: int, early: bool) -> str:
    backbone, _, size = encoder.removeprefix("timm:").partition("@")
    what = [_TITLES.get(backbone, backbone)]
    if backbone in _TITLES and size:
        what[0] += f" at {size} px"
    what.append("fine-tuned")
    if recipe.epochs != RECIPE.epochs:
        what.append(f"{recipe.epochs} epochs")
    if early:
        what.append("early stopping")
    if recipe.loss != RECIPE.loss:
        what.append(f"{recipe.loss} loss")
    if networks > 1:
        what.append(f"{networks} seeds")
    return ", ".join([*what, _RULES[rule]])
