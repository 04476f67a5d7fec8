from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.audit.labels import doubtful, expected_f1, lists_within
from annotator.knn.posterior import Posterior
from index import LabelTable

SETS = st.lists(st.sampled_from("abcd"), max_size=4, unique=True)


@given(st.lists(SETS, min_size=3, max_size=6), st.lists(SETS, min_size=2, max_size=2))
def test_expected_f1_is_that_of_brute_force(known: list[list[str]], sets: list[list[str]]) -> None:
    rows = np.array([[0, 1, 2], [2, 0, 1]])
    weights = np.array([[0.5, 0.3, 0.2], [0.7, 0.2, 0.1]])
    posterior = Posterior(rows, weights, LabelTable.from_sets(known))

    def f1(a: list[str], b: list[str]) -> float:
        return 2 * len(set(a) & set(b)) / (len(a) + len(b)) if a or b else 1.0

    wanted = [
        sum(w * f1(own, known[row]) for w, row in zip(weights[i], rows[i], strict=True))
        for i, own in enumerate(sets)
    ]
    np.testing.assert_allclose(expected_f1(posterior, sets), wanted, atol=1e-12)


@pytest.fixture(scope="module")
def clusters() -> tuple[np.ndarray, list[tuple[str, ...]]]:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 32))
    of = np.arange(180) % 6
    vectors = centres[of] + 0.4 * rng.normal(size=(180, 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), [(f"C{k}", "C9") for k in of]


def test_swapped_concepts_are_the_most_doubtful(
    clusters: tuple[np.ndarray, list[tuple[str, ...]]],
) -> None:
    vectors, concepts = clusters
    wrong = list(concepts)
    for a, b in ((0, 1), (2, 3), (10, 17)):
        wrong[a], wrong[b] = wrong[b], wrong[a]
    groups = [f"g{i // 2}" for i in range(180)]
    lists = lists_within(vectors, wrong, groups, blocks=(32,))
    assert lists is not None and lists.queries.tolist() == list(range(180))
    doubts = doubtful(lists, LabelTable.from_sets(wrong), wrong)
    assert {d.row for d in doubts[:6]} == {0, 1, 2, 3, 10, 17}
    first = next(d for d in doubts if d.row == 0)
    assert [c for c, _ in first.lacks] == ["C0"] and [c for c, _ in first.holds] == ["C1"]
    assert first.lacks[0][1] > 0.7 > 0.3 > first.holds[0][1]
    assert all(a.score >= b.score for a, b in pairwise(doubts))


def test_sound_concepts_are_not_doubted(
    clusters: tuple[np.ndarray, list[tuple[str, ...]]],
) -> None:
    vectors, concepts = clusters
    lists = lists_within(vectors, concepts, [""] * 180, blocks=(32,))
    assert lists is not None
    assert doubtful(lists, LabelTable.from_sets(concepts), concepts) == []


def test_too_few_images_are_not_judged(
    clusters: tuple[np.ndarray, list[tuple[str, ...]]],
) -> None:
    vectors, concepts = clusters
    assert lists_within(vectors[:49], concepts[:49], [""] * 49, blocks=(32,)) is None
    assert lists_within(vectors, concepts, ["one"] * 180, blocks=(32,)) is None
