"""The quality benchmark, tiny; and its methods against cases counted by hand."""

from __future__ import annotations

import json
from functools import partial
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from annotator.errors import AnnotatorError
from annotator.evaluation.official_f1 import image_f1
from annotator.images.sources import ImageRef
from benchmarks.quality import __main__ as quality
from benchmarks.quality.data import Cost, Data, HiddenLabels, Pictures
from benchmarks.quality.methods import METHODS, Settings, logistic, mlknn, recipes
from benchmarks.quality.methods.expected_f1 import expected_f1_sets
from benchmarks.quality.methods.neighbours import Near
from benchmarks.quality.scores import Truth, paired_difference, score

NEIGHBOURS = [key for key in METHODS if not key.startswith(("cnn", "fine", "ours", "most"))]


def side(n: int, kinds: np.ndarray, folder, labels: list[frozenset[str]] | None) -> Data:
    """Images whose vectors have the direction of their kind; two in a row are of one group."""
    rng = np.random.default_rng(n)
    vectors = np.eye(24, dtype=np.float32)[kinds] + rng.normal(0, 0.02, (n, 24)).astype("f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    refs = [ImageRef(f"{n}-{i}", "", partial(bytes, b"")) for i in range(n)]
    return Data(Pictures(refs, vectors, Cost(8000.0, 4000.0), folder), np.arange(n) // 2, labels)


@pytest.mark.parametrize("key", NEIGHBOURS)
def test_a_method_learns_what_is_easy_without_the_test_labels(key, tmp_path):
    sets = [frozenset(s) for s in (("C1", "C2"), ("C1", "C3"), ("C4",), ("C1", "C2", "C4"))]
    kinds = np.arange(48) // 2 % 4
    train = side(48, kinds, tmp_path, [sets[kind] for kind in kinds])
    test = side(12, np.arange(12) % 4, tmp_path, None)
    method = METHODS[key](Settings(tmp_path, "none"))
    _, cost = train.cost_of(lambda: method.fit(train))
    assert 4000 <= cost.cpu_seconds < 8000 <= cost.seconds < 16000  # for the vectors, once
    found = method.predict(test)
    f1 = [image_f1(sets[i % 4], chosen) for i, chosen in enumerate(found)]
    assert np.mean(f1) > (0.7 if key == "rank-weights" else 0.95)
    with pytest.raises(HiddenLabels):
        _ = test.labels


@pytest.mark.parametrize("key", ["top-r", "rank-weights-tuned", "mlknn", "logistic", "sklearn-knn"])
def test_tuning_leaves_out_whole_groups(key, tmp_path):
    """Two images of a patient are alike and no others are: what is left of the F1 is chance."""
    labels = np.random.default_rng(0).integers(0, 12, 24)[np.arange(48) // 2]
    train = side(48, np.arange(48) // 2, tmp_path, [frozenset({f"C{k:02d}"}) for k in labels])
    method = METHODS[key](Settings(tmp_path, "none"))
    method.fit(train)
    assert method.chosen["f1_on_training_side"] < 0.5


def test_recipes_by_hand():
    labels = csr_matrix(np.array([[1, 1, 0], [1, 0, 1], [0, 0, 1]], np.float32))
    query = Near(np.array([[0, 1, 2]]), np.array([[0.9, 0.8, 0.1]], np.float32), labels)

    def chosen(recipe, **parameters):
        return np.flatnonzero(recipe(query, parameters)[0]).tolist()

    assert chosen(recipes.by_mean_size, k=2) == [0, 1]  # 1 and 2 are tied
    assert chosen(recipes.by_mean_size, k=3) == [0, 2]  # mean size 5/3
    # Sums of similarities: 1.7, 0.9, 0.9.
    assert chosen(recipes.until_drop, k=33, fraction=0.5) == [0, 1, 2]
    assert chosen(recipes.until_drop, k=33, fraction=0.6) == [0]
    # Rank weights 3/6, 2/6, 1/6.
    assert chosen(recipes.by_rank, k=3, threshold=0.51) == [0]
    assert chosen(recipes.by_majority, k=3) == [0, 2]


def test_mlknn_by_hand():
    """One concept, four images, k = 2, s = 1.

    Prior: (1 + 2) / (2 + 4) = 1/2. With the concept: two images, with 2 and 1 neighbours that have
    it, so P(E | H1) = (1 + [0, 1, 1]) / (3 + 2); without: two images with 0 and 0.
    """
    counts, truth = np.array([[2], [1], [0], [0]]), np.array([[True], [True], [False], [False]])
    has, lacks = mlknn.joint_tables(counts, truth, 2)
    np.testing.assert_allclose(has[:, 0], [0.5 * 1 / 5, 0.5 * 2 / 5, 0.5 * 2 / 5])
    np.testing.assert_allclose(lacks[:, 0], [0.5 * 3 / 5, 0.5 * 1 / 5, 0.5 * 1 / 5])
    decided = mlknn.decide(np.array([[0], [1], [2]]), has, lacks)
    assert decided[:, 0].tolist() == [False, True, True]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_expected_f1_of_independent_marginals_is_that_of_brute_force(p):
    def expected(taken):
        total = 0.0
        for outcome in product((0, 1), repeat=len(p)):
            true = {j for j, there in enumerate(outcome) if there}
            chance = np.prod([q if there else 1 - q for q, there in zip(p, outcome, strict=True)])
            total += chance * image_f1(true or {""}, taken or {""})
        return total

    sets = [set(c) for m in range(len(p) + 1) for c in combinations(range(len(p)), m)]
    mask, value = expected_f1_sets(np.array([p]))
    assert value[0] == pytest.approx(max(map(expected, sets)), abs=1e-9)
    assert expected(set(np.flatnonzero(mask[0]))) == pytest.approx(value[0], abs=1e-9)


@pytest.mark.parametrize("standardise", [False, True])
def test_the_regression_is_that_of_scikit_learn(standardise):
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(80, 6)) * [1, 1, 1, 5, 0.1, 1]).astype(np.float32)
    truth = vectors @ rng.normal(size=(6, 4)) + rng.logistic(size=(80, 4)) > [0, 1, 3, 99]
    features = logistic.Features.of(vectors, standardise)
    rotated = features.rotate(vectors)
    weights = logistic.solve(rotated, truth, 0.3, tolerance=1e-6)
    found = logistic.probabilities(rotated, weights)
    scaled = (vectors - features.mean) / features.deviation
    for j in range(3):
        model = LogisticRegression(C=0.3, tol=1e-8, max_iter=1000).fit(scaled, truth[:, j])
        np.testing.assert_allclose(found[:, j], model.predict_proba(scaled)[:, 1], atol=1e-3)
    assert (found[:, 3] < 1e-6).all()  # which no image has


def test_scores_by_hand():
    sets = {"a": {"C1", "C2"}, "b": {"C1", "C9"}, "c": {"C2"}, "d": set()}
    truth = Truth({id_: frozenset(s) for id_, s in sets.items()}, {"a": "x", "b": "x", "c": "y"})
    # The image c could not be decoded, d has no concepts and got none.
    figures = score({"a": {"C1"}, "b": {"C1", "C2"}, "d": set()}, truth, {"C1": 3, "C2": 4})
    assert figures["image_f1"] == [0.666667, 0.5, 0.0, 1.0]
    assert figures["by"]["x"]["f1"] == pytest.approx((2 / 3 + 1 / 2) / 2, abs=1e-6)
    assert figures["macro_f1"] == pytest.approx(1 / 3, abs=1e-6)  # C1 1, C2 0, C9 0
    assert figures["bands"]["4-19"] == {"concepts": 1, "annotations": 2, "f1": 0.0}


def test_differences_are_paired_and_over_groups():
    f1, others = [0.9, 0.9, 0.5, 0.5], [0.7, 0.7, 0.5, 0.5]
    of_images = paired_difference(f1, others, [""] * 4)
    of_groups = paired_difference(f1, others, ["0", "0", "1", "1"])
    assert of_images["difference"] == of_groups["difference"] == 0.1
    assert of_groups["interval"] == [0.0, 0.2] and of_images["interval"][0] <= 0.05
    assert paired_difference(f1, f1, [""] * 4)["interval"] == [0.0, 0.0]


def test_rows_are_compared_with_the_best_single_network():
    f1 = {"ours": 0.9, "finetuned": 0.7, "finetuned-half": 0.8, "finetuned-seeds": 0.9}
    rows = [{"key": key, "f1": value, "image_f1": [value] * 2} for key, value in f1.items()]
    record = {"rows": rows, "image_ids": ["a", "b"]}
    truth = Truth({}, {}, {"a": 0, "b": 1})
    quality.compare_rows(record, truth, None)
    assert record["against"] == "finetuned-half" and "against" not in rows[2]
    assert [row["against"]["difference"] for row in (rows[0], rows[1])] == [0.1, -0.1]
    quality.compare_rows(record, truth, "finetuned-seeds")
    assert rows[2]["against"] == {"difference": -0.1, "interval": [-0.1, -0.1]}
    quality.compare_rows(record, truth, "mlknn")  # which is not measured yet
    assert record["against"] is None and not any("against" in row for row in rows)


def test_the_grid_of_c_ends_when_f1_has_fallen_twice(monkeypatch, tmp_path):
    labels = [frozenset({"C1"}) if i % 2 else frozenset({"C2"}) for i in range(8)]
    tried = []

    def wrong_on(vectors, truth, groups, standardise):
        for c, wrong in zip(logistic.CS, (2, 1, 2, 1, 2, 3, 0), strict=False):
            tried.append((standardise, c))
            yield c, np.where(np.arange(8)[:, None] < wrong, ~truth, truth).astype(np.float32)

    monkeypatch.setattr(logistic, "_out_of_fold", wrong_on)
    method = METHODS["logistic"](Settings(tmp_path, "none"))
    method.fit(side(8, np.arange(8) % 2, tmp_path, labels))
    assert method.chosen["c"] == 0.003 and not method.chosen["standardise"]
    assert [c for standardise, c in tried if standardise] == list(logistic.CS[:6])


def test_rows_of_an_earlier_run_are_kept(tmp_path):
    path = tmp_path / "quality-run.json"
    now = {"embedder": "e", "collection": {"train": 2}, "image_ids": ["b", "a"], "rows": []}
    with pytest.raises(AnnotatorError, match=r"quality-run\.json to update"):
        quality._earlier(now, path)
    rows = [{"key": key} for key in ("nearest", "of a version before", "ours", "ours-raw")]
    path.write_text(json.dumps({**now, "rows": rows}))
    assert quality._earlier({**now, "image_ids": ["a", "b"]}, path)["rows"] == rows
    with pytest.raises(AnnotatorError, match="another embedder"):
        quality._earlier({**now, "embedder": "f"}, path)
    with pytest.raises(AnnotatorError, match="other images"):
        quality._earlier({**now, "image_ids": ["b"]}, path)
    quality._put(rows, {"key": "ours", "f1": 1})
    quality._put(rows, {"key": "ours-estimator"})
    quality._put(rows, {"key": "most-frequent"})
    assert [row["key"] for row in rows] == [
        "most-frequent", "nearest", "of a version before", "ours", "ours-estimator", "ours-raw"
    ]  # fmt: skip
    assert rows[3]["f1"] == 1


@pytest.mark.slow
def test_a_tiny_run(sample, tmp_path, results):
    given = f"{sample.images} {sample.concepts} --split {sample.split} --groups {sample.patients}"
    given += f" --by {sample.split} --work {tmp_path} --results {results} --epochs 1"
    given += " --against cnn-tuned"
    quality.main(
        [*given.split(), "--methods", "most-frequent,nearest,cnn-tuned,ours,ours-estimator"]
    )
    record = json.loads((results / "quality-run.json").read_text())
    f1 = {row["key"]: row["f1"] for row in record["rows"]}
    assert f1["most-frequent"] < min(f1["nearest"], f1["ours"])
    assert f1["ours-estimator"] == pytest.approx(f1["ours"], abs=0.002)
    for row in record["rows"]:
        assert np.mean(row["image_f1"]) == pytest.approx(row["f1"], abs=1e-5)
        assert ("against" in row) == (row["key"] != "cnn-tuned")
    assert record["rows"][-1]["build"]["cpu_seconds"] > 0
    assert "| against |" in (results / "quality-run.md").read_text()
    assert (results / "quality-run.png").exists()
