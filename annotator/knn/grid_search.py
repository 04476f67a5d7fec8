"""Grid search of the voting parameters on out-of-sample neighbour lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.evaluation.measures import bootstrap_interval
from annotator.evaluation.official_f1 import image_score
from annotator.knn.cross_validation import NeighborLists
from annotator.knn.decision import Decision, choose_concepts
from annotator.knn.macro_f1 import by_band, fit_thresholds
from annotator.knn.posterior import weigh
from annotator.knn.voting import Objective, Voting
from index import LabelTable
from index.progress import track
from index.rows import sample_rows

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
_PAIRS_FOR_PROJECTIONS = ((20, 16.0), (20, 32.0), (50, 8.0), (50, 16.0), (50, 32.0))
_USUAL_HEAD_WEIGHT = 0.2  # while the kernel is chosen
GRID_IMAGES = 2000  # annotated by every candidate; the choice annotates all
_QUANTILES = 101


@dataclass(frozen=True)
class Tuned:
    """Result of a grid search, with its out-of-sample quality.

    Attributes:
        voting: Parameters with the highest mean F1.
        f1: Mean F1, with each image annotated by images of other groups.
        interval: 95% bootstrap interval of `f1`, over groups.
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
) -> Tuned:
    """Choose kernel, k and beta, then the weights of the heads and of the prior, then the decider.

    Each step changes the choice of the previous one only for a higher F1. All candidates annotate
    the same images, at most 2,000; the final choice annotates all. The F1 of the best candidate is
    biased upwards, by less than the width of the interval with hundreds of images.

    Thresholds for macro F1 are fitted to the chosen neighbours. If `start` has the decider
    "macro-f1", it is the last to be put in, in the place of "expected-f1": the neighbours that are
    best for one are good for the other (docs/rare.md).

    Args:
        lists: From `annotator.knn.cross_validation`.
        labels: Concepts of the index rows.
        start: Values of the fields that are not tuned (`min_score`, and those in `fixed`).
        fixed: Fields of `Voting` that are not tuned.
    """
    nearest = np.quantile(lists.found.similarities[:, 0], np.linspace(0, 1, _QUANTILES))
    typical = round(float(min(nearest[_QUANTILES // 2], 1.0)), 6)
    best = replace(start or Voting(), typical=typical)
    for_macro_f1 = best.decider == "macro-f1"
    if for_macro_f1:
        best, fixed = replace(best, decider="expected-f1"), [*fixed, "decider"]
    judge = _Judge(_some(lists), labels)
    grid: list[dict[str, Any]] = []
    kinds = [_kernels(), _priors(), _deciders()]
    if lists.found.evidence is not None:
        kinds.insert(1, [{"head_weight": weight} for weight in HEAD_WEIGHTS])
        if "head_weight" not in fixed:
            best = replace(best, head_weight=_USUAL_HEAD_WEIGHT)
    steps = [_free(candidates, best, fixed) for candidates in kinds]
    trials = [(step, changes) for step, candidates in enumerate(steps) for changes in candidates]
    kept, highest, now = best, -1.0, 0
    for step, changes in track(trials, total=len(trials), label="Choosing", unit="settings"):
        if step != now:
            best, now = kept, step
        voting = replace(best, **changes)
        f1 = round(float(judge(voting).mean()), 6)
        grid.append({**_tried(voting), "f1": f1})
        if f1 > highest:  # ties go to the first, simpler candidate
            kept, highest = voting, f1
    kept = replace(kept, macro_thresholds=fit_thresholds(lists, labels, kept))
    of_all = _Judge(lists, labels)
    rules: dict[Objective, Voting] = {"f1": kept, "macro-f1": replace(kept, decider="macro-f1")}
    earned = {objective: of_all.earned(voting) for objective, voting in rules.items()}
    kept = rules["macro-f1" if for_macro_f1 else "f1"]
    scores = of_all(kept)
    groups = lists.queries if lists.groups is None else lists.groups
    return Tuned(
        voting=kept,
        f1=float(scores.mean()),
        interval=bootstrap_interval(scores.tolist(), groups),
        images=len(scores),
        groups=len(np.unique(groups)),
        nearest=[round(float(s), 6) for s in nearest],
        grid=grid,
        objectives=earned,
    )


def quick_f1(lists: NeighborLists, labels: LabelTable) -> float:
    """Best mean F1 of a few voting parameters, for comparing neighbour lists."""
    judge = _Judge(_some(lists), labels)
    head_weight = 0.0 if lists.found.evidence is None else _USUAL_HEAD_WEIGHT
    votings = [
        Voting(k=k, beta=beta, head_weight=head_weight) for k, beta in _PAIRS_FOR_PROJECTIONS
    ]
    return round(max(float(judge(voting).mean()) for voting in votings), 6)


class _Judge:
    """Computes the F1 of each image under given parameters."""

    def __init__(self, lists: NeighborLists, labels: LabelTable) -> None:
        self._found, self._labels = lists.found, labels
        self._truth = [labels.row(row) for row in lists.queries.tolist()]

    def __call__(self, voting: Voting) -> NDArray[np.float64]:
        return self._scores(self._decide(voting))

    def earned(self, voting: Voting) -> dict[str, Any]:
        """As in `Tuned.objectives`."""
        decisions = self._decide(voting)
        macro_f1, recall = by_band(self._truth, decisions, self._labels)
        f1 = float(self._scores(decisions).mean())
        return {"f1": round(f1, 6), "macro_f1": round(macro_f1, 6), "recall": recall}

    def _decide(self, voting: Voting) -> list[Decision]:
        return choose_concepts(weigh(self._found, self._labels, voting), voting)

    def _scores(self, decisions: Sequence[Decision]) -> NDArray[np.float64]:
        pairs = zip(self._truth, decisions, strict=True)
        return np.array([image_score(set(truth), decision.cuis) for truth, decision in pairs])


def _kernels() -> list[dict[str, Any]]:
    kernels = [*({"kernel": "exponential", "beta": beta} for beta in BETAS), *OTHER_KERNELS]
    return [{"k": k, **kernel} for k in KS for kernel in kernels]


def _priors() -> list[dict[str, Any]]:
    return [{"prior": prior} for prior in PRIORS]


def _deciders() -> list[dict[str, Any]]:
    thresholds = [{"decider": "threshold", "threshold": t} for t in THRESHOLDS]
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


def _some(lists: NeighborLists) -> NeighborLists:
    """At most 2,000 of the lists, evenly spaced."""
    kept = sample_rows(len(lists.queries), GRID_IMAGES)
    return lists.take(kept)
