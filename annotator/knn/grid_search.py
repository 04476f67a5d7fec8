"""Grid search of the voting parameters on out-of-sample neighbour lists."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.errors import AnnotatorError
from annotator.evaluation.measures import bootstrap_interval, predicted_interval, standard_error
from annotator.evaluation.official_f1 import image_score
from annotator.knn.cross_validation import MOST_NEIGHBORS, NeighborLists
from annotator.knn.decision import choose_candidates, choose_concepts
from annotator.knn.macro_f1 import by_band, fit_thresholds
from annotator.knn.posterior import Ballots, weigh
from annotator.knn.voting import Objective, Voting
from index import LabelTable
from index.progress import track
from index.sampling import sample_rows

KS = (5, 10, 20, 50, 100)
BETAS = (8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0)
OTHER_KERNELS: tuple[dict[str, Any], ...] = (
    {"kernel": "inverse", "beta": 1.0},
    {"kernel": "inverse", "beta": 2.0},
    {"kernel": "inverse", "beta": 4.0},
    {"kernel": "inverse", "beta": 8.0},
    {"kernel": "rank", "beta": 1.0},
    {"kernel": "rank", "beta": 2.0},
    {"kernel": "uniform", "beta": 0.0},
)
PRIORS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
HEAD_WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
THRESHOLDS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
_TO_COMPARE_LISTS = (
    *(Voting(k=k, beta=b) for k, b in ((20, 16.0), (20, 32.0), (50, 8.0), (50, 16.0), (50, 32.0))),
    Voting(k=50, kernel="inverse", beta=4.0),
    Voting(k=100, kernel="rank", beta=1.0),
)
_USUAL_HEAD_WEIGHT = 0.2  # while the kernel is chosen, if it is better than none
NEW_IMAGES = 500  # whose mean F1 is predicted
GRID_IMAGES = 2000  # annotated by every candidate; the choice annotates all
_QUANTILES = 101
_AT_ONCE = 128  # images, whose tables stay in the cache


@dataclass(frozen=True)
class Tuned:
    """Result of a grid search, with its out-of-sample quality.

    Attributes:
        voting: The chosen parameters.
        f1: Mean F1, with each image annotated by images of other groups.
        interval: 95% bootstrap interval of `f1`, over groups.
        predicted: 95% interval for the mean F1 of `predicted_images` new images like these.
        predicted_images: 500.
        images: Number of annotated images.
        groups: Number of their groups.
        nearest: float[101], quantiles of the similarity of an image to its nearest neighbour.
        grid: Candidates with their F1.
        objectives: What each objective earns, with the same neighbours: mean F1 over images,
            "f1"; mean F1 over concepts, "macro_f1"; and the "recall" of each frequency band of
            `annotator.knn.voting.BANDS`, None where no image has such a concept.
    """

    voting: Voting
    f1: float
    interval: tuple[float, float]
    predicted: tuple[float, float]
    predicted_images: int
    images: int
    groups: int
    nearest: Sequence[float]
    grid: Sequence[Mapping[str, Any]]
    objectives: Mapping[Objective, Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for the manifest of the index."""
        return asdict(self)


def choose_voting(
    lists: NeighborLists,
    labels: LabelTable,
    *,
    start: Voting | None = None,
    fixed: Sequence[str] = (),
    head_weight: float | None = None,
) -> Tuned:
    """Choose kernel, k and beta, then the weights of the heads and of the prior, then the decider.

    Kernels are equally simple, and the best one is taken, of equal ones the nearest to the default.
    Other weights of the heads, a prior or another decider have to be proven better (`simplest`): a
    prior and a threshold cost the scores their meaning. All candidates annotate the same images, at
    most 2,000; the final choice annotates all.

    Thresholds for macro F1 are fitted to the chosen neighbours. If `start` has the decider
    "macro-f1", it is the last to be put in, in the place of "expected-f1": the neighbours that are
    best for one are good for the other (docs/rare.md).

    With incomplete labels, kernel, k and beta are all that is tuned.

    Args:
        lists: From `annotator.knn.cross_validation`; with incomplete labels from
            `annotator.knn.incomplete`.
        labels: Concepts of the index rows; with incomplete labels likewise.
        start: The defaults, and values of the fields that are not tuned (`min_score`, and those in
            `fixed`).
        fixed: Fields of `Voting` that are not tuned.
        head_weight: That of `quick_scores` on a sample of the lists, if they were compared by it;
            None to find it.

    Raises:
        AnnotatorError: As `check_k`.
    """
    check_k(start, fixed)
    nearest = np.quantile(lists.found.similarities[:, 0], np.linspace(0, 1, _QUANTILES))
    typical = round(float(min(nearest[_QUANTILES // 2], 1.0)), 6)
    chosen = replace(start or Voting(), typical=typical)
    if chosen.assume_incomplete:
        # They would be tuned to leave out what the labels lack: what is filled in, that is.
        fixed = [*fixed, "prior", "decider", "threshold"]
    for_macro_f1 = chosen.decider == "macro-f1"
    if for_macro_f1:
        chosen, fixed = replace(chosen, decider="expected-f1"), [*fixed, "decider"]
    some = sample_lists(lists)
    grid: list[dict[str, Any]] = []
    steps = [(_kernels(chosen), 0), (_priors(), 2), (_deciders(chosen), 2)]
    if lists.found.evidence is not None:
        steps.insert(1, (_head_weights(), 1))
        if "head_weight" not in fixed:
            if head_weight is None:
                head_weight = quick_scores(some, labels)[0].head_weight
            chosen = replace(chosen, head_weight=head_weight)
    free = [(_free(candidates, chosen, fixed), errors) for candidates, errors in steps]
    blocks = _blocks(some)
    work = [(i, block) for i, (changes, _) in enumerate(free) if changes for block in blocks]
    total = sum(len(free[i][0]) * len(block.queries) for i, block in work)
    tracked = track(
        work, total=total, label="Choosing", unit="trials",
        size=lambda one: len(free[one[0]][0]) * len(one[1].queries),
    )  # fmt: skip
    for i, of_step in groupby(tracked, key=lambda one: one[0]):
        votings = [replace(chosen, **changes) for changes in free[i][0]]
        tried = _f1_by_voting((block for _, block in of_step), labels, votings)
        pairs = zip(votings, tried, strict=True)
        grid += [{**_tried(voting), "f1": round(float(f1.mean()), 6)} for voting, f1 in pairs]
        chosen = votings[simplest(tried, some.groups, free[i][1])]
    chosen = replace(chosen, macro_thresholds=fit_thresholds(lists, labels, chosen))
    rules: dict[Objective, Voting] = {
        "f1": chosen, "macro-f1": replace(chosen, decider="macro-f1")
    }  # fmt: skip
    found = {objective: _earned(lists, labels, voting) for objective, voting in rules.items()}
    objective: Objective = "macro-f1" if for_macro_f1 else "f1"
    chosen, scores, groups = rules[objective], found[objective][0], lists.group_of_each
    mean, interval = float(scores.mean()), bootstrap_interval(scores.tolist(), groups)
    return Tuned(
        voting=chosen,
        f1=mean,
        interval=interval,
        predicted=predicted_interval(mean, interval, len(scores), NEW_IMAGES),
        predicted_images=NEW_IMAGES,
        images=len(scores),
        groups=len(np.unique(groups)),
        nearest=[round(float(s), 6) for s in nearest],
        grid=grid,
        objectives={name: earned for name, (_, earned) in found.items()},
    )


def check_k(start: Voting | None, fixed: Sequence[str]) -> None:
    """Check that neighbour lists are long enough for a number of neighbours that is not tuned.

    Raises:
        AnnotatorError: They are not.
    """
    if start is not None and "k" in fixed and start.k > MOST_NEIGHBORS:
        raise AnnotatorError(
            f"Tuning with {start.k} voting neighbours is not possible: it looks at the "
            f"{MOST_NEIGHBORS} nearest of each image.",
            f"Give {MOST_NEIGHBORS} or less, or none to tune it; without tuning, and to `annotator "
            "annotate`, more can be given.",
        )


def simplest(
    scores: Sequence[NDArray[np.float64]], groups: NDArray[np.int64] | None, errors: int
) -> int:
    """Choose the first of some candidates, from simple to complex, that is not proven worse.

    Its mean loss to the best one is at most some standard errors of that loss, paired by image and
    over groups: the one-standard-error rule (Breiman, Friedman, Olshen and Stone 1984,
    "Classification and regression trees", section 3.4.3), with paired errors. With none, it is the
    best one.

    Args:
        scores: F1 of the same images under each candidate, float64[n].
        groups: int64[n], the group of each image; None if each is its own.
        errors: Number of standard errors.

    Returns:
        The position of the candidate.
    """
    best = max(scores, key=lambda own: float(own.mean()))
    losses = [best - own for own in scores]
    bounds = [errors * standard_error(loss, groups) if errors else 0.0 for loss in losses]
    return next(i for i, loss in enumerate(losses) if loss.mean() <= bounds[i])


def quick_scores(lists: NeighborLists, labels: LabelTable) -> tuple[Voting, NDArray[np.float64]]:
    """The best of a few votings, and F1 of each image under it, for comparing neighbour lists.

    Heads are listened to or not: where labels are many and noisy, their evidence is worse than none
    (docs/accuracy.md).
    """
    weights = (0.0,) if lists.found.evidence is None else (_USUAL_HEAD_WEIGHT, 0.0)
    votings = [replace(v, head_weight=weight) for v in _TO_COMPARE_LISTS for weight in weights]
    scores = _f1_by_voting(_blocks(lists), labels, votings)
    best = max(range(len(votings)), key=lambda i: float(scores[i].mean()))
    return votings[best], scores[best]


def sample_lists(lists: NeighborLists) -> NeighborLists:
    """At most 2,000 of the lists, evenly spaced: what candidates are compared on."""
    return lists.take(sample_rows(len(lists.queries), GRID_IMAGES))


def f1_of_lists(lists: NeighborLists, labels: LabelTable, voting: Voting) -> NDArray[np.float64]:
    """F1 of each image of neighbour lists, float64[q].

    Args:
        lists: From `annotator.knn.cross_validation`.
        labels: Concepts of the index rows.
        voting: Voting parameters.
    """
    return _f1_by_voting(_blocks(lists), labels, [voting])[0]


def _blocks(lists: NeighborLists) -> list[NeighborLists]:
    rows = range(len(lists.queries))
    return [lists.take(np.array(rows[i : i + _AT_ONCE])) for i in rows[::_AT_ONCE]]


def _f1_by_voting(
    blocks: Iterable[NeighborLists], labels: LabelTable, votings: Sequence[Voting]
) -> list[NDArray[np.float64]]:
    """F1 of each image under each of some votings, float64[q].

    Votings by the same neighbours differ in weights alone, so they share their ballots.

    Args:
        blocks: Neighbour lists of q images, some at a time.
        labels: Concepts of the index rows.
        votings: Voting parameters.
    """
    found: list[list[NDArray[np.float64]]] = [[] for _ in votings]
    for block in blocks:
        counted: dict[tuple[int, bool], tuple[Ballots, NDArray[np.bool_]]] = {}
        for voting, f1 in zip(votings, found, strict=True):
            posterior, voters = weigh(block.found, labels, voting), (voting.k, voting.prior > 0)
            if voters not in counted:
                ballots = Ballots.of(posterior.rows, labels)
                counted[voters] = ballots, ballots.held_by(block.queries, labels)
            ballots, right = counted[voters]
            votes = ballots.cast(posterior.weights)
            told = choose_candidates(votes, votes.scores, labels, voting)
            image, q = votes.candidate_image[told], len(block.queries)
            hits = np.bincount(image, right[told], q)
            total = np.bincount(image, minlength=q) + labels.sizes[block.queries]
            f1.append(np.where(total > 0, 2 * hits / np.maximum(total, 1), 1.0))
    return [np.concatenate(f1) for f1 in found]


def _earned(
    lists: NeighborLists, labels: LabelTable, voting: Voting
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """F1 of each image, and what the voting earns, as in `Tuned.objectives`."""
    truth = [set(labels.row(row)) for row in lists.queries.tolist()]
    decisions = choose_concepts(weigh(lists.found, labels, voting), voting)
    macro_f1, recall = by_band(truth, decisions, labels)
    pairs = zip(truth, decisions, strict=True)
    scores = np.array([image_score(own, decision.cuis) for own, decision in pairs])
    f1 = float(scores.mean())
    return scores, {"f1": round(f1, 6), "macro_f1": round(macro_f1, 6), "recall": recall}


def _kernels(default: Voting) -> list[dict[str, Any]]:
    """Kernels with their k and beta: the default one first, what is nearest to it before."""
    kernels = [*({"kernel": "exponential", "beta": beta} for beta in BETAS), *OTHER_KERNELS]

    def complexity(changes: Mapping[str, Any]) -> tuple[bool, float]:
        far = abs(math.log(changes["k"] / default.k))
        if changes["kernel"] != default.kernel:
            return True, far  # its beta means something else
        return False, far + abs(math.log((changes["beta"] or 1.0) / (default.beta or 1.0)))

    return sorted(({"k": k, **kernel} for k in KS for kernel in kernels), key=complexity)


def _head_weights() -> list[dict[str, Any]]:
    nearest = sorted(HEAD_WEIGHTS, key=lambda weight: round(abs(weight - _USUAL_HEAD_WEIGHT), 6))
    return [{"head_weight": weight} for weight in nearest]


def _priors() -> list[dict[str, Any]]:
    return [{"prior": prior} for prior in PRIORS]


def _deciders(default: Voting) -> list[dict[str, Any]]:
    nearest = sorted(THRESHOLDS, key=lambda t: round(abs(t - default.threshold), 6))
    thresholds = [{"decider": "threshold", "threshold": t} for t in nearest]
    return [{"decider": "expected-f1"}, *thresholds, {"decider": "top-r"}]


def _free(
    candidates: Sequence[Mapping[str, Any]], start: Voting, fixed: Sequence[str]
) -> list[dict[str, Any]]:
    """Unique changes to free fields, without candidates that contradict fixed fields."""
    kinds = [name for name in ("kernel", "decider") if name in fixed]
    free: list[dict[str, Any]] = []
    for candidate in candidates:
        if any(candidate.get(n, getattr(start, n)) != getattr(start, n) for n in kinds):
            continue
        changes = {name: value for name, value in candidate.items() if name not in fixed}
        if changes and changes not in free:
            free.append(changes)
    return free


def _tried(voting: Voting) -> dict[str, Any]:
    """Effective parameters of a candidate."""
    shown: dict[str, Any] = {
        "k": voting.k,
        "kernel": voting.kernel,
        "beta": voting.beta,
        "prior": voting.prior,
        "decider": voting.decider,
    }
    if voting.head_weight:
        shown["head_weight"] = voting.head_weight
    return shown | ({"threshold": voting.threshold} if voting.decider == "threshold" else {})
