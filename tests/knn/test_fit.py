"""The fitted projection against plain closed forms in float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from annotator.knn.fit import SUPERVISED, UNSUPERVISED, WHITENING, Fitter, Sums, _by_sums
from annotator.knn.projection import Projection, standardised
from index import LabelTable


def unit_vectors(n: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    """Correlated numbers around a mean that is not zero."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim)) + 2 * rng.normal(size=dim)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def draw_concepts(n: int, vocabulary: int, each: int, seed: int = 1) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(vocabulary, rng.integers(0, each + 1), replace=False) for _ in range(n)]
    return [[f"C{c:04d}" for c in row] for row in chosen]


def indicators(concepts: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """float64[n, c] of the concepts of more than one row and not of all."""
    counts = Counter(cui for row in concepts for cui in set(row))
    useful = sorted(cui for cui, count in counts.items() if 1 < count < len(concepts))
    return np.array([[cui in row for cui in useful] for row in map(set, concepts)], np.float64)


def supervised(projection: Projection, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64[n, columns]: the second part before it is brought to unit norm."""
    z = standardised(vectors, projection.mean, projection.scale)
    projected: NDArray[np.float64] = z @ projection.matrix.astype(np.float64) - projection.shift
    return projected[:, projection.unsupervised :]


def predictions(
    projection: Projection,
    vectors: NDArray[np.float32],
    concepts: Sequence[Sequence[str]],
    penalty: float,
    rows: NDArray[np.intp] | None = None,
) -> NDArray[np.float64]:
    """What scikit-learn's ridge regression on z, fitted to `rows`, says of all, less its mean."""
    z = standardised(vectors, projection.mean, projection.scale)
    y = indicators(concepts)
    chosen = slice(None) if rows is None else rows
    ridge = Ridge(alpha=penalty, solver="cholesky").fit(z[chosen], y[chosen])
    predicted: NDArray[np.float64] = z @ np.atleast_2d(ridge.coef_).T
    predicted -= predicted.mean(axis=0)
    return predicted


def relative_error(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# The regression


@pytest.mark.parametrize(
    ("n", "dim", "penalty"), [(200, 16, 0.3), (60, 150, 10.0), (5000, 64, 1.0)]
)
def test_supervised_components_are_a_ridge_regression(
    n: int, dim: int, penalty: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, concepts = unit_vectors(n, dim), draw_concepts(n, 12, 4)
    monkeypatch.setattr("annotator.knn.fit._ROWS_AT_ONCE", 3000)  # 5,000 are summed in two parts
    fitter = Fitter(vectors, LabelTable.from_sets(concepts), [dim])
    projection = fitter.projection(penalty)
    found = supervised(projection, vectors)
    expected = predictions(projection, vectors, concepts, penalty)
    assert found.shape == expected.shape == (n, 12)
    assert relative_error(found @ found[:100].T, expected @ expected[:100].T) < 1e-4


def test_the_regression_sees_the_first_principal_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annotator.knn.fit._MOST_AXES", 12)
    vectors, concepts = unit_vectors(200, 30), draw_concepts(200, 10, 4)
    projection = Fitter(vectors, LabelTable.from_sets(concepts), [30]).projection(1.0)
    z = standardised(vectors, projection.mean, projection.scale)
    coordinates = PCA(12, svd_solver="full").fit_transform(z)
    ridge = Ridge(alpha=1.0, solver="cholesky").fit(coordinates, indicators(concepts))
    expected = coordinates @ ridge.coef_.T
    found = supervised(projection, vectors)
    assert relative_error(found @ found.T, expected @ expected.T) < 1e-4


def test_the_axes_that_are_dropped_are_the_smallest() -> None:
    """Of z z' products none changes by more than the largest variance that was dropped."""
    n, dim = 400, 280
    numbers = np.random.default_rng(0).normal(size=(n, dim))  # no axis that hardly varies
    vectors = (numbers / np.linalg.norm(numbers, axis=1, keepdims=True)).astype(np.float32)
    concepts = draw_concepts(n, 300, 12)
    projection = Fitter(vectors, LabelTable.from_sets(concepts), [dim]).projection(1.0)
    kept = projection.matrix[:, projection.unsupervised :].astype(np.float64)
    z = standardised(vectors, projection.mean, projection.scale)
    weights = Ridge(alpha=1.0, solver="cholesky").fit(z, indicators(concepts)).coef_.T
    assert weights.shape[1] > SUPERVISED and kept.shape == (dim, SUPERVISED)
    values = np.linalg.eigvalsh(weights @ weights.T)[::-1]
    lost = np.abs(np.linalg.eigvalsh(weights @ weights.T - kept @ kept.T)).max()
    assert lost == pytest.approx(values[SUPERVISED], abs=1e-4 * values[0])
    assert values[SUPERVISED] < values[SUPERVISED - 1]


def test_the_most_frequent_concepts_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of equally frequent ones those of the first rows."""
    monkeypatch.setattr("annotator.knn.fit._MOST_CONCEPTS", 9)
    vectors, concepts = unit_vectors(250, 12), draw_concepts(250, 30, 4)
    labels = LabelTable.from_sets(concepts)
    rows = {cui: labels.holders(cui).tolist() for cui in labels.cuis}
    top = sorted(rows, key=lambda cui: (-len(rows[cui]), rows[cui]))[:9]
    of_top = [[cui for cui in row if cui in top] for row in concepts]
    whole, expected = (
        Fitter(vectors, LabelTable.from_sets(sets), [12]).projection(1.0)
        for sets in (concepts, of_top)
    )
    assert whole.matrix.tobytes() == expected.matrix.tobytes()
    assert whole.matrix.shape[1] == whole.unsupervised + 9


@pytest.mark.parametrize("n", [20, 300])  # fewer, and more, than the regression's components
def test_by_whatever_ids_the_concepts_go(n: int) -> None:
    vectors, concepts = unit_vectors(400, 12), draw_concepts(400, n, 4)
    other = {cui: f"{cui[::-1]}" for row in concepts for cui in row}
    one, two = (
        Fitter(vectors, LabelTable.from_sets(sets), [12]).projection(1.0)
        for sets in (concepts, [[other[cui] for cui in row] for row in concepts])
    )
    assert one.matrix.tobytes() == two.matrix.tobytes()


def test_concepts_of_one_row_or_of_all_say_nothing() -> None:
    vectors, concepts = unit_vectors(80, 8), draw_concepts(80, 5, 2)
    more = [["A-all", *row] + (["Z-one"] if i == 3 else []) for i, row in enumerate(concepts)]
    plain, other = (
        Fitter(vectors, LabelTable.from_sets(sets), [8]).projection(1.0)
        for sets in (concepts, more)
    )
    assert plain.matrix.tobytes() == other.matrix.tobytes()


@pytest.mark.parametrize("concepts", [[[]] * 60, [["C1"]] * 60, [[f"C{i}"] for i in range(60)]])
def test_without_a_useful_concept_there_are_no_supervised_components(
    concepts: list[list[str]],
) -> None:
    projection = Fitter(unit_vectors(60, 8), LabelTable.from_sets(concepts), [8]).projection(1.0)
    assert projection.matrix.shape == (8, projection.unsupervised)


# Unsupervised components


def test_unsupervised_components_are_mildly_whitened() -> None:
    n, dim = 300, 10
    vectors = unit_vectors(n, dim)
    labels = LabelTable.from_sets([[]] * n)
    projection = Fitter(vectors, labels, [dim]).projection(None)
    z = standardised(vectors, projection.mean, projection.scale)
    projected = z @ projection.matrix.astype(np.float64) - projection.shift
    assert projected.mean(axis=0) == pytest.approx(0, abs=1e-6)
    covariance = projected.T @ projected / n
    variances = np.linalg.eigvalsh(np.cov(z.T, bias=True))[::-1][: projection.unsupervised]
    expected = np.diag(variances ** (1 - 2 * WHITENING))
    assert covariance == pytest.approx(expected, abs=1e-5 * expected[0, 0])


def test_no_more_components_than_directions() -> None:
    few = Fitter(unit_vectors(30, 300), LabelTable.from_sets([[]] * 30), [300]).projection(None)
    assert few.unsupervised <= 30
    many = Fitter(unit_vectors(400, 300), LabelTable.from_sets([[]] * 400), [300]).projection(None)
    assert many.unsupervised == UNSUPERVISED
    assert np.isfinite(few.matrix).all() and np.isfinite(many.matrix).all()


@pytest.mark.parametrize("n", [1, 2])
def test_a_row_or_two(n: int) -> None:
    concepts = [["C1", "C2"], ["C2"]][:n]
    vectors = unit_vectors(n, 6)
    for penalty in (None, 1.0):
        found = Fitter(vectors, LabelTable.from_sets(concepts), [6]).projection(penalty)
        assert np.linalg.norm(found.apply(vectors), axis=1) == pytest.approx(1, abs=1e-6)


# Standardisation


def test_blocks_count_the_same() -> None:
    """Whatever their length and their spread, which are far apart here."""
    rng = np.random.default_rng(0)
    blocks = (3, 50, 11)
    spread = np.repeat([1.0, 0.001, 30.0], blocks) * (rng.random(sum(blocks)) + 0.1)
    numbers = rng.normal(size=(200, sum(blocks))) * spread
    vectors = (numbers / np.linalg.norm(numbers, axis=1, keepdims=True)).astype(np.float32)
    projection = Fitter(vectors, LabelTable.from_sets([[]] * 200), blocks).projection(None)
    scaled = (vectors.astype(np.float64) - projection.mean) * projection.scale
    assert (scaled**2).mean(axis=0) == pytest.approx(1 / np.repeat(blocks, blocks), rel=1e-3)
    for block in np.split(scaled, np.cumsum(blocks)[:-1], axis=1):
        assert (block**2).sum(axis=1).mean() == pytest.approx(1, rel=1e-3)


def test_constant_numbers_are_left_out() -> None:
    vectors = unit_vectors(120, 10)
    vectors[:, 2] = 0.25
    vectors[:, 7] = 0
    concepts = draw_concepts(120, 6, 3)
    projection = Fitter(vectors, LabelTable.from_sets(concepts), [4, 6]).projection(1.0)
    assert np.flatnonzero(projection.scale == 0).tolist() == [2, 7]
    assert np.isfinite(projection.matrix).all()
    changed = vectors.copy()
    changed[:, [2, 7]] += 0.1
    assert np.array_equal(projection.apply(changed), projection.apply(vectors))


def test_equal_rows_all_look_alike() -> None:
    vectors = np.repeat(unit_vectors(1, 9), 50, axis=0)
    concepts = draw_concepts(50, 4, 2)
    found = Fitter(vectors, LabelTable.from_sets(concepts), [9]).projection(1.0).apply(vectors)
    assert np.isfinite(found).all() and len(np.unique(found, axis=0)) == 1


def test_blocks_that_do_not_make_up_a_vector_are_refused() -> None:
    with pytest.raises(ValueError, match="blocks of 9 numbers, vectors of 10"):
        Fitter(unit_vectors(20, 10), LabelTable.from_sets([[]] * 20), [4, 5])


# Folds


N, DIM, FOLDS = 150, 20, 5


def in_folds(concepts: Sequence[Sequence[str]]) -> tuple[Fitter, NDArray[np.int64]]:
    folds = np.random.default_rng(5).integers(0, FOLDS, N)
    return Fitter(unit_vectors(N, DIM), LabelTable.from_sets(concepts), [DIM], folds), folds


@pytest.mark.parametrize("fold", [0, FOLDS - 1])
def test_without_a_fold_the_regression_is_of_the_other_rows(fold: int) -> None:
    vectors, concepts = unit_vectors(N, DIM), draw_concepts(N, 10, 4)
    fitter, folds = in_folds(concepts)
    without_folds = Fitter(vectors, LabelTable.from_sets(concepts), [DIM])
    for penalty in (None, 1.0):  # folds change nothing of the whole
        one, other = (f.projection(penalty).apply(vectors) for f in (fitter, without_folds))
        assert np.abs(one - other).max() < 1e-4
    projection = fitter.projection(1.0, without=fold)
    found = supervised(projection, vectors)
    expected = predictions(projection, vectors, concepts, 1.0, np.flatnonzero(folds != fold))
    assert relative_error(found @ found.T, expected @ expected.T) < 1e-4


@pytest.mark.parametrize("fold", [0, FOLDS - 1])
def test_without_a_fold_its_concepts_leave_no_trace(fold: int) -> None:
    """Not a bit of them: other concepts there, the same projection; but not with the fold."""
    concepts, others = draw_concepts(N, 10, 4), draw_concepts(N, 10, 4, seed=9)
    fitter, folds = in_folds(concepts)
    changed, _ = in_folds(
        [o if f == fold else c for c, o, f in zip(concepts, others, folds, strict=True)]
    )
    one, other = (f.projection(0.3, without=fold) for f in (fitter, changed))
    assert one.matrix.tobytes() == other.matrix.tobytes()
    assert one.shift.tobytes() == other.shift.tobytes()
    assert fitter.projection(0.3).matrix.tobytes() != changed.projection(0.3).matrix.tobytes()


@pytest.mark.parametrize("penalty", [None, 1.0])
@pytest.mark.parametrize("on_disk", [False, True])
def test_own_rows_are_projected_from_their_coordinates(
    tmp_path: Path, penalty: float | None, on_disk: bool
) -> None:
    n, dim = 700, 300
    vectors = unit_vectors(n, dim)
    folds = np.random.default_rng(5).integers(0, FOLDS, n)
    labels = LabelTable.from_sets(draw_concepts(n, 400, 4))
    fitter = Fitter(vectors, labels, [100, 200], folds, tmp_path if on_disk else None)
    rows = np.random.default_rng(6).permutation(n)
    own = fitter.own_rows(penalty, without=2)
    expected = fitter.projection(penalty, without=2).apply(vectors, rows)
    assert np.abs(own.apply(vectors, rows) - expected).max() < 1e-5
    assert np.array_equal(own.apply(vectors)[rows], own.apply(vectors, rows))
    assert own.apply(vectors, rows[:0]).shape == (0, expected.shape[1])
    assert not list(tmp_path.iterdir())  # the file has no name, and goes with the fitter


def test_own_rows_need_folds() -> None:
    fitter = Fitter(unit_vectors(60, 8), LabelTable.from_sets(draw_concepts(60, 5, 2)), [8])
    with pytest.raises(ValueError, match="give folds"):
        fitter.own_rows(1.0, without=0)


@pytest.mark.parametrize("levels", [2, 1000])
def test_concepts_are_in_the_order_of_all_their_sums(levels: int) -> None:
    """Whether or not the first few sums tell them apart."""
    rng = np.random.default_rng(levels)
    ty = rng.integers(0, levels, (12, 300)).astype(np.float32)
    y = rng.integers(1, 4, 300).astype(np.float64)
    found = _by_sums(Sums(9, np.zeros(12), np.zeros((12, 12), np.float32), y, ty))
    expected = sorted(range(300), key=lambda j: (-y[j], *ty[:, j].tolist()))
    assert np.array_equal(found, expected)
