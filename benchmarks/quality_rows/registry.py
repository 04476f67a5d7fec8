"""The rows by the names that the command line takes, in the order of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quality_rows import multilabel_knn, published
from quality_rows.cnn import Cnn, Recipe
from quality_rows.data import Row
from quality_rows.logistic import Logistic
from quality_rows.ours import SEVERAL, Nearest, Ours, fixed, head_alone, named
from quality_rows.topics import Topics
from quality_rows.visual import VisualWords


@dataclass(frozen=True)
class Settings:
    """What rows are made with.

    Attributes:
        work: Folder for what is kept between runs.
        embedder: As for `--embedder`.
        epochs: Of the CNN.
    """

    work: Path
    embedder: str
    epochs: int = 10


Maker = Callable[[Settings], Row]

ROWS: dict[str, Maker] = {
    "most-frequent": lambda _: published.MostFrequent(),
    "visual-words": lambda _: VisualWords(),
    "nearest": lambda _: published.nearest(),
    "topics": lambda _: Topics(),
    "top-r": lambda _: published.top_r(),
    "relative-drop": lambda _: published.relative_drop(),
    "rank-weights": lambda _: published.rank_weights(),
    "rank-weights-tuned": lambda _: published.rank_weights_tuned(),
    "sklearn-knn": lambda _: multilabel_knn.DistanceWeighted(),
    "mlknn": lambda _: multilabel_knn.MLkNN(),
    "brknn-a": lambda _: multilabel_knn.brknn_a(),
    "brknn-b": lambda _: multilabel_knn.brknn_b(),
    "cnn": lambda s: Cnn(s.work, tuned=False, recipe=Recipe(s.epochs)),
    "cnn-tuned": lambda s: Cnn(s.work, tuned=True, recipe=Recipe(s.epochs)),
    "logistic": lambda _: Logistic(expected_f1=False),
    "logistic-expected-f1": lambda _: Logistic(expected_f1=True),
    "ours": lambda s: Ours("ours", named(s.embedder)),
    "ours-several": lambda _: Ours("ours, two encoders, two sizes", named(SEVERAL)),
    "ours-untuned": lambda s: Ours("ours, not tuned", named(s.embedder), tuning=False),
    "ours-head": lambda _: Ours("ours without the stages", head_alone),
    "ours-looks": lambda s: Ours("ours without concepts", named(s.embedder), adaptation="looks"),
    "ours-raw": lambda s: Ours("ours without projection", named(s.embedder), adaptation="none"),
    "ours-uniform": lambda s: Ours(
        "ours without kernel", named(s.embedder), **fixed(kernel="uniform")
    ),
    "ours-no-prior": lambda s: Ours("ours without prior", named(s.embedder), **fixed(prior=0.0)),
    "ours-threshold": lambda s: Ours(
        "ours without expected F1", named(s.embedder), **fixed(decider="threshold")
    ),
    "ours-nearest": lambda s: Nearest("ours without vote (nearest)", named(s.embedder)),
}
