"""The product's model as a scikit-learn estimator, on the same vectors as its peers there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.quality.data import Data


class Estimator:
    """`ConceptKNN`, which tunes itself.

    Args:
        blocks: Lengths of the parts of a vector that get equal weight.
    """

    name = "ConceptKNN, our estimator"

    def __init__(self, blocks: Sequence[int]) -> None:
        self.chosen: dict[str, Any] = {}
        self._blocks = blocks

    def fit(self, train: Data) -> None:
        """Fit and tune on the training side."""
        from annotator.knn.estimator import ConceptKNN

        self._model = ConceptKNN(blocks=self._blocks)
        self._model.fit(train.vectors(), train.labels, groups=train.groups.tolist())
        self.chosen = asdict(self._model.voting_)
        if self._model.tuned_ is not None:
            self.chosen["f1_on_training_side"] = round(self._model.tuned_.f1, 4)

    def predict(self, test: Data) -> list[set[str]]:
        """Its sets."""
        return [set(found) for found in self._model.predict_concepts(test.vectors())]
