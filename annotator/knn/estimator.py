"""`ConceptKNN`: the model of an index as a scikit-learn estimator over vectors."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Collection, Hashable, Iterator, Sequence, Set
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from annotator.knn.cross_validation import LEAST_IMAGES
from annotator.knn.decision import choose_concepts
from annotator.knn.model import Adaptation, fit_model
from annotator.knn.posterior import Posterior, count_votes, weigh
from annotator.knn.voting import Decider, Kernel, Voting
from index import FlatIndex, LabelTable
from index.distribution import pip_install

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f"ConceptKNN needs scikit-learn, which is not installed: {pip_install('sklearn')}"
    ) from error

if TYPE_CHECKING:
    from annotator.knn.grid_search import Tuned
    from annotator.knn.joint_projection import JointProjection
    from annotator.knn.projection import Projection

_Kind = Literal["one", "indicator", "sets"]

_QUERIES_AT_ONCE = 256
_UNIT = 1e-6  # rounding of a norm in float32


class ConceptKNN(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Nearest labelled vectors vote on sets of concepts; a multi-label classifier.

    What `build_index` fits and `Annotator` decides, without images: a projection fitted to the
    vectors and concepts, weighted votes of the nearest cases, the set of concepts with the highest
    expected F1. Parameters that are None are tuned in `fit`, by cross-validation over groups, if
    there are 50 samples or more.

    Only the direction of a vector counts: rows of X are brought to unit norm. A row of zeros has
    none; it is taken for the first axis, with a warning.

    Y is a binary indicator matrix (`classes_` are its columns by number, or the names of a
    DataFrame's); or a list of sets or lists of labels, of which a case may have any number; or,
    with one label a sample, a vector, which makes it an ordinary classifier whose answer is the
    label with the most votes.

    Args:
        n_neighbors: Number of voting neighbours.
        kernel: Weight of a neighbour by its similarity; see `Voting` for this and the next ones.
        beta: Sharpness of the kernel.
        prior: Weight of the prior, in typical neighbours.
        decider: "expected-f1", "threshold", "top-r" or, which needs tuning, "macro-f1".
        threshold: For "threshold": least share of the votes.
        top_r: For "top-r": number of concepts; None for the neighbours' mean number.
        min_score: Least share of the votes, whatever the decider.
        adaptation: "auto" fits a projection to vectors and concepts, "looks" to vectors alone,
            "none" keeps the vectors.
        tune: Whether to tune; otherwise parameters that are None have the defaults of `Voting`.
        blocks: Lengths of the parts of a vector that get equal weight, such as `Embedder.blocks`;
            None for one part.

    Attributes:
        classes_: Labels, in the order of the columns of `predict` and `predict_proba`.
        n_features_in_: Length of the vectors.
        feature_names_in_: Names of the columns of X, if it was a DataFrame.
        n_samples_fit_: Number of cases.
        voting_: The parameters of the vote.
        projection_: The projection; None for the identity.
        tuned_: Result of tuning with its out-of-sample F1; None without tuning.
    """

    classes_: NDArray[Any]
    n_samples_fit_: int
    voting_: Voting
    projection_: Projection | JointProjection | None
    tuned_: Tuned | None
    _kind: _Kind
    _labels: LabelTable
    _vectors: NDArray[np.float32]

    def __init__(
        self,
        n_neighbors: int | None = None,
        *,
        kernel: Kernel | None = None,
        beta: float | None = None,
        prior: float | None = None,
        decider: Decider | None = None,
        threshold: float | None = None,
        top_r: int | None = None,
        min_score: float = 0.0,
        adaptation: Adaptation = "auto",
        tune: bool = True,
        blocks: Sequence[int] | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.kernel = kernel
        self.beta = beta
        self.prior = prior
        self.decider = decider
        self.threshold = threshold
        self.top_r = top_r
        self.min_score = min_score
        self.adaptation = adaptation
        self.tune = tune
        self.blocks = blocks

    def fit(self, X: Any, y: Any, groups: Sequence[Hashable] | None = None) -> ConceptKNN:
        """Fit the projection, tune, and take in the cases.

        Args:
            X: [n, dim].
            y: See the class.
            groups: Patient, study or figure of each sample, across which is tuned; None or "" for a
                sample that is a group of its own.

        Raises:
            ValueError: X or y is malformed, or a parameter is out of range.
        """
        return self._fit(X, y, groups, None)

    def partial_fit(
        self,
        X: Any,
        y: Any,
        classes: Collection[Any] | None = None,
        groups: Sequence[Hashable] | None = None,
    ) -> ConceptKNN:
        """Add cases, which vote from now on; projection and parameters stay as they are.

        The first call is `fit`. New labels in sets get the next columns.

        Args:
            X: [n, dim].
            y: As for `fit`.
            classes: In the first call: labels that are yet to come.
            groups: As for `fit`; not used for cases that are added.

        Raises:
            ValueError: As for `fit`, or y is of another kind than before.
        """
        if not hasattr(self, "classes_"):
            return self._fit(X, y, groups, classes)
        vectors, kind, labels, rows = self._read(X, y, reset=False)
        if kind != self._kind:
            raise ValueError(f"y is {_KINDS[kind]}, but was {_KINDS[self._kind]}")
        known = {label: j for j, label in enumerate(self.classes_.tolist())}
        new = [label for label in labels if label not in known]
        if new and kind == "one":
            raise ValueError(f"y holds {new[0]!r}, which is not one of the classes")
        if kind == "indicator" and labels != self.classes_.tolist():
            raise ValueError(f"y has the columns {labels}, but had {self.classes_.tolist()}")
        known |= {label: j for j, label in enumerate(new, len(known))}
        at = [known[label] for label in labels]
        self.classes_ = _as_classes(list(known))
        added = _table([[at[j] for j in row] for row in rows])
        self._labels = LabelTable.joined([self._labels, added])
        self._vectors = np.concatenate([self._vectors, self._project(vectors)])
        self.n_samples_fit_ = len(self._vectors)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Indicator matrix int64[n, len(classes_)] of the chosen sets; of vectors y, the labels."""
        if self._fitted()._kind == "one":
            return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])
        chosen = self._decide(X)
        result = np.zeros((len(chosen), len(self.classes_)), np.int64)
        for row, columns in zip(result, chosen, strict=True):
            row[columns] = 1
        return result

    def predict_concepts(self, X: Any) -> list[tuple[Any, ...]]:
        """The labels chosen for each sample, highest share of the votes first."""
        if self._fitted()._kind == "one":
            return [(label,) for label in self.predict(X).tolist()]
        labels = self.classes_.tolist()
        return [tuple(labels[j] for j in columns) for columns in self._decide(X)]

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Share of the votes of each label, float64[n, len(classes_)], in 0..1.

        Shares are marginal: those of one sample sum to its expected number of labels.
        """
        columns = np.array([int(id_) for id_ in self._fitted()._labels.cuis], np.int64)
        parts = [np.zeros((0, len(self.classes_)))]
        for posterior in self._posteriors(X):
            votes = count_votes(posterior)
            shares = np.zeros((len(posterior), len(self.classes_)))
            shares[votes.candidate_image, columns[votes.candidate_cui]] = votes.scores
            parts.append(shares)
        return np.concatenate(parts).clip(0.0, 1.0)

    def kneighbors(
        self,
        X: Any = None,
        n_neighbors: int | None = None,
        return_distance: bool = True,
    ) -> Any:
        """The nearest cases, in the space of the projection.

        Args:
            X: [n, dim]; None for the cases themselves, none of which is its own neighbour.
            n_neighbors: How many; None for `voting_.k`, or all cases if there are fewer.
            return_distance: Whether to return the distances.

        Returns:
            Cosine distances float32[n, n_neighbors], ascending, and the numbers of the cases
            int64[n, n_neighbors] in the order in which they came; or the latter alone.

        Raises:
            ValueError: There are fewer cases, or X is malformed.
        """
        others = len(self._fitted()._vectors) - (X is None)
        k = min(self.voting_.k, others) if n_neighbors is None else operator.index(n_neighbors)
        if not 1 <= k <= others:
            raise ValueError(f"n_neighbors is {k}, but there are {others} cases")
        vectors = self._vectors if X is None else self._queries(X)
        found = FlatIndex(self._vectors).search(vectors, k + (X is None))
        if X is None:
            found = found.without(found.rows == np.arange(len(vectors))[:, None], k)
        if not return_distance:
            return found.rows
        return np.maximum(1 - found.similarities, 0), found.rows

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of the samples whose label, or whole set of labels, is right, as in scikit-learn.

        `scoring="f1_samples"` is what the set of highest expected F1 is made for.
        """
        truth = _label_sets(y)
        if truth is None:
            return float(super().score(X, y, sample_weight))
        found = self.predict_concepts(X)
        right = [set(a) == set(b) for a, b in zip(found, truth, strict=True)]
        return float(np.average(right, weights=sample_weight))

    def _fit(
        self,
        X: Any,
        y: Any,
        groups: Sequence[Hashable] | None,
        classes: Collection[Any] | None,
    ) -> ConceptKNN:
        vectors, kind, labels, rows = self._read(X, y, reset=True)
        if classes is not None and kind != "indicator":
            wanted = _sorted({*classes, *labels} if kind == "sets" else set(classes))
            position = {label: j for j, label in enumerate(wanted)}
            if unknown := [label for label in labels if label not in position]:
                raise ValueError(f"y holds {unknown[0]!r}, which is not one of the classes")
            rows = [[position[labels[j]] for j in row] for row in rows]
            labels = wanted
        if groups is None:
            groups = [""] * len(vectors)
        check_consistent_length(vectors, groups)
        given = self._given()
        model = fit_model(
            vectors,
            [[_id(j) for j in row] for row in rows],
            ["" if group is None else str(group) for group in groups],
            blocks=[vectors.shape[1]] if self.blocks is None else list(self.blocks),
            adaptation=self.adaptation,
            tuning=self.tune,
            voting=Voting(**given, min_score=float(self.min_score)),
            fixed=tuple(given) or ("min_score",),
        )
        if model.voting.decider == "macro-f1" and model.voting.macro_thresholds is None:
            raise ValueError(
                f"the decider macro-f1 needs tuning on {LEAST_IMAGES} samples of several groups"
            )
        self._kind = kind
        self.classes_ = _as_classes(labels)
        self.voting_ = model.voting
        self.tuned_ = model.tuned
        self.projection_ = model.projection
        self._labels = _table(rows)
        self._vectors = self._project(vectors)
        self.n_samples_fit_ = len(vectors)
        return self

    def _given(self) -> dict[str, Any]:
        """The parameters of the vote that are not to be tuned, as Python's own numbers."""
        if self.adaptation not in ("auto", "looks", "none"):
            raise ValueError(f"adaptation cannot be {self.adaptation!r}")
        given = {
            "k": None if self.n_neighbors is None else operator.index(self.n_neighbors),
            "kernel": self.kernel,
            "beta": None if self.beta is None else float(self.beta),
            "prior": None if self.prior is None else float(self.prior),
            "decider": self.decider,
            "threshold": None if self.threshold is None else float(self.threshold),
            "top_r": None if self.top_r is None else operator.index(self.top_r),
        }
        return {name: value for name, value in given.items() if value is not None}

    def _read(
        self, X: Any, y: Any, *, reset: bool
    ) -> tuple[NDArray[np.float32], _Kind, list[Any], list[list[int]]]:
        """Unit vectors; what y is; its labels, and the positions of those that each row has."""
        sets = _label_sets(y)
        if sets is not None:
            X = validate_data(self, X, dtype=[np.float64, np.float32], reset=reset)
            check_consistent_length(X, sets)
            labels = _sorted({label for row in sets for label in row})
            position = {label: j for j, label in enumerate(labels)}
            rows = [sorted({position[label] for label in row}) for row in sets]
            return _unit(X), "sets", labels, rows
        names = [str(name) for name in y.columns] if hasattr(y, "columns") else None
        X, y = validate_data(
            self, X, y, dtype=[np.float64, np.float32], multi_output=True, reset=reset
        )
        check_classification_targets(y)
        kind = type_of_target(y)
        if kind == "multilabel-indicator":
            matrix = y.toarray() if hasattr(y, "toarray") else np.asarray(y)
            rows = [np.flatnonzero(row).tolist() for row in matrix]
            columns: list[Any] = names or list(range(matrix.shape[1]))
            return _unit(X), "indicator", columns, rows
        if kind not in ("binary", "multiclass"):
            raise ValueError(
                f"y of the kind {kind} is not supported: give a matrix of 0 and 1, or sets"
            )
        from sklearn.utils import column_or_1d

        values, codes = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        return _unit(X), "one", values.tolist(), [[j] for j in codes.tolist()]

    def _fitted(self) -> ConceptKNN:
        check_is_fitted(self)
        return self

    def _project(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return vectors if self.projection_ is None else self.projection_.apply(vectors)

    def _queries(self, X: Any) -> NDArray[np.float32]:
        valid = validate_data(self._fitted(), X, dtype=[np.float64, np.float32], reset=False)
        return self._project(_unit(valid))

    def _posteriors(self, X: Any) -> Iterator[Posterior]:
        """Posteriors of the samples, a few at a time."""
        queries, cases = self._queries(X), FlatIndex(self._vectors)
        k = min(self.voting_.k, len(self._vectors))
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            found = cases.search(queries[start : start + _QUERIES_AT_ONCE], k)
            yield weigh(found, self._labels, self.voting_)

    def _decide(self, X: Any) -> list[list[int]]:
        """The columns of the chosen labels of each sample, highest share of the votes first."""
        self._fitted()
        return [
            [int(id_) for id_ in decision.cuis]
            for posterior in self._posteriors(X)
            for decision in choose_concepts(posterior, self.voting_)
        ]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.target_tags.multi_output = True
        return tags


_KINDS: dict[_Kind, str] = {
    "one": "a vector of labels",
    "indicator": "an indicator matrix",
    "sets": "a list of sets",
}


def _label_sets(y: Any) -> list[tuple[Any, ...]] | None:
    """The labels of each sample if y is a list of sets or lists of them; None if it is an array."""
    if y is None or isinstance(y, (str, bytes)) or getattr(y, "ndim", 1) != 1:
        return None
    try:
        rows = list(y)
    except TypeError:
        return None
    if not rows or not all(isinstance(row, (Set, tuple, list, np.ndarray)) for row in rows):
        return None
    sets = [tuple(row) for row in rows]
    if not any(isinstance(row, Set) for row in rows) and len({len(row) for row in sets}) == 1:
        values = {value for row in sets for value in row if isinstance(value, Hashable)}
        if all(isinstance(value, (int, float, np.number, np.bool_)) for value in values):
            return None  # a matrix of numbers, as nested lists
    return sets


def _unit(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Rows of unit norm, float32; those that have it stay as they are, bit for bit.

    A row of zeros becomes the first axis, with a warning.
    """
    largest = np.abs(vectors).max(axis=1).astype(np.float64)
    zero = np.flatnonzero(largest == 0)
    if len(zero):
        warnings.warn(
            f"{len(zero)} rows of X are zero and so have no direction, the first of them row "
            f"{zero[0]}; the first axis is taken for them",
            stacklevel=3,
        )
    scaled = vectors / np.where(largest > 0, largest, 1.0)[:, None]  # its squares are finite
    scaled[zero, 0] = 1.0
    norms = np.linalg.norm(scaled, axis=1)
    is_unit = np.abs(norms * largest - 1) < _UNIT
    unit = np.where(is_unit[:, None], vectors, scaled / norms[:, None])
    return unit.astype(np.float32, order="C")


def _sorted(labels: Collection[Any]) -> list[Any]:
    try:
        return sorted(labels)
    except TypeError:
        raise ValueError("labels of different types cannot be sorted: use one type") from None


def _as_classes(labels: list[Any]) -> NDArray[Any]:
    """An array of labels, also where they are tuples or of no type of NumPy's."""
    classes = np.asarray(labels)
    if classes.shape != (len(labels),) or classes.tolist() != labels:
        classes = np.empty(len(labels), object)
        classes[:] = labels
    return classes


def _id(column: int) -> str:
    """A column as a concept id; ids are in the order of the columns."""
    return f"{column:09d}"


def _table(rows: Sequence[Sequence[int]]) -> LabelTable:
    return LabelTable.from_sets([[_id(j) for j in row] for row in rows])
