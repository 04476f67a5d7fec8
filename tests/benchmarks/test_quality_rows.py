"""The rows: each learns an easy collection, and each method against a case counted by hand."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quality_rows import cnn, logistic, multilabel_knn, published, registry, topics
from quality_rows.data import HiddenLabels
from quality_rows.decoders import best_threshold, expected_f1_sets
from quality_rows.labels import Vocabulary, f1_of_rows, group_folds
from quality_rows.neighbours import Near, foreign_neighbours
from scipy.sparse import csr_matrix

from annotator.errors import AnnotatorError
from annotator.evaluation.official_f1 import image_f1

TINY = cnn.Recipe(epochs=2, size=48, batch=8, learning_rate=1e-3)


def mean_f1(truth, found):
    return np.mean([image_f1(t, f) for t, f in zip(truth, found, strict=True)])


def near(rows, labels, similarities=None):
    rows = np.array(rows)
    if similarities is None:
        similarities = np.ones(rows.shape)
    return Near(rows, np.array(similarities, np.float32), csr_matrix(np.array(labels, np.float32)))


def chosen(mask):
    return [np.flatnonzero(row).tolist() for row in mask]


@pytest.mark.parametrize(
    "key", [key for key in registry.ROWS if not key.startswith(("cnn", "ours", "most"))]
)
def test_a_row_learns_what_is_easy_without_the_test_labels(key, sides, tmp_path):
    train, test, truth = sides
    row = registry.ROWS[key](registry.Settings(tmp_path, "none"))
    row.fit(train)
    found = row.predict(test)
    assert len(found) == len(test)
    # Parameters that are not tuned do not suit a collection as small as this one.
    assert mean_f1(truth, found) > (0.8 if key == "rank-weights" else 0.95)
    assert row.name
    with pytest.raises(HiddenLabels):
        _ = test.labels


def test_the_most_frequent_concepts_are_the_same_for_all(sides):
    train, test, truth = sides
    row = published.MostFrequent()
    row.fit(train)
    found = row.predict(test)
    best = max(  # C1 is on 36 of 48 images, C2 and C4 on 24, C3 on 12
        mean_f1(train.labels, [set(("C1", "C2", "C4", "C3")[:r])] * 48) for r in range(1, 5)
    )
    assert mean_f1(train.labels, [found[0]] * 48) == best
    assert all(sets == found[0] for sets in found)
    assert mean_f1(truth, found) < 0.8


@pytest.mark.parametrize("key", ["top-r", "rank-weights-tuned", "mlknn", "logistic", "sklearn-knn"])
def test_tuning_leaves_out_whole_groups(key, sides, tmp_path):
    """Two images of a patient are alike and no others are: what is left of the F1 is chance."""
    train, _, _ = sides
    rng = np.random.default_rng(0)
    train._pictures.vectors = np.eye(24, dtype=np.float32)[train.groups]
    kinds = rng.integers(0, 12, 24)[train.groups]
    train._all_labels = [frozenset({f"C{kind:02d}"}) for kind in kinds]
    row = registry.ROWS[key](registry.Settings(tmp_path, "none"))
    row.fit(train)
    assert row.chosen["f1_on_training_side"] < 0.5


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_foreign_neighbours_are_those_of_a_full_search(seed, n, k):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    groups = rng.integers(0, 4, n)
    groups[:2] = [4, 5]
    found = foreign_neighbours(vectors, groups, None, k, np.arange(n))
    for i in range(n):
        others = [j for j in range(n) if groups[j] != groups[i]]
        others.sort(key=lambda j: -float(vectors[i] @ vectors[j]))
        assert found.rows[i].tolist() == others[: found.rows.shape[1]]
    assert found.rows.shape[1] == min(k, n - np.unique(groups, return_counts=True)[1].max())


def test_one_group_alone_cannot_be_tuned_on():
    with pytest.raises(AnnotatorError, match="one group"):
        foreign_neighbours(np.eye(3, dtype=np.float32), np.zeros(3, int), None, 1, np.arange(3))
    with pytest.raises(AnnotatorError, match="one group"):
        next(group_folds(np.zeros(3, np.int64)))


def test_published_recipes_by_hand():
    labels = [[1, 1, 0], [1, 0, 1], [0, 0, 1]]  # of three training images
    query = near([[0, 1, 2]], labels, [[0.9, 0.8, 0.1]])
    assert chosen(published.by_mean_size(query, {"k": 2})) == [[0, 1]]  # 1 and 2 are tied
    assert chosen(published.by_mean_size(query, {"k": 3})) == [[0, 2]]  # mean size 5/3
    # Sums of similarities: 1.7, 0.9, 0.9.
    assert chosen(published._until_drop(query, {"k": 33, "fraction": 0.5})) == [[0, 1, 2]]
    assert chosen(published._until_drop(query, {"k": 33, "fraction": 0.6})) == [[0]]
    # Rank weights 3/6, 2/6, 1/6.
    assert chosen(published._by_rank(query, {"k": 3, "threshold": 0.5})) == [[0, 1, 2]]
    assert chosen(published._by_rank(query, {"k": 3, "threshold": 0.51})) == [[0]]


def test_relative_drop_takes_four_at_most():
    query = near([[0]], [[1, 1, 1, 1, 1, 1]])
    assert chosen(published._until_drop(query, {"k": 33, "fraction": 0.5})) == [[0, 1, 2, 3]]


def test_brknn_a_by_hand():
    labels = [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert chosen(multilabel_knn.by_majority(near([[0, 1, 2]], labels), {"k": 3})) == [[1]]
    # Nothing has more than half of two: the most frequent in training of the tied ones.
    assert chosen(multilabel_knn.by_majority(near([[0, 1]], labels), {"k": 2})) == [[0]]
    nothing = near([[0, 1]], [[0, 0], [0, 0]])
    assert chosen(multilabel_knn.by_majority(nothing, {"k": 2})) == [[]]


def test_mlknn_by_hand():
    """One concept, four images, k = 2, s = 1.

    Prior: (1 + 2) / (2 + 4) = 1/2. With the concept: two images, with 2 and 1 neighbours that have
    it, so P(E | H1) = (1 + [0, 1, 1]) / (3 + 2); without: two images with 0 and 0.
    """
    counts, truth = np.array([[2], [1], [0], [0]]), np.array([[True], [True], [False], [False]])
    has, lacks = multilabel_knn.mlknn_tables(counts, truth, 2)
    np.testing.assert_allclose(has[:, 0], [0.5 * 1 / 5, 0.5 * 2 / 5, 0.5 * 2 / 5])
    np.testing.assert_allclose(lacks[:, 0], [0.5 * 3 / 5, 0.5 * 1 / 5, 0.5 * 1 / 5])
    decided = multilabel_knn.mlknn_decide(np.array([[0], [1], [2]]), has, lacks)
    assert decided[:, 0].tolist() == [False, True, True]


def test_topic_scores_by_hand():
    labels = [[1, 1, 0], [1, 0, 1]]
    mixtures, words = np.array([[2.0, 0.0], [0.0, 2.0]]), np.array([[0.5, 0.5, 0], [0, 0.25, 0.75]])
    counted, expected = topics._scores(near([[0, 1]], labels), mixtures, words)
    np.testing.assert_allclose(counted, [[1, 0.5, 0.5]])
    np.testing.assert_allclose(expected, [[0.5, 0.75, 0.75]])
    assert chosen(topics._choose(counted, expected, 1.0, np.array([1]))) == [[0]]
    assert chosen(topics._choose(counted, expected, 0.0, np.array([1]))) == [[1]]
    none_held = np.zeros((1, 3))
    assert chosen(topics._choose(none_held, expected, 0.0, np.array([1]))) == [[]]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_expected_f1_of_independent_marginals_is_that_of_brute_force(p):
    def expected(taken):
        total = 0.0
        for outcome in product((0, 1), repeat=len(p)):
            true = {j for j, there in enumerate(outcome) if there}
            probability = np.prod(
                [q if there else 1 - q for q, there in zip(p, outcome, strict=True)]
            )
            total += probability * image_f1(true or {""}, taken or {""})
        return total

    sets = [set(c) for m in range(len(p) + 1) for c in combinations(range(len(p)), m)]
    best = max(expected(taken) for taken in sets)
    mask, value = expected_f1_sets(np.array([p]))
    assert value[0] == pytest.approx(best, abs=1e-9)
    assert expected(set(np.flatnonzero(mask[0]))) == pytest.approx(best, abs=1e-9)


def test_expected_f1_considers_the_most_probable_concepts_alone():
    p = np.append(np.linspace(0.9, 0.1, 20), np.zeros(20))[None]
    exact, value = expected_f1_sets(p)
    cut, same = expected_f1_sets(p, most=20)
    assert (exact == cut).all()
    assert value == pytest.approx(same)
    assert expected_f1_sets(p, most=1)[0].sum() == 1


def test_best_threshold_by_hand():
    truth = np.array([[1, 1, 0], [0, 1, 0]], bool)
    probabilities = np.array([[0.9, 0.5, 0.4], [0.45, 0.6, 0.1]])
    assert best_threshold(truth, probabilities) == 0.46


@pytest.mark.parametrize("standardise", [False, True])
def test_logistic_regression_is_that_of_scikit_learn(standardise):
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(80, 6)).astype(np.float32) * [1, 1, 1, 5, 0.1, 1]
    truth = vectors @ rng.normal(size=(6, 4)) + rng.logistic(size=(80, 4)) > [0, 1, 3, 99]
    assert not truth[:, 3].any()
    scaling = logistic.Scaling.of(vectors.astype(np.float32), standardise)
    scaled = scaling.apply(vectors.astype(np.float32))
    features = logistic.Features.of(scaled)
    start = logistic.solve(features, truth, 0.01)
    weights = logistic.solve(features, truth, 0.3, start, tolerance=1e-6)
    found = weights.probabilities(scaled @ features.rotation)
    for j in range(3):
        model = LogisticRegression(C=0.3, tol=1e-8, max_iter=1000).fit(scaled, truth[:, j])
        np.testing.assert_allclose(found[:, j], model.predict_proba(scaled)[:, 1], atol=1e-3)
    assert (found[:, 3] < 1e-6).all()


def test_scaling_leaves_features_that_do_not_vary():
    vectors = np.array([[1, 2], [1, 4]], np.float32)
    np.testing.assert_allclose(logistic.Scaling.of(vectors, True).apply(vectors), [[0, -1], [0, 1]])


def test_the_paper_s_network_has_the_paper_s_layers():
    import torch

    with torch.device("meta"):
        model = cnn.network(7, cnn.Recipe())
        assert model(torch.zeros(2, 3, 400, 400)).shape == (2, 7)
    shapes = [tuple(p.shape) for p in model.parameters() if p.ndim > 1]
    assert shapes == [
        (16, 3, 5, 5),
        (32, 16, 3, 3),
        (64, 32, 3, 3),
        (128, 64, 3, 3),
        (7, 128 * 23 * 23),
    ]


def test_inputs_are_scaled_by_the_training_pixels(sides):
    train, _, _ = sides
    scale = cnn.Scale.of(train, 48)
    pixels = train.pixels(48, np.arange(len(train)))
    assert scale.mean == pytest.approx(pixels.mean())
    assert scale.deviation == pytest.approx(pixels.std())


def test_a_cnn_that_was_interrupted_ends_like_one_that_was_not(sides, tmp_path):
    import torch

    train, _, _ = sides
    truth = Vocabulary(train.labels).matrix(train.labels).toarray()
    scale = cnn.Scale.of(train, TINY.size)
    whole = cnn.trained(train, truth, TINY, scale, tmp_path / "whole.pt")
    first = cnn.Recipe(**{**vars(TINY), "epochs": 1})
    cnn.trained(train, truth, first, scale, tmp_path / "parts.pt")
    continued = cnn.trained(train, truth, TINY, scale, tmp_path / "parts.pt")
    for a, b in zip(whole.parameters(), continued.parameters(), strict=True):
        assert torch.equal(a, b)


def test_both_cnn_rows_are_one_training_and_both_are_charged(sides, tmp_path):
    train, test, _ = sides
    paper = cnn.Cnn(tmp_path, tuned=False, recipe=TINY)
    _, first = train.ledger.measure(lambda: paper.fit(train))
    (file,) = tmp_path.glob("cnn-*.pt")
    before = file.read_bytes()
    tuned = cnn.Cnn(tmp_path, tuned=True, recipe=TINY)
    _, second = train.ledger.measure(lambda: tuned.fit(train))
    assert file.read_bytes() == before
    assert second.seconds > 0.5 * first.seconds
    assert paper.chosen["threshold"] == 0.1
    truth = Vocabulary(train.labels).matrix(train.labels).toarray() > 0
    seen = cnn.predict(tuned._model, train, TINY, tuned._scale)
    f1 = {t: f1_of_rows(truth, seen >= t).mean() for t in (0.1, tuned.chosen["threshold"])}
    assert f1[tuned.chosen["threshold"]] == max(f1.values())
    assert len(tuned.predict(test)) == len(test)


def test_another_training_set_is_another_cnn(sides, tmp_path):
    train, _, _ = sides
    one = cnn.Recipe(**{**vars(TINY), "epochs": 1})
    for rows in (np.arange(16), np.arange(24)):
        cnn.Cnn(tmp_path, tuned=False, recipe=one).fit(train.take(rows))
    assert len(list(tmp_path.glob("cnn-*.pt"))) == 2
