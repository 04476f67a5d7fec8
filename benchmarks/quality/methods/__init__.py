"""The methods by the names that the command line takes, in the order of the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from annotator.encoders.registry import DEFAULT
from annotator.errors import AnnotatorError
from annotator.fitting.recipe import ENCODER, Loss, Recipe
from benchmarks.quality.data import Method
from benchmarks.quality.methods import recipes
from benchmarks.quality.methods.cnn import Cnn
from benchmarks.quality.methods.cnn import Recipe as CnnRecipe
from benchmarks.quality.methods.estimator import Estimator
from benchmarks.quality.methods.finetuned import RECIPE, FineTuned, Rule
from benchmarks.quality.methods.logistic import Logistic
from benchmarks.quality.methods.mlknn import MLkNN
from benchmarks.quality.methods.ours import (
    SEVERAL,
    Heads,
    Nearest,
    Ours,
    OursFitted,
    head_alone,
    named,
)
from benchmarks.quality.methods.sklearn_knn import DistanceWeighted


@dataclass(frozen=True)
class Settings:
    """What methods are made with.

    Attributes:
        work: Folder for what is kept between runs.
        embedder: As for `--embedder`.
        epochs: Of the CNN.
        backbone: Another network to fine-tune; without it there is no such row.
        tuned: Recipe of the fine-tuned networks.
    """

    work: Path
    embedder: str
    epochs: int = 10
    backbone: str | None = None
    tuned: Recipe = RECIPE

    @property
    def to_fit(self) -> str:
        """The encoder that is fine-tuned, by us and by others: as `fit-encoder` has it."""
        return ENCODER if self.embedder == DEFAULT else self.embedder


Maker = Callable[[Settings], Method]

SEEDS = (0, 1, 2)


def _finetuned(
    rule: Rule,
    seeds: Sequence[int] = (0,),
    *,
    encoder: str | None = None,
    loss: Loss = "cross-entropy",
    longer: int = 1,
    early: bool = False,
) -> Maker:
    """Make a row of fine-tuned networks.

    Args:
        rule: As for `FineTuned`.
        seeds: As for `FineTuned`.
        encoder: Its network is tuned; None for the one that ours has.
        loss: As for `Recipe`.
        longer: Times the recipe's epochs.
        early: As for `FineTuned`.
    """

    def make(s: Settings) -> Method:
        recipe = replace(s.tuned, loss=loss, epochs=longer * s.tuned.epochs)
        network = encoder or s.to_fit
        return FineTuned(s.work, rule, seeds, recipe=recipe, encoder=network, early=early)

    return make


def _of_timm(s: Settings) -> Method:
    if s.backbone is None:
        raise AnnotatorError("Which network is to be tuned?", "Give --backbone timm:NAME@FILE.")
    return FineTuned(s.work, "expected F1", recipe=s.tuned, encoder=s.backbone)


_SEVERAL_NETWORKS = (
    "finetuned-seeds",
    "finetuned-seeds-half",
    "finetuned-union",
    "finetuned-intersection",
)
METHODS: dict[str, Maker] = {
    "most-frequent": lambda _: recipes.MostFrequent(),
    "nearest": lambda _: recipes.nearest(),
    "top-r": lambda _: recipes.top_r(),
    "relative-drop": lambda _: recipes.relative_drop(),
    "rank-weights": lambda _: recipes.rank_weights(),
    "rank-weights-tuned": lambda _: recipes.rank_weights_tuned(),
    "sklearn-knn": lambda _: DistanceWeighted(),
    "mlknn": lambda _: MLkNN(),
    "brknn-a": lambda _: recipes.brknn_a(),
    "brknn-b": lambda _: recipes.brknn_b(),
    "cnn": lambda s: Cnn(s.work, tuned=False, recipe=CnnRecipe(s.epochs)),
    "cnn-tuned": lambda s: Cnn(s.work, tuned=True, recipe=CnnRecipe(s.epochs)),
    "finetuned": _finetuned("threshold"),
    "finetuned-expected-f1": _finetuned("expected F1"),
    "finetuned-stopped": _finetuned("expected F1", early=True),
    "finetuned-half": _finetuned("half"),
    "finetuned-per-label": _finetuned("thresholds"),
    "finetuned-long": _finetuned("expected F1", longer=3),
    "finetuned-asymmetric": _finetuned("threshold", loss="asymmetric"),
    "finetuned-asymmetric-expected-f1": _finetuned("expected F1", loss="asymmetric"),
    "finetuned-small": _finetuned("expected F1", encoder=DEFAULT),
    "finetuned-lite1": _finetuned("expected F1", encoder="efficientnet-lite1@320"),
    "finetuned-timm": _of_timm,
    "finetuned-seeds": _finetuned("expected F1", SEEDS),
    "finetuned-seeds-half": _finetuned("half", SEEDS),
    "finetuned-union": _finetuned("union", SEEDS),
    "finetuned-intersection": _finetuned("intersection", SEEDS),
    "logistic": lambda _: Logistic(expected_f1=False),
    "logistic-expected-f1": lambda _: Logistic(expected_f1=True),
    "ours": lambda s: Ours("ours", named(s.embedder)),
    "ours-fitted": lambda s: OursFitted("ours, fitted encoder", s.work, s.to_fit, s.tuned),
    "ours-fitted-no-head": lambda s: OursFitted(
        "ours, fitted encoder, no heads", s.work, s.to_fit, s.tuned, fixed={"head_weight": 0.0}
    ),
    "ours-fitted-head-only": lambda s: Heads("heads alone", s.work, s.to_fit, s.tuned),
    "ours-estimator": lambda s: Estimator(named(s.embedder)().blocks),
    "ours-several": lambda _: Ours("ours, two encoders, two sizes", named(SEVERAL)),
    "ours-untuned": lambda s: Ours("ours, not tuned", named(s.embedder), tuning=False),
    "ours-head": lambda _: Ours("ours without the stages", head_alone),
    "ours-looks": lambda s: Ours("ours without concepts", named(s.embedder), adaptation="looks"),
    "ours-raw": lambda s: Ours("ours without projection", named(s.embedder), adaptation="none"),
    "ours-uniform": lambda s: Ours(
        "ours without kernel", named(s.embedder), fixed={"kernel": "uniform"}
    ),
    "ours-no-prior": lambda s: Ours("ours without prior", named(s.embedder), fixed={"prior": 0.0}),
    "ours-threshold": lambda s: Ours(
        "ours without expected F1", named(s.embedder), fixed={"decider": "threshold"}
    ),
    "ours-nearest": lambda s: Nearest("ours without vote (nearest)", named(s.embedder)),
}

# A single network: each of these is what one person would train.
SINGLE = tuple(
    key for key in METHODS if key.startswith("finetuned") and key not in _SEVERAL_NETWORKS
)
