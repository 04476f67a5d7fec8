"""The fine-tuned rows of the quality benchmark, each at toy size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from annotator.collection import read_collection
from annotator.errors import AnnotatorError
from annotator.fitting.recipe import Recipe
from benchmarks.quality.data import Cost, Data, Pictures
from benchmarks.quality.labels import best_threshold, best_thresholds, f1_of_rows
from benchmarks.quality.methods import METHODS, SINGLE, Settings
from benchmarks.quality.methods.finetuned import FineTuned
from benchmarks.quality.methods.networks import Networks

ROWS = [key for key in METHODS if key.startswith("finetuned")]
TINY = Recipe(copies=3, epochs=1, batch_size=8)


@pytest.fixture(scope="session")
def settings(tiny_network, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A quick network and recipe, and one folder for what all rows share."""
    work = tmp_path_factory.mktemp("finetuned")
    return Settings(work, tiny_network, backbone="efficientnet-lite0@64", tuned=TINY)


def side(sample, folder: Path, start: int, n: int, *, labelled: bool) -> Data:
    """Some phantoms, without vectors; two in a row are of one group."""
    collection = read_collection(str(sample.images), str(sample.concepts))
    refs = collection.images[start : start + n]
    labels = [frozenset(collection.concepts[ref.id]) for ref in refs] if labelled else None
    none = np.zeros((n, 1), np.float32)
    return Data(Pictures(refs, none, Cost(), folder), np.arange(n) // 2, labels)


@pytest.mark.slow
@pytest.mark.parametrize("key", ROWS)
def test_a_row_learns_what_is_common(key, settings, sample):
    train = side(sample, settings.work, 0, 16, labelled=True)
    test = side(sample, settings.work, 16, 3, labelled=False)
    method = METHODS[key](settings)
    method.fit(train)
    sets = method.predict(test)
    assert len(sets) == 3
    if not key.endswith(("half", "intersection")):
        assert all(sets) and set.union(*sets) <= set(method.vocabulary.cuis)
    assert method.chosen["seeds"] == (1 if key in SINGLE else 3)
    assert method.chosen["epochs"] == (3 if key == "finetuned-long" else 1)


@pytest.mark.slow
def test_our_rows_share_a_fitted_encoder(settings, sample, tmp_path):
    tiny = replace(settings, work=tmp_path)
    train = side(sample, tmp_path, 0, 50, labelled=True)
    test = side(sample, tmp_path, 50, 3, labelled=False)
    for key in ("ours-fitted", "ours-fitted-no-head", "ours-fitted-head-only"):
        method = METHODS[key](tiny)
        _, cost = train.cost_of(lambda method=method: method.fit(train))
        assert all(method.predict(test))
        (kept,) = tmp_path.glob("fitted-*.json")
        assert cost.cpu_seconds >= json.loads(kept.read_text())["cpu_seconds"]
        if key == "ours-fitted-no-head":
            assert method.chosen["head_weight"] == 0


def test_names_tell_the_rows_apart(settings):
    names = {METHODS[key](settings).name for key in ROWS}
    assert len(names) == len(ROWS)
    assert "EfficientNet-Lite1 at 320 px, fine-tuned, 1 epochs, expected F1" in names
    with pytest.raises(AnnotatorError, match="network"):
        METHODS["finetuned-timm"](replace(settings, backbone=None))


def test_a_network_is_trained_once_and_charged_to_each_row(settings, sample):
    train = side(sample, settings.work, 0, 16, labelled=True)
    recipe, encoder = replace(TINY, dropout=0.1), settings.embedder
    before = set(settings.work.glob("*.json"))
    fresh = [FineTuned(settings.work, recipe=recipe, encoder=encoder) for _ in range(2)]
    fresh[0].fit(train)
    kept = set(settings.work.glob("*.json")) - before
    for path in kept:
        assert json.loads(path.read_text())["cpu_seconds"] >= 0
        path.write_text(json.dumps(json.loads(path.read_text()) | {"cpu_seconds": 1000}))
    _, cost = train.cost_of(lambda: fresh[1].fit(train))
    assert 1000 * len(kept) <= cost.cpu_seconds < 1000 * len(kept) + 500
    np.testing.assert_array_equal(fresh[0].out_of_fold, fresh[1].out_of_fold)
    np.testing.assert_array_equal(fresh[0].probabilities(train), fresh[1].probabilities(train))


def test_the_same_seed_gives_the_same_network(settings, sample, tmp_path):
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        train = side(sample, folder, 0, 12, labelled=True)
        networks = Networks(folder, settings.embedder, TINY, train)
        found.append([networks.trained(seed)[2].weight for seed in (0, 1)])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    assert not torch.equal(found[0][0], found[0][1])
    model, some = networks.trained(0), np.array([7, 2])
    every = networks.probabilities(model, train)
    found = networks.probabilities(model, train.take(some))
    np.testing.assert_allclose(found, every[some], rtol=1e-4)


def test_thresholds_of_single_concepts_are_those_of_a_plain_search():
    rng = np.random.default_rng(0)
    truth = rng.random((40, 6)) < [0.7, 0.5, 0.3, 0.2, 0.1, 0.05]
    chances = np.clip(0.4 * truth + rng.random(truth.shape) * 0.6, 0, 1)
    expected = np.full(6, best_threshold(truth, chances))
    for j in [*range(6), *range(6)]:
        for threshold in np.round(np.arange(0.1, 0.75, 0.05), 2):
            other = expected.copy()
            other[j] = threshold
            before = f1_of_rows(truth, chances >= expected).mean()
            if f1_of_rows(truth, chances >= other).mean() > before + 1e-8:
                expected = other
    np.testing.assert_allclose(best_thresholds(truth, chances), expected)
