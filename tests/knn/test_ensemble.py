"""The opinion pool, against brute force over all outcomes and all sets."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from annotator.knn.ensemble import (
    Marginals,
    Pool,
    Rule,
    choose_weights,
    combine_sets,
    independent_votes,
)
from annotator.knn.posterior import Posterior
from annotator.knn.voting import Voting
from index import LabelTable

VOCABULARY = "ABCDE"
Distribution = dict[frozenset[str], float]

# Below 0.001 a probability counts as 0.
chances = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0.002, 0.998))
rows = st.lists(chances, min_size=len(VOCABULARY), max_size=len(VOCABULARY))


def f1(chosen: frozenset[str], truth: frozenset[str]) -> float:
    total = len(chosen) + len(truth)
    return 2 * len(chosen & truth) / total if total else 1.0


def independent(row: list[float]) -> Distribution:
    found: Distribution = {}
    for there in product([False, True], repeat=len(row)):
        concepts = frozenset(c for c, is_there in zip(VOCABULARY, there, strict=True) if is_there)
        factors = [p if is_there else 1 - p for p, is_there in zip(row, there, strict=True)]
        found[concepts] = found.get(concepts, 0.0) + float(np.prod(factors))
    return found


def expected(chosen: frozenset[str], pool: list[tuple[float, Distribution]]) -> float:
    return sum(w * p * f1(chosen, s) for w, member in pool for s, p in member.items())


def every_set() -> list[frozenset[str]]:
    sizes = range(len(VOCABULARY) + 1)
    return [frozenset(some) for m in sizes for some in combinations(VOCABULARY, m)]


def table(sets: list[list[str]]) -> LabelTable:
    """Rows with these sets, and a last one that holds the whole vocabulary."""
    return LabelTable.from_sets([*sets, list(VOCABULARY)])


def opinion(values: list[list[float]], known: str = VOCABULARY) -> Marginals:
    mask = np.array([concept in known for concept in VOCABULARY])
    return Marginals(np.array(values, np.float32), mask)


def equal_votes(labels: LabelTable, voters: list[list[int]]) -> Posterior:
    array = np.array(voters)
    return Posterior(array, np.full(array.shape, 1 / array.shape[1]), labels)


@settings(max_examples=100, deadline=None)
@given(values=st.lists(rows, min_size=1, max_size=3))
def test_votes_of_independent_concepts(values: list[list[float]]) -> None:
    votes = independent_votes(np.array(values))
    cast = np.zeros((len(values), len(VOCABULARY), len(VOCABULARY) + 1))
    image = votes.candidate_image[votes.vote_candidate]
    concept = votes.candidate_cui[votes.vote_candidate]
    np.add.at(cast, (image, concept, votes.vote_size), votes.vote_weight)
    for i, row in enumerate(values):
        distribution = independent(row)
        assert votes.empty[i] == pytest.approx(distribution[frozenset()], abs=1e-9)
        for j, letter in enumerate(VOCABULARY):
            for s in range(len(VOCABULARY) + 1):
                true = sum(p for c, p in distribution.items() if letter in c and len(c) == s)
                assert cast[i, j, s] == pytest.approx(true, abs=1e-8)


def test_marginals_survive_where_many_concepts_are_likely() -> None:
    """Division of generating functions loses nothing, whichever end it starts from."""
    p = np.random.default_rng(0).random((3, 120)).clip(0.01)
    votes = independent_votes(p)
    assert np.allclose(votes.scores.reshape(p.shape), p, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    sets=st.lists(st.lists(st.sampled_from(VOCABULARY), unique=True), min_size=2, max_size=4),
    row=rows,
    weight=st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]),
)
def test_the_set_with_the_highest_expected_f1(
    sets: list[list[str]], row: list[float], weight: float
) -> None:
    labels = table(sets)
    posterior = equal_votes(labels, [list(range(len(sets)))])
    pool = Pool((posterior, opinion([row])), np.ones((1, 2), bool), labels)
    (decision,) = pool.decide([1 - weight, weight], Voting())
    cases: Distribution = {}
    for concepts in sets:
        key = frozenset(concepts)
        cases[key] = cases.get(key, 0.0) + 1 / len(sets)
    true = [(1 - weight, cases), (weight, independent(row))]
    best = max(expected(chosen, true) for chosen in every_set())
    assert expected(frozenset(decision.cuis), true) == pytest.approx(best, abs=1e-5)
    assert decision.expected_f1 == pytest.approx(best, abs=1e-5)


def test_scores_are_the_weighted_mean_of_the_members() -> None:
    labels = table([["A", "B"], ["A"]])
    posterior = equal_votes(labels, [[0, 1]])
    pool = Pool((posterior, opinion([[0.2, 0.1, 0.8, 0, 0]])), np.ones((1, 2), bool), labels)
    (decision,) = pool.decide([3, 1], Voting())
    scores = decision.by_concept()
    assert scores == pytest.approx({"A": 0.8, "B": 0.4, "C": 0.2}, abs=1e-6)


def test_a_member_without_an_opinion_leaves_the_decision_to_the_others() -> None:
    labels = table([["A"], ["B"]])
    posterior = equal_votes(labels, [[0], [1]])
    pool = Pool(
        (posterior, opinion([[0, 0, 1, 0, 0]] * 2)), np.array([[1, 1], [1, 0]], bool), labels
    )
    with_it, without = pool.decide([0.2, 0.8], Voting())
    assert (with_it.cuis, without.cuis) == (("C",), ("B",))
    assert without.by_concept() == {"B": 1.0}


def test_an_unknown_concept_is_decided_by_those_that_know_it() -> None:
    labels = table([["A", "B"]])
    posterior = equal_votes(labels, [[0]])
    pool = Pool((posterior, opinion([[1.0, 0, 0, 0, 0]], "A")), np.ones((1, 2), bool), labels)
    (decision,) = pool.decide([0.2, 0.8], Voting())
    assert decision.by_concept() == pytest.approx({"A": 1.0, "B": 1.0})


def test_images_do_not_influence_each_other() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((600, len(VOCABULARY))).round(2).tolist()
    labels = table([])
    members = (opinion(values), opinion(values[::-1], "AB"))
    pool = Pool(members, rng.random((600, 2)) < 0.9, labels)
    together = pool.decide([1, 2], Voting())
    for i in (0, 255, 256, 599):
        one = tuple(Marginals(m.values[i : i + 1], m.known) for m in members)
        (alone,) = Pool(one, pool.present[i : i + 1], labels).decide([1, 2], Voting())
        assert alone.cuis == together[i].cuis
        assert alone.expected_f1 == pytest.approx(together[i].expected_f1)


@pytest.mark.parametrize(
    ("rule", "weights", "chosen"),
    [
        ("vote", [1, 1, 1], "AB"),
        ("vote", [1, 0, 1], "ABD"),  # of two members one is half
        ("vote", [3, 1, 1], "AB"),
        ("vote", [1, 1, 3], "AD"),
        ("union", [1, 1, 1], "ABCD"),
        ("union", [0, 1, 1], "ABCD"),
        ("union", [1, 0, 0], "AB"),
        ("intersection", [1, 1, 1], "A"),
        ("intersection", [1, 1, 0], "AB"),
    ],
)
def test_rules_for_sets(rule: Rule, weights: list[float], chosen: str) -> None:
    found = combine_sets([["A", "B"], ["B", "A", "C"], ["A", "D"]], weights, rule)
    assert "".join(sorted(found)) == chosen and found[0] == "A"


def sample(n: int = 300, seed: int = 0) -> tuple[list[list[str]], NDArray[np.float32]]:
    """True sets, and probabilities that know them well."""
    rng = np.random.default_rng(seed)
    there = rng.random((n, len(VOCABULARY))) < 0.4
    values = np.clip(there * 0.6 + rng.random(there.shape) * 0.4, 0, 1).astype(np.float32)
    return [[c for c, t in zip(VOCABULARY, row, strict=True) if t] for row in there], values


def test_weights_go_to_the_member_that_knows() -> None:
    truth, values = sample()
    noise = np.random.default_rng(1).random(values.shape).astype(np.float32)
    known = np.ones(len(VOCABULARY), bool)
    pool = Pool(
        (Marginals(noise, known), Marginals(values, known), Marginals(noise[::-1], known)),
        np.ones((len(truth), 3), bool),
        table([]),
    )
    found = choose_weights(pool, truth, Voting())
    assert sum(found.weights) == pytest.approx(1) and found.weights[1] > 0.5
    assert found.alone.shape == (3, len(truth))
    assert found.f1.mean() >= found.alone[1].mean() > found.alone[0].mean()
    score = pool.scorer(truth, Voting())
    steps = [(a / 10, b / 10, 1 - a / 10 - b / 10) for a in range(11) for b in range(11 - a)]
    best = max(score(weights).mean() for weights in steps)
    assert found.f1.mean() > best - 0.005


def test_equal_members_keep_equal_weights() -> None:
    truth, values = sample(60)
    one = Marginals(values, np.ones(len(VOCABULARY), bool))
    pool = Pool((one, one), np.ones((60, 2), bool), table([]))
    assert choose_weights(pool, truth, Voting()).weights == (0.5, 0.5)
