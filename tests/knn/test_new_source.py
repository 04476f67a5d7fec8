"""What is expected of a new source is what comes out of one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from annotator.errors import AnnotatorError
from annotator.evaluation.official_f1 import image_f1
from annotator.knn.decision import choose_concepts
from annotator.knn.fit import Fitter
from annotator.knn.model import Adaptation, FittedModel, fit_model
from annotator.knn.new_source import NewSource, check_sources, expect_of_new_source, refuse_fitted
from annotator.knn.posterior import weigh
from annotator.knn.voting import Voting
from index import FlatIndex, LabelTable

LENGTH, KINDS = 24, 4


@dataclass(frozen=True)
class Scans:
    """Images of hospitals, each with a look of its own that hides what the images show."""

    vectors: Any
    concepts: list[list[str]]
    groups: list[str]
    sources: list[str]

    def take(self, rows: Any) -> Scans:
        lists = (self.concepts, self.groups, self.sources)
        return Scans(self.vectors[rows], *([one[i] for i in rows] for one in lists))

    def fit(self, **options: Any) -> FittedModel:
        return fit_model(self.vectors, self.concepts, self.groups, blocks=[LENGTH], **options)

    def expect(self, model: FittedModel) -> NewSource:
        return expect_of_new_source(
            self.vectors, self.concepts, self.groups, self.sources, model, blocks=[LENGTH]
        )


def draw(sizes: dict[str, int], seed: int = 0) -> Scans:
    rng = np.random.default_rng(seed)
    sources = [name for name, size in sizes.items() for _ in range(size)]
    n, names = len(sources), sorted(sizes)
    kinds = rng.integers(0, KINDS, n)
    of = np.array([names.index(source) for source in sources])
    looks = np.random.default_rng(9).normal(size=(26, LENGTH))  # of a hospital, whoever draws it
    # Every hospital shows a kind in its own way, beside a little that all have in common.
    own = np.random.default_rng(8).normal(size=(26, KINDS, LENGTH))
    common = np.random.default_rng(7).normal(size=(KINDS, LENGTH))
    letters = np.array([ord(name) - 97 for name in names])[of]
    vectors = looks[letters] + own[letters, kinds] + 0.4 * common[kinds]
    vectors += 0.5 * rng.normal(size=(n, LENGTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    concepts = [[f"C{kind}"] for kind in kinds]
    return Scans(vectors.astype(np.float32), concepts, [f"p{i // 2}" for i in range(n)], sources)


@pytest.fixture(scope="module")
def scans() -> Scans:
    return draw({"a": 90, "b": 70, "c": 50, "d": 30})


@pytest.fixture(scope="module")
def model(scans: Scans) -> FittedModel:
    return scans.fit()


@pytest.fixture(scope="module")
def expected(scans: Scans, model: FittedModel) -> NewSource:
    return scans.expect(model)


def test_it_is_far_below_the_estimate_across_patients(
    model: FittedModel, expected: NewSource
) -> None:
    assert model.tuned is not None
    assert model.tuned.f1 > 0.9 and expected.f1 < 0.6


def test_every_source_counts_by_its_images(expected: NewSource) -> None:
    sizes = {name: found.images for name, found in expected.sources.items()}
    assert sizes == {"a": 90, "b": 70, "c": 50, "d": 30} and expected.images == 240
    total = sum(found.f1 * found.images for found in expected.sources.values())
    assert expected.f1 == pytest.approx(total / 240)


@pytest.mark.parametrize("adaptation", ["auto", "looks", "none"])
def test_a_source_earns_what_an_index_of_the_others_gives_it(
    scans: Scans, adaptation: Adaptation
) -> None:
    model = scans.fit(adaptation=adaptation)
    found = scans.expect(model)
    for name in ("a", "d"):
        own = [i for i, source in enumerate(scans.sources) if source == name]
        others = scans.take([i for i, source in enumerate(scans.sources) if source != name])
        labels = LabelTable.from_sets(others.concepts)
        fitter = Fitter(others.vectors, labels, [LENGTH])
        project = fitter.projection(model.penalty).apply
        if adaptation == "none":
            project = np.array  # as it is
        index = FlatIndex(project(others.vectors))
        near = index.search(project(scans.vectors[own]), 100)
        decisions = choose_concepts(weigh(near, labels, model.voting), model.voting)
        scores = [
            image_f1(scans.concepts[i], decision.cuis)
            for i, decision in zip(own, decisions, strict=True)
        ]
        assert found.sources[name].f1 == pytest.approx(np.mean(scores), abs=1e-6)


def test_images_without_a_source_take_no_part(scans: Scans, model: FittedModel) -> None:
    unknown = draw({"a": 20}, seed=3)
    more = Scans(
        np.concatenate([unknown.vectors, scans.vectors]),
        unknown.concepts + scans.concepts,
        [f"q{i}" for i in range(20)] + scans.groups,
        [""] * 20 + scans.sources,
    )
    assert more.expect(model) == scans.expect(model)


def test_images_of_a_patient_in_two_hospitals_do_not_annotate_each_other(
    scans: Scans, model: FittedModel
) -> None:
    half = scans.take([i for i in range(240) if scans.sources[i] == "a"])
    noise = np.random.default_rng(2).normal(size=(90, LENGTH)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    patients = [f"p{i}" for i in range(90)]
    twice = Scans(
        np.concatenate([noise, noise]), half.concepts * 2, patients * 2, ["x"] * 90 + ["y"] * 90
    )
    untied = Scans(twice.vectors, twice.concepts, [""] * 180, twice.sources)
    nearest = replace(model, projection=None, voting=Voting(k=1))
    assert untied.expect(nearest).f1 == 1.0  # every image has a copy in the other hospital
    assert twice.expect(nearest).f1 < 0.5


@pytest.mark.parametrize("sizes", [{"a": 8, "b": 6}, {"a": 30, "b": 1}])
def test_small_sources_have_an_expectation_too(sizes: dict[str, int]) -> None:
    few = draw(sizes)
    found = few.expect(few.fit())
    assert {name: one.images for name, one in found.sources.items()} == sizes
    assert 0 <= found.f1 <= 1


@pytest.mark.parametrize(
    ("sources", "why"), [(["a", "a"], "all images are of 'a'"), (["", ""], "no image has one")]
)
def test_one_source_is_not_enough(sources: list[str], why: str) -> None:
    with pytest.raises(AnnotatorError, match=f"at least two sources, and {why}") as caught:
        check_sources(sources)
    assert "--holdout-groups" in caught.value.hint
    check_sources(["a", "", "b"])


def test_a_fitted_encoder_has_seen_them_all() -> None:
    with pytest.raises(AnnotatorError, match="fitted:there is fitted"):
        refuse_fitted("fitted:there")
