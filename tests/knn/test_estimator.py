"""The estimator is the model of an index, and keeps to the rules of scikit-learn."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from annotator import ConceptKNN
from annotator.collection import Collection
from annotator.encoders.local_runner import embed_images
from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.pipeline import Annotator

SETS = [{"lung", "x-ray"}, {"x-ray"}, {"ct", "head"}, {"ct"}, set()]


# Tuned, the same checks take a minute and look at the same code.
@parametrize_with_checks([ConceptKNN(tune=False), ConceptKNN(tune=False, adaptation="none")])
def test_it_is_an_estimator(estimator: ConceptKNN, check: Any) -> None:
    check(estimator)


def cases(n: int, seed: int = 0) -> tuple[NDArray[np.float64], list[set[str]]]:
    """Vectors near one of five directions, with its labels."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(n) % len(SETS)
    vectors = np.eye(8)[kinds] * rng.uniform(1, 9, (n, 1)) + rng.normal(0, 0.3, (n, 8))
    return vectors, [SETS[kind] for kind in kinds]


@pytest.fixture(scope="module")
def fitted() -> ConceptKNN:
    return ConceptKNN().fit(*cases(100))


def test_it_is_the_model_of_an_index(
    tuned_index: Any, patterns: Collection, tiny_embedder: TorchEmbedder
) -> None:
    images = patterns.images
    vectors = np.stack([np.asarray(e.vector) for e in embed_images(images, tiny_embedder)])
    model = ConceptKNN(blocks=tiny_embedder.blocks).fit(
        vectors,
        [patterns.concepts[ref.id] for ref in images],
        groups=[patterns.groups[ref.id] for ref in images],
    )
    annotator = Annotator.open(tuned_index, embedder=tiny_embedder)
    assert model.voting_ == annotator.voting
    assert model.tuned_.f1 == annotator.metadata.tuning["f1"]
    queries = vectors + np.random.default_rng(0).normal(0, 0.05, vectors.shape)
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    found = annotator.search(queries)
    annotations = annotator.decide(["q"] * len(queries), found)
    assert model.predict_concepts(queries) == [a.cuis for a in annotations]
    shares = model.predict_proba(queries)
    column = {label: j for j, label in enumerate(model.classes_)}
    for a, row in zip(annotations, shares, strict=True):
        assert row[[column[cui] for cui in a.cuis]] == pytest.approx(a.scores)
    distances, rows = model.kneighbors(queries)
    np.testing.assert_array_equal(rows, found.neighbors.rows)
    np.testing.assert_allclose(1 - distances, found.neighbors.similarities, atol=1e-6)


def test_sets_lists_and_matrices_are_the_same_labels(fitted: ConceptKNN) -> None:
    vectors, sets = cases(100)
    new, truth = cases(20, seed=1)
    assert fitted.classes_.tolist() == ["ct", "head", "lung", "x-ray"]
    assert [set(found) for found in fitted.predict_concepts(new)] == truth
    matrix = MultiLabelBinarizer().fit_transform(sets)
    expected = MultiLabelBinarizer(classes=fitted.classes_).fit_transform(truth)
    np.testing.assert_array_equal(fitted.predict(new), expected)
    frame = pd.DataFrame(matrix, columns=fitted.classes_)
    lists = [sorted(labels) for labels in sets]
    for y in (matrix, matrix.astype(bool), matrix.tolist(), frame, lists):
        model = ConceptKNN().fit(vectors, y)
        np.testing.assert_array_equal(model.predict(new), expected)
        np.testing.assert_array_equal(model.predict_proba(new), fitted.predict_proba(new))
        names = fitted.classes_ if y is frame or y is lists else np.arange(4)
        assert model.classes_.tolist() == names.tolist()
    assert fitted.score(new, truth) == model.score(new, truth) == 1.0
    assert ConceptKNN().fit(vectors, matrix).score(new, expected) == 1.0
    assert fitted.score(new[:2], [truth[0], {"ct"}]) == 0.5


def test_one_label_a_sample() -> None:
    vectors, _ = cases(100)
    y = np.array(["a", "b", "c", "d", "e"])[np.arange(100) % 5]
    model = ConceptKNN().fit(vectors, y)
    new, _ = cases(20, seed=1)
    assert model.predict(new).tolist() == ["a", "b", "c", "d", "e"] * 4
    assert model.predict_concepts(new)[1] == ("b",)
    np.testing.assert_allclose(model.predict_proba(new).sum(axis=1), 1.0)
    assert model.score(new, y[:20]) == 1.0
    assert OneVsRestClassifier(ConceptKNN(tune=False)).fit(vectors, y).score(new, y[:20]) > 0.9


def test_the_length_of_a_vector_does_not_count(fitted: ConceptKNN) -> None:
    new, _ = cases(20, seed=1)
    for scale in (1e-200, 3.0, 1e200):
        np.testing.assert_allclose(
            fitted.predict_proba(new * scale), fitted.predict_proba(new), atol=1e-6
        )
    unit = (new / np.linalg.norm(new, axis=1, keepdims=True)).astype(np.float32)
    model = ConceptKNN(adaptation="none", tune=False).fit(unit, [{"a"}] * 20)
    np.testing.assert_array_equal(model._vectors, unit)  # to the bit
    with pytest.warns(UserWarning, match="2 rows of X are zero .* row 1"):
        assert len(fitted.predict(np.array([new[0], 0 * new[0], 0 * new[0]]))) == 3


def test_what_is_given_is_not_tuned(fitted: ConceptKNN) -> None:
    model = ConceptKNN(np.int64(7), beta=3, decider="threshold", threshold=0.4, prior=0)
    model.fit(*cases(100))
    voting = model.voting_
    given = (voting.k, voting.beta, voting.decider, voting.threshold, voting.prior)
    assert given == (7, 3.0, "threshold", 0.4, 0.0) and model.tuned_ is not None
    untuned = ConceptKNN(min_score=0.2, tune=False).fit(*cases(100))
    assert untuned.tuned_ is None and untuned.voting_.min_score == 0.2
    assert fitted.tuned_ is not None and fitted.tuned_.f1 > 0.95
    assert ConceptKNN(adaptation="none").fit(*cases(100)).projection_ is None
    one = ConceptKNN(decider="top-r", top_r=1, tune=False).fit(*cases(100))
    assert one.predict(cases(9, seed=1)[0]).sum(axis=1).tolist() == [1] * 9


def test_macro_f1_has_its_thresholds_from_tuning(fitted: ConceptKNN) -> None:
    model = ConceptKNN(decider="macro-f1").fit(*cases(100))
    assert model.voting_.decider == "macro-f1" and model.voting_.macro_thresholds is not None
    vectors, _ = cases(30, seed=1)
    assert np.mean(model.predict(vectors) == fitted.predict(vectors)) > 0.9


def test_neighbours(fitted: ConceptKNN) -> None:
    vectors, _ = cases(100)
    distances, rows = fitted.kneighbors(n_neighbors=3)
    assert rows.shape == (100, 3) and (np.diff(distances) >= 0).all()
    assert not (rows == np.arange(100)[:, None]).any()
    assert (rows % 5 == np.arange(100)[:, None] % 5).mean() > 0.95
    own = fitted.kneighbors(vectors, 1, return_distance=False)
    assert own.ravel().tolist() == list(range(100))
    assert fitted.kneighbors(vectors[:2])[1].shape == (2, fitted.voting_.k)
    for k in (0, 101):
        with pytest.raises(ValueError, match="n_neighbors"):
            fitted.kneighbors(vectors, k)


def test_cases_are_added() -> None:
    vectors, sets = cases(100)
    model = ConceptKNN().partial_fit(vectors, sets)
    voting = model.voting_
    new = np.eye(8)[[6] * 60] + np.random.default_rng(0).normal(0, 0.05, (60, 8))
    model.partial_fit(new, [{"aorta", "ct"}] * 60)
    assert model.classes_.tolist() == ["ct", "head", "lung", "x-ray", "aorta"]
    assert model.voting_ == voting and model.n_samples_fit_ == 160
    assert set(model.predict_concepts(np.eye(8)[6:7])[0]) == {"aorta", "ct"}
    assert model.predict(np.eye(8)[6:7]).tolist() == [[1, 0, 0, 0, 1]]
    assert set(model.predict_concepts(np.eye(8)[:1])[0]) == SETS[0]
    parts = ConceptKNN(tune=False, adaptation="none").partial_fit(vectors[:50], sets[:50])
    whole = clone(parts).fit(vectors, sets)
    parts.partial_fit(vectors[50:], sets[50:])
    np.testing.assert_array_equal(parts.predict_proba(new), whole.predict_proba(new))


def test_cases_of_another_kind_are_not_added() -> None:
    vectors, sets = cases(50)
    matrix = MultiLabelBinarizer().fit_transform(sets)
    with pytest.raises(ValueError, match="an indicator matrix, but was a list of sets"):
        ConceptKNN(tune=False).fit(vectors, sets).partial_fit(vectors, matrix)
    with pytest.raises(ValueError, match="columns"):
        ConceptKNN(tune=False).fit(vectors, matrix).partial_fit(vectors, matrix[:, :3])
    one = ConceptKNN(tune=False).partial_fit(vectors, [1, 2] * 25, classes=[1, 2, 3])
    assert one.classes_.tolist() == [1, 2, 3] and one.predict_proba(vectors).shape == (50, 3)
    with pytest.raises(ValueError, match="7, which is not one of the classes"):
        one.partial_fit(vectors, [1, 7] * 25)
    with pytest.raises(ValueError, match="2, which is not one of the classes"):
        ConceptKNN().partial_fit(vectors, [1, 2] * 25, classes=[1])
    later = ConceptKNN(tune=False).partial_fit(vectors, sets, classes=["aorta"])
    assert later.classes_.tolist() == ["aorta", "ct", "head", "lung", "x-ray"]


def test_in_the_tools_of_scikit_learn() -> None:
    vectors, sets = cases(100)
    matrix = MultiLabelBinarizer().fit_transform(sets)
    model = ConceptKNN(tune=False)
    pipeline = make_pipeline(StandardScaler(), model)
    groups = np.arange(100) // 2
    options: dict[str, Any] = {"scoring": "f1_micro", "cv": GroupKFold(3), "groups": groups}
    given = {"conceptknn__groups": groups.astype(str)}
    assert cross_val_score(pipeline, vectors, matrix, params=given, **options).min() > 0.95
    assert cross_val_score(model, vectors, sets, cv=3).min() > 0.9
    search = GridSearchCV(model, {"n_neighbors": np.array([1, 5]), "kernel": ["uniform"]}, cv=2)
    search.fit(vectors, matrix)
    assert search.best_estimator_.voting_.kernel == "uniform"
    assert search.predict(vectors).shape == matrix.shape
    assert model.get_params()["tune"] is False and clone(model).set_params(beta=2.0).beta == 2.0
    frame = pd.DataFrame(vectors, columns=list("abcdefgh"))
    named = clone(model).fit(frame, sets)
    assert named.feature_names_in_.tolist() == list("abcdefgh") and named.n_features_in_ == 8
    with pytest.raises(ValueError, match="feature names"):
        named.predict(frame[list("hgfedcba")])
    again = pickle.loads(pickle.dumps(named))
    np.testing.assert_array_equal(again.predict_proba(frame), named.predict_proba(frame))


@pytest.mark.parametrize(
    ("parameters", "y", "says"),
    [
        ({"n_neighbors": 0}, None, "k cannot be 0"),
        ({"kernel": "cosine"}, None, "kernel cannot be 'cosine'"),
        ({"decider": "macro-f1", "tune": False}, None, "macro-f1 needs tuning on 50 samples"),
        ({"adaptation": "all"}, None, "adaptation cannot be 'all'"),
        ({"blocks": (4, 5)}, None, "blocks of 9 numbers, vectors of 8"),
        ({}, [{"a"}] * 49, "inconsistent numbers of samples"),
        ({}, [{"a", 1}] * 50, "different types"),
        ({}, np.arange(100).reshape(50, 2), "or sets"),
        ({}, np.random.default_rng(0).random(50), "Unknown label type"),
        ({}, None, "requires y"),
    ],
)
def test_what_cannot_be_fitted(parameters: dict[str, Any], y: Any, says: str) -> None:
    vectors, sets = cases(50)
    with pytest.raises(ValueError, match=says):
        ConceptKNN(**parameters).fit(vectors, sets if parameters else y)
    with pytest.raises(ValueError, match="inconsistent"):
        ConceptKNN().fit(vectors, sets, groups=["p"] * 3)


def test_scikit_learn_is_an_extra() -> None:
    script = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import annotator, annotator.knn.model\n"
        "from annotator import ConceptKNN"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'pip install "cui-annotator[sklearn]"' in done.stderr.splitlines()[-1]
