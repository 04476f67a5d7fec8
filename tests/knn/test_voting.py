"""The parameters in one place: each has its effect, and none is out of range."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from annotator.knn.decide import decide
from annotator.knn.posterior import vote
from annotator.knn.voting import Voting
from index import LabelTable, Neighbors

LABELS = LabelTable.from_sets([["A"], ["B"], ["B", "C"], ["C"], ["D", "B"]])
NEIGHBORS = Neighbors(
    np.array([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]]),
    np.tile(np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32), (2, 1)),
)


@pytest.mark.parametrize(
    "voting",
    [
        Voting(),
        Voting(k=1),
        Voting(k=3, beta=0.0),
        Voting(beta=1.0, kernel="inverse"),
        Voting(beta=2.0, kernel="rank", k=4),
        Voting(beta=1.0, prior=0.5, typical=0.8),
        Voting(beta=1.0, min_score=0.3),
        Voting(beta=1.0, decider="threshold", threshold=0.5),
        Voting(beta=1.0, decider="top-r"),
        Voting(beta=1.0, decider="top-r", top_r=2),
    ],
)
def test_parameters_are_passed_on(voting: Voting) -> None:
    posterior, decisions = voting.decide(NEIGHBORS, LABELS)
    expected = vote(
        NEIGHBORS,
        LABELS,
        k=voting.k,
        beta=voting.beta,
        kernel=voting.kernel,
        prior=voting.prior,
        typical=voting.typical,
    )
    assert np.array_equal(posterior.rows, expected.rows)
    assert np.array_equal(posterior.weights, expected.weights)
    by_hand = decide(
        expected,
        voting.decider,
        threshold=voting.threshold,
        top_r=voting.top_r,
        min_score=voting.min_score,
    )
    assert [d.cuis for d in decisions] == [d.cuis for d in by_hand]


def test_each_parameter_changes_the_outcome() -> None:
    def cuis(**parameters: Any) -> list[tuple[str, ...]]:
        return [d.cuis for d in Voting(**parameters).decide(NEIGHBORS, LABELS)[1]]

    plain = {"beta": 1.0}
    assert cuis(k=1) == [("A",), ("B", "D")]
    assert cuis(**plain) != cuis(beta=1000.0)
    sharp = {"beta": 8.0}
    assert cuis(**sharp, kernel="rank") != cuis(**sharp, kernel="uniform")
    assert cuis(k=1, beta=9.0) != cuis(k=1, beta=9.0, prior=3.0)
    prior = {"k": 1, "beta": 9.0, "prior": 3.0}
    assert cuis(**prior) != cuis(**prior, typical=0.1)
    assert cuis(**plain) != cuis(**plain, min_score=0.5)
    assert cuis(**plain, decider="top-r", top_r=1) == [("B",), ("B",)]
    assert cuis(**plain, decider="top-r", top_r=0) == [(), ()]
    threshold = {**plain, "decider": "threshold"}
    assert cuis(**threshold, threshold=0.1) != cuis(**threshold, threshold=0.5)


def test_parameters_survive_json() -> None:
    voting = Voting(k=7, kernel="rank", prior=0.3, typical=0.7, decider="top-r", top_r=3)
    assert Voting(**json.loads(json.dumps(asdict(voting)))) == voting


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", 0),
        ("k", 2.5),
        ("k", True),
        ("k", "50"),
        ("beta", -1.0),
        ("beta", float("nan")),
        ("beta", float("inf")),
        ("kernel", "gauss"),
        ("kernel", None),
        ("prior", -0.1),
        ("prior", float("inf")),
        ("typical", 1.1),
        ("typical", float("nan")),
        ("decider", "best"),
        ("threshold", 1.5),
        ("threshold", None),
        ("top_r", -1),
        ("min_score", float("nan")),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name} cannot be"):
        Voting(**{name: value})  # type: ignore[arg-type]
