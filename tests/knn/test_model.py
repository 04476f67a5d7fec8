"""From vectors to a projection and voting parameters: what is fitted, compared, kept and left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from annotator.encoders.fitted import Fitted
from annotator.knn import grid_search
from annotator.knn import model as model_module
from annotator.knn.cross_validation import (
    LEAST_IMAGES,
    NeighborLists,
    cross_fitted,
    group_folds,
    leave_one_group_out,
)
from annotator.knn.fit import Fitter
from annotator.knn.grid_search import quick_scores
from annotator.knn.joint_projection import JointProjection
from annotator.knn.model import (
    _LEAST_FITTED,
    PENALTIES,
    SHARES,
    Branches,
    FittedModel,
    fit_model,
)
from annotator.knn.projection import unit
from annotator.knn.voting import Voting

NAMES = ["1", "none", "0.3", "3", "10"]


def fit(sample: Any, n: int | None = None, **options: Any) -> FittedModel:
    dim = sample.vectors.shape[1]
    groups = options.pop("groups", sample.groups)
    return fit_model(sample.vectors[:n], sample.concepts[:n], groups[:n], blocks=[dim], **options)


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
def auto(twins: Any) -> FittedModel:
    return fit(twins)


def test_the_best_penalty_is_chosen_on_cross_fitted_lists(twins: Any, auto: FittedModel) -> None:
    folds = group_folds(twins.numbers)
    fitter = Fitter(twins.vectors, twins.labels, [16], folds)
    scores = {}
    for name, penalty in zip(NAMES, PENALTIES, strict=True):
        lists = cross_fitted(
            partial(fitter.projection, penalty), twins.vectors, twins.numbers, folds
        )
        scores[name] = quick_scores(lists, twins.labels)[1]
    assert list(auto.f1_by_penalty) == NAMES
    assert auto.f1_by_penalty == {name: round(own.mean(), 6) for name, own in scores.items()}
    best = max(scores, key=lambda name: float(scores[name].mean()))
    assert auto.penalty == PENALTIES[NAMES.index(best)]
    assert auto.lists is not None and auto.tuned is not None and auto.projection is not None
    lists = cross_fitted(
        partial(fitter.projection, auto.penalty), twins.vectors, twins.numbers, folds
    )
    assert np.array_equal(auto.lists.found.rows, lists.found.rows)
    assert auto.voting == auto.tuned.voting
    # The projection of the index has seen all concepts.
    whole = fitter.projection(auto.penalty)
    assert auto.projection.matrix.tobytes() == whole.matrix.tobytes()


@pytest.mark.parametrize("place", [0, 2])
def test_penalties_are_compared_on_a_sample_and_the_best_has_all_lists(
    twins: Any, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    for module in (grid_search, model_module):
        monkeypatch.setattr(module, "GRID_IMAGES", 60)
    searched = []

    def counted(*given: Any, **options: Any) -> NeighborLists:
        found = cross_fitted(*given, **options)
        searched.append(len(found.queries))
        return found

    monkeypatch.setattr(model_module, "cross_fitted", counted)
    best = fit(twins).penalty
    others = [penalty for penalty in PENALTIES if penalty != best][:2]
    others.insert(place, best)
    monkeypatch.setattr(model_module, "PENALTIES", tuple(others))
    searched.clear()
    model = fit(twins)
    n = len(twins.vectors)
    assert model.lists is not None and model.penalty == best
    assert searched == ([n, 60, 60] if place == 0 else [n, 60, 60, n])
    folds = group_folds(twins.numbers)
    fitter = Fitter(twins.vectors, twins.labels, [16], folds)
    whole = cross_fitted(partial(fitter.own_rows, best), twins.vectors, twins.numbers, folds)
    assert np.array_equal(model.lists.queries, whole.queries)
    assert np.array_equal(model.lists.found.rows, whole.found.rows)
    assert np.array_equal(model.lists.found.similarities, whole.found.similarities)


def test_a_regression_is_taken_where_it_helps(hidden: Any) -> None:
    model = fit(hidden)
    assert model.penalty is not None and model.projection is not None
    assert model.projection.matrix.shape[1] == model.projection.unsupervised + 2
    assert max(model.f1_by_penalty.values()) > model.f1_by_penalty["none"] + 0.1
    plain = fit(hidden, adaptation="looks")
    assert model.tuned is not None and plain.tuned is not None
    assert model.tuned.f1 > plain.tuned.f1 + 0.1


def test_looks_know_no_concepts(twins: Any) -> None:
    model = fit(twins, adaptation="looks")
    assert model.penalty is None and list(model.f1_by_penalty) == ["none"]
    assert model.projection is not None
    assert model.projection.matrix.shape[1] == model.projection.unsupervised
    other = fit(replace(twins, concepts=twins.concepts[::-1]), adaptation="looks", tuning=False)
    assert other.projection is not None
    assert other.projection.matrix.tobytes() == model.projection.matrix.tobytes()


def test_none_leaves_the_vectors_alone(twins: Any) -> None:
    model = fit(twins, adaptation="none")
    assert model.projection is None and model.penalty is None and model.f1_by_penalty == {}
    assert model.lists is not None and model.tuned is not None
    expected = leave_one_group_out(twins.vectors, twins.numbers)
    assert np.array_equal(model.lists.found.rows, expected.found.rows)
    untuned = fit(twins, adaptation="none", tuning=False)
    assert untuned.voting == Voting(beta=64.0) and untuned.lists is None


@pytest.mark.parametrize("adaptation", ["looks", "none"])
def test_the_own_group_does_not_vote(twins: Any, adaptation: str) -> None:
    """Every image has an equal twin: seeing it would make the nearest neighbour perfect."""
    grouped = fit(twins, adaptation=adaptation).tuned
    alone = fit(twins, adaptation=adaptation, groups=[""] * 240).tuned
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
    model = fit(twins, adaptation=adaptation, tuning=False, voting=voting, fixed=["beta"])
    assert model.voting == voting
    assert model.lists is None and model.tuned is None and model.f1_by_penalty == {}
    assert (model.projection is None) == (adaptation == "none")
    assert model.penalty == (1.0 if adaptation == "auto" else None)


def test_repetition_gives_the_same(twins: Any, auto: FittedModel) -> None:
    again = fit(twins)
    assert again.tuned == auto.tuned and again.f1_by_penalty == auto.f1_by_penalty
    assert again.projection is not None and auto.projection is not None
    one, other = again.projection.to_arrays(), auto.projection.to_arrays()
    assert {name: a.tobytes() for name, a in one.items()} == {
        name: a.tobytes() for name, a in other.items()
    }


# Too few images


@pytest.mark.parametrize("n", [1, _LEAST_FITTED - 1])
def test_to_very_few_images_nothing_is_fitted(twins: Any, n: int) -> None:
    for adaptation in ("auto", "looks", "none"):
        model = fit(twins, n, adaptation=adaptation)
        assert model == FittedModel(None, None, {}, Voting(beta=64.0), None, None)
    given = fit(twins, n, voting=Voting(beta=3.0), fixed=["beta"])
    assert given.voting == Voting(beta=3.0)


@pytest.mark.parametrize("n", [_LEAST_FITTED, LEAST_IMAGES - 1])
def test_too_few_images_are_not_tuned_on(twins: Any, n: int) -> None:
    model = fit(twins, n)
    assert model.tuned is None and model.lists is None and model.voting == Voting()
    assert model.projection is not None and model.penalty == 1.0
    unprojected = fit(twins, n, adaptation="none")
    assert unprojected == FittedModel(None, None, {}, Voting(beta=64.0), None, None)


def test_one_group_is_too_few_images(twins: Any) -> None:
    """Nobody of another group could annotate them."""
    for adaptation in ("auto", "none"):
        model = fit(twins, adaptation=adaptation, groups=["one"] * 240)
        assert model.tuned is None and model.lists is None and model.f1_by_penalty == {}
        assert (model.projection is None) == (adaptation == "none")


def test_collections_without_concepts(twins: Any) -> None:
    model = fit(replace(twins, concepts=[[]] * 240))
    assert model.tuned is not None and model.tuned.f1 == 1.0
    assert model.penalty == 1.0  # of equal ones the default


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
    model = fit_model(
        vectors, [["C1"]] * 16, [""] * 16, blocks=(16,), adaptation="none", tuning=False,
        voting=voting, fixed=fixed,
    )  # fmt: skip
    assert model.voting.beta == beta
    assert model.voting.k == (voting or Voting()).k


# A fitted encoder's branches

BRANCHES, LENGTH = 3, 6


def memorising(
    n: int = 240, *, honest: bool = True
) -> tuple[NDArray[np.float32], list[tuple[str, ...]], Branches]:
    """Vectors with blocks that know the labels by heart, but of their own fold: noise there."""
    rng = np.random.default_rng(0)
    concepts = [(f"C{k}",) for k in rng.integers(0, LENGTH, n)]
    folds = rng.integers(0, BRANCHES, n)
    known = np.eye(LENGTH)[[int(row[0][1:]) for row in concepts]]
    blocks = [rng.normal(size=(n, 4))]
    for branch in range(BRANCHES):
        noise = rng.normal(size=(n, LENGTH))
        blocks.append(np.where((folds == branch)[:, None], noise, known + 0.01 * noise))
    vectors = unit(np.hstack([unit(block) for block in blocks])).astype(np.float32)
    columns = tuple((4 + LENGTH * b, 4 + LENGTH * (b + 1)) for b in range(BRANCHES))
    heads = np.stack([10 * np.eye(LENGTH, dtype=np.float32)] * BRANCHES)
    contents = rng.integers(0, 256, (n, 32)).astype(np.uint8)
    order = np.lexsort(contents[:, 15::-1].T)
    fitted = Fitted(
        columns,
        tuple(f"C{k}" for k in range(LENGTH)),
        heads,
        np.full((BRANCHES, LENGTH), -5, np.float32),
        contents[order, :16],
        folds[order].astype(np.int16),
    )
    branches = Branches.of(fitted, contents, [""] * n)
    return vectors, concepts, branches if honest else replace(branches, folds=(folds + 1) % 3)


def fit_branches(vectors: Any, concepts: Any, branches: Branches) -> FittedModel:
    return fit_model(
        vectors, concepts, [""] * len(vectors), blocks=[4, *[LENGTH] * BRANCHES], branches=branches
    )


def test_branches_that_learnt_by_heart_do_not_fool_the_estimate() -> None:
    model = fit_branches(*memorising())
    assert model.tuned is not None and model.tuned.f1 < 0.35  # chance is one in six
    fooled = fit_branches(*memorising(honest=False))
    assert fooled.tuned is not None and fooled.tuned.f1 > 0.9  # what is guarded against


def test_branches_that_tell_concepts_get_a_share_and_a_say() -> None:
    vectors, concepts, branches = memorising()
    telling = np.eye(LENGTH)[[int(row[0][1:]) for row in concepts]]
    telling = unit(telling + 0.3 * np.random.default_rng(1).normal(size=telling.shape))
    for start, end in branches.fitted.columns:
        vectors[:, start:end] = telling / np.sqrt(BRANCHES + 1)
    model = fit_branches(unit(vectors).astype(np.float32), concepts, branches)
    assert model.tuned is not None and model.tuned.f1 > 0.9
    assert isinstance(model.projection, JointProjection) and model.share is not None
    assert list(model.f1_by_share) == [f"{share:g}" for share in SHARES]
    assert max(model.f1_by_share.values()) - model.f1_by_share[f"{model.share:g}"] < 0.02
    assert model.lists is not None and model.lists.found.evidence is not None
    back = NeighborLists.from_arrays(model.lists.to_arrays(), len(vectors))
    assert back is not None and np.array_equal(
        back.found.evidence,
        model.lists.found.evidence,  # type: ignore[arg-type]
    )


def test_the_branch_of_a_group() -> None:
    contents = np.random.default_rng(0).integers(0, 256, (9, 32)).astype(np.uint8)
    order = np.lexsort(contents[:6, 15::-1].T)
    folds = np.array([0, 1, 1, 0, -1, 1], np.int16)
    zeros = np.zeros((2, 1, 1), np.float32)
    fitted = Fitted(
        ((0, 1), (1, 2)), ("A",), zeros, zeros[:, 0], contents[:6][order, :16], folds[order]
    )
    groups = ["a", "b", "b", "c", "d", "c", "a", "e", "e"]
    found = Branches.of(fitted, contents, groups).folds.tolist()
    assert found[:3] == [0, 1, 1]
    assert found[3] == found[5] == -1  # both branches have seen group c
    assert found[4] == -1  # so has everyone d
    assert found[6] == 0  # a new image of group a
    assert found[7] == found[8] in (0, 1)  # nobody has seen group e


def test_without_an_honest_branch_there_is_no_estimate() -> None:
    vectors, concepts, branches = memorising()
    seen = replace(branches, folds=np.full(len(vectors), -1))
    model = fit_branches(vectors, concepts, seen)
    assert model.tuned is None and model.lists is None and model.projection is not None
