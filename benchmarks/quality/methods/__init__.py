"""The methods by the names that the command line takes, in the order of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.quality.data import Method
from benchmarks.quality.methods import recipes
from benchmarks.quality.methods.cnn import Cnn, Recipe
from benchmarks.quality.methods.estimator import Estimator
from benchmarks.quality.methods.finetuned import FineTuned
from benchmarks.quality.methods.logistic import Logistic
from benchmarks.quality.methods.mlknn import MLkNN
from benchmarks.quality.methods.ours import SEVERAL, Nearest, Ours, head_alone, named
from benchmarks.quality.methods.sklearn_knn import DistanceWeighted


@dataclass(frozen=True)
class Settings:
    """What methods are made with.

    Attributes:
        work: Folder for what is kept between runs.
        embedder: As for `--embedder`.
        epochs: Of the CNN.
    """

    work: Path
    embedder: str
    epochs: int = 10


Maker = Callable[[Settings], Method]

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
    "cnn": lambda s: Cnn(s.work, tuned=False, recipe=Recipe(s.epochs)),
    "cnn-tuned": lambda s: Cnn(s.work, tuned=True, recipe=Recipe(s.epochs)),
    "finetuned": lambda s: FineTuned(s.work),
    "logistic": lambda _: Logistic(expected_f1=False),
    "logistic-expected-f1": lambda _: Logistic(expected_f1=True),
    "ours": lambda s: Ours("ours", named(s.embedder)),
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
