"""From vectors to a projection and voting parameters: what is fitted, compared, kept and left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from annotator.knn.cross_validation import (
    LEAST_IMAGES,
    cross_fitted,
    group_folds,
    leave_one_group_out,
)
from annotator.knn.fit import Fitter
from annotator.knn.fit_index import _LEAST_FITTED, PENALTIES, Choice, choose
from annotator.knn.grid_search import quick_f1
from annotator.knn.voting import Voting

NAMES = ["none", *(f"{penalty:g}" for penalty in PENALTIES)]


def choose_for(sample: Any, n: int | None = None, **options: Any) -> Choice:
    dim = sample.vectors.shape[1]
    groups = options.pop("groups", sample.groups)
    return choose(sample.vectors[:n], sample.concepts[:n], groups[:n], blocks=[dim], **options)


@pytest.fixture(scope="module")
def hidden(make_twins: Callable[..., Any]) -> Any:
    """The concept is in one number of little weight among many that vary a lot."""
    rng = np.random.default_rng(1)
    kind = rng.integers(0, 2, 240)
    vectors = rng.normal(size=(240, 30)).astype(np.float32)
    vectors[:, 7] += 3 * kind
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return replace(
        make_twins(240), vectors=vectors, concepts=[[f"C{k}"] for k in kind], groups=[""] * 240
    )


@pytest.fixture(scope="module")
def auto(twins: Any) -> Choice:
    return choose_for(twins)


def test_the_best_penalty_is_chosen_on_cross_fitted_lists(twins: Any, auto: Choice) -> None:
    folds = group_folds(twins.numbers)
    fitter = Fitter(twins.vectors, twins.labels, [16], folds)
    expected = {}
    for name, penalty in zip(NAMES, (None, *PENALTIES), strict=True):
        lists = cross_fitted(fitter, twins.vectors, twins.numbers, folds, penalty)
        expected[name] = quick_f1(lists, twins.labels)
    assert auto.penalties == expected and list(auto.penalties) == NAMES
    best = "none" if auto.penalty is None else f"{auto.penalty:g}"
    assert expected[best] == max(expected.values())
    assert auto.lists is not None and auto.tuned is not None and auto.projection is not None
    lists = cross_fitted(fitter, twins.vectors, twins.numbers, folds, auto.penalty)
    assert np.array_equal(auto.lists.found.rows, lists.found.rows)
    assert auto.voting == auto.tuned.voting
    # The projection of the index has seen all concepts.
    whole = fitter.projection(auto.penalty)
    assert auto.projection.matrix.tobytes() == whole.matrix.tobytes()


def test_a_regression_is_taken_where_it_helps(hidden: Any) -> None:
    choice = choose_for(hidden)
    assert choice.penalty in PENALTIES and choice.projection is not None
    assert choice.projection.matrix.shape[1] == choice.projection.looks + 2
    assert max(choice.penalties.values()) > choice.penalties["none"] + 0.1
    looks = choose_for(hidden, adaptation="looks")
    assert choice.tuned is not None and looks.tuned is not None
    assert choice.tuned.f1 > looks.tuned.f1 + 0.1


def test_looks_know_no_concepts(twins: Any) -> None:
    choice = choose_for(twins, adaptation="looks")
    assert choice.penalty is None and list(choice.penalties) == ["none"]
    assert choice.projection is not None
    assert choice.projection.matrix.shape[1] == choice.projection.looks
    other = choose_for(
        replace(twins, concepts=twins.concepts[::-1]), adaptation="looks", tuning=False
    )
    assert other.projection is not None
    assert other.projection.matrix.tobytes() == choice.projection.matrix.tobytes()


def test_none_leaves_the_vectors_alone(twins: Any) -> None:
    choice = choose_for(twins, adaptation="none")
    assert choice.projection is None and choice.penalty is None and choice.penalties == {}
    assert choice.lists is not None and choice.tuned is not None
    expected = leave_one_group_out(twins.index, twins.vectors, twins.numbers)
    assert np.array_equal(choice.lists.found.rows, expected.found.rows)
    untuned = choose_for(twins, adaptation="none", tuning=False)
    assert untuned.voting == Voting(beta=64.0) and untuned.lists is None


@pytest.mark.parametrize("adaptation", ["auto", "looks", "none"])
def test_the_own_group_does_not_vote(twins: Any, adaptation: str) -> None:
    """Every image has an equal twin: seeing it would make the nearest neighbour perfect."""
    grouped = choose_for(twins, adaptation=adaptation).tuned
    alone = choose_for(twins, adaptation=adaptation, groups=[""] * 240).tuned
    assert grouped is not None and alone is not None
    assert grouped.f1 < 0.9
    if adaptation == "none":
        assert alone.f1 > 0.99
    else:  # one in five twins is in the own fold
        assert alone.f1 > grouped.f1 + 0.05
    assert grouped.images == alone.images == 240


@pytest.mark.parametrize("adaptation", ["auto", "looks", "none"])
def test_without_tuning_the_parameters_stay(twins: Any, adaptation: str) -> None:
    voting = Voting(k=7, beta=5.0, kernel="rank")
    choice = choose_for(twins, adaptation=adaptation, tuning=False, voting=voting, fixed=["beta"])
    assert choice.voting == voting
    assert choice.lists is None and choice.tuned is None and choice.penalties == {}
    assert (choice.projection is None) == (adaptation == "none")
    assert choice.penalty == (1.0 if adaptation == "auto" else None)


def test_what_is_given_stays(twins: Any) -> None:
    voting = Voting(decider="threshold", threshold=0.4, k=9)
    first = choose_for(twins, voting=voting, fixed=["decider", "threshold", "k"])
    chosen = first.voting
    assert (chosen.decider, chosen.threshold, chosen.k) == ("threshold", 0.4, 9)
    assert first.tuned is not None and len(first.tuned.grid) > 10


def test_repetition_gives_the_same(twins: Any, auto: Choice) -> None:
    again = choose_for(twins)
    assert again.tuned == auto.tuned and again.penalties == auto.penalties
    assert again.projection is not None and auto.projection is not None
    one, other = again.projection.to_arrays(), auto.projection.to_arrays()
    assert {name: a.tobytes() for name, a in one.items()} == {
        name: a.tobytes() for name, a in other.items()
    }


# Too few images


@pytest.mark.parametrize("n", [1, _LEAST_FITTED - 1])
def test_to_very_few_images_nothing_is_fitted(twins: Any, n: int) -> None:
    for adaptation in ("auto", "looks", "none"):
        choice = choose_for(twins, n, adaptation=adaptation)
        assert choice == Choice(None, None, {}, Voting(beta=64.0), None, None)
    given = choose_for(twins, n, voting=Voting(beta=3.0), fixed=["beta"])
    assert given.voting == Voting(beta=3.0)


@pytest.mark.parametrize("n", [_LEAST_FITTED, LEAST_IMAGES - 1])
def test_too_few_images_are_not_tuned_on(twins: Any, n: int) -> None:
    choice = choose_for(twins, n)
    assert choice.tuned is None and choice.lists is None and choice.voting == Voting()
    assert choice.projection is not None and choice.penalty == 1.0
    unprojected = choose_for(twins, n, adaptation="none")
    assert unprojected == Choice(None, None, {}, Voting(beta=64.0), None, None)


@pytest.mark.parametrize("adaptation", ["auto", "looks", "none"])
def test_one_group_is_too_few_images(twins: Any, adaptation: str) -> None:
    """Nobody of another group could annotate them."""
    choice = choose_for(twins, adaptation=adaptation, groups=["one"] * 240)
    assert choice.tuned is None and choice.lists is None and choice.penalties == {}
    assert (choice.projection is None) == (adaptation == "none")


def test_collections_without_concepts(twins: Any) -> None:
    choice = choose_for(replace(twins, concepts=[[]] * 240))
    assert choice.tuned is not None and choice.tuned.f1 == 1.0
    assert choice.penalty is None  # of equal ones the simplest


@pytest.mark.parametrize(
    ("voting", "fixed", "beta"),
    [
        (None, (), 64.0),
        (Voting(k=7), ("k",), 64.0),
        (Voting(k=7), (), Voting().beta),
        (Voting(beta=5.0), ("beta",), 5.0),
    ],
)
def test_beta_suits_unprojected_vectors_unless_it_was_given(
    voting: Voting | None, fixed: tuple[str, ...], beta: float
) -> None:
    vectors = np.eye(16, dtype=np.float32)
    choice = choose(
        vectors, [["C1"]] * 16, [""] * 16, blocks=(16,), adaptation="none", tuning=False,
        voting=voting, fixed=fixed,
    )  # fmt: skip
    assert choice.voting.beta == beta
    assert choice.voting.k == (voting or Voting()).k
