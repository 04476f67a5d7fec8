"""Tuning on the index itself, without any row seeing its own group."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from annotator.score.scorers import image_f1
from annotator.tune import BETAS, KS, Tuned, group_numbers, tune
from annotator.vote.voting import Voting
from index import FlatIndex, LabelTable, Neighbors


def collection(n: int, seed: int = 0) -> tuple[NDArray[np.float32], list[list[str]], list[str]]:
    """Noisy clusters with a concept each, every image twice: one group is two equal vectors."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, 16))
    cluster = rng.integers(0, 6, n // 2).repeat(2)
    vectors = centres[cluster] + 1.2 * rng.normal(size=(n // 2, 16)).repeat(2, axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    odd = rng.random(n // 2).repeat(2) < 0.3
    concepts = [
        ["C0", f"C{c + 1}"] if o else [f"C{c + 1}"] for c, o in zip(cluster, odd, strict=True)
    ]
    return vectors.astype(np.float32), concepts, [f"patient {i // 2}" for i in range(n)]


def run(groups: list[str], n: int = 240) -> Tuned:
    vectors, concepts, _ = collection(n)
    tuned = tune(FlatIndex(vectors), vectors, concepts, groups)
    assert tuned is not None
    return tuned


def test_the_chosen_pair_is_the_best_of_a_naive_search() -> None:
    vectors, concepts, groups = collection(240)
    tuned = run(groups)
    labels = LabelTable.from_sets(concepts)
    similarity = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    for grid in (tuned.grid[0], tuned.grid[20], tuned.grid[-1]):
        scores = []
        for i, truth in enumerate(concepts):
            others = [j for j in range(len(vectors)) if groups[j] != groups[i]]
            best = sorted(others, key=lambda j: (-np.float32(similarity[i, j]), j))
            rows = np.array([best[: int(grid["k"])]])
            found = Neighbors(rows, similarity[i][rows].astype(np.float32))
            _, (decision,) = Voting(k=int(grid["k"]), beta=grid["beta"]).decide(found, labels)
            scores.append(image_f1(truth, decision.cuis))
        assert grid["f1"] == pytest.approx(np.mean(scores), abs=2e-3)
    assert tuned.f1 == pytest.approx(max(pair["f1"] for pair in tuned.grid), abs=1e-6)
    assert len(tuned.grid) == len(KS) * len(BETAS)
    assert tuned.interval[0] < tuned.f1 < tuned.interval[1]


def test_the_own_group_does_not_vote() -> None:
    """Every image has an equal twin: seeing it would make the nearest neighbour perfect."""
    _, _, groups = collection(240)
    assert run(groups).f1 < 0.9
    assert run([""] * 240).f1 > 0.99


def test_missing_groups_are_not_merged() -> None:
    """One group for all without a patient would leave them nobody to be annotated by."""
    assert run([""] * 240).images == 240


@given(st.lists(st.sampled_from(["", "a", "b", "c"])))
def test_group_numbers(groups: list[str]) -> None:
    numbers = group_numbers(groups)
    for i, one in enumerate(groups):
        for j, other in enumerate(groups):
            assert (numbers[i] == numbers[j]) == (i == j or (one == other != ""))


def test_too_few_images_are_not_tuned_on() -> None:
    vectors, concepts, groups = collection(60)
    assert tune(FlatIndex(vectors), vectors, concepts, groups) is None
    vectors, concepts, _ = collection(240)
    assert tune(FlatIndex(vectors), vectors, concepts, ["one"] * 240) is None


def test_what_is_not_tuned_stays_and_repetition_gives_the_same() -> None:
    vectors, concepts, groups = collection(240)
    voting = Voting(decider="threshold", threshold=0.4)
    first = tune(FlatIndex(vectors), vectors, concepts, groups, voting=voting)
    assert first is not None
    assert (first.voting.decider, first.voting.threshold) == ("threshold", 0.4)
    assert first == tune(FlatIndex(vectors), vectors, concepts, groups, voting=voting)
