"""Ensembles: a linear opinion pool of retrieval, classifiers and finished runs.

Each member has a distribution over the label sets of an image: neighbours have that of their vote,
a classifier that of independent concepts with its probabilities, a run that of its one set. Their
weighted mean (Stone 1961, "The opinion pool") is such a distribution again. All that a decider
needs to know of a distribution is P[j, s], the probability that concept j is there among s in all
(`annotator.knn.decision`); it is linear in the weights, so the set with the highest expected F1
under the pool is found exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from annotator.evaluation.official_f1 import image_score
from annotator.knn.decision import MOST_CUIS, Decision, decide_votes
from annotator.knn.grid_search import GRID_IMAGES
from annotator.knn.posterior import Posterior, Votes, count_votes
from annotator.knn.voting import Voting
from index import LabelTable
from index.progress import track
from index.sampling import sample_rows

Rule = Literal["weights", "vote", "union", "intersection"]
RULES: tuple[Rule, ...] = get_args(Rule)

_LEAST = 1e-3  # probabilities below count as 0: they hardly change a set, but are most of a table
_MOST_CONCEPTS = 128  # of an image that are weighed, the most probable ones
_LEAST_VOTE = 1e-9
_IMAGES_AT_ONCE = 256  # bounds the memory of the tables
_STEPS = 10  # of a weight between 0 and 1
_MOST_ROUNDS = 5


@dataclass(frozen=True)
class Marginals:
    """Opinion of a classifier: independent concepts, each with its probability.

    Attributes:
        values: float32[q, c] in 0..1, over the vocabulary of the pool.
        known: bool[c], concepts that the classifier knows. For the others it has the mean
            opinion of the members that know them, so that they are decided by those alone.
    """

    values: NDArray[np.float32]
    known: NDArray[np.bool_]


@dataclass(frozen=True)
class Pool:
    """Opinions of m members on the same q images.

    Attributes:
        members: m members. The posterior of one of them is over rows of `labels`, or of another
            table with the same vocabulary.
        present: bool[q, m], whether a member has an opinion of an image; the others share its
            weight.
        labels: The vocabulary, with the ranks that break ties.
    """

    members: tuple[Posterior | Marginals, ...]
    present: NDArray[np.bool_]
    labels: LabelTable

    def decide(self, weights: ArrayLike, voting: Voting) -> list[Decision]:
        """Choose the concepts of each image under the weighted pool.

        Args:
            weights: float[m], of the members, non-negative.
            voting: Decider with its parameter, and `min_score`.
        """
        shares = np.asarray(weights, np.float64)
        return [
            decision
            for block, votes in self._blocks(np.arange(len(self.present)))
            for decision in self._decide(block, votes, shares, voting)
        ]

    def scorer(
        self, truth: Sequence[Sequence[str]], voting: Voting, most: int | None = None
    ) -> Callable[[ArrayLike], NDArray[np.float64]]:
        """A function from weights to the F1 of each image.

        Args:
            truth: True concepts of the q images.
            voting: As for `decide`.
            most: Number of images, evenly spaced; None for all.
        """
        n = len(self.present)
        rows = sample_rows(n, most or n)
        blocks = list(self._blocks(rows))
        sets = [set(truth[row]) for row in rows.tolist()]

        def score(weights: ArrayLike) -> NDArray[np.float64]:
            shares = np.asarray(weights, np.float64)
            decisions = [
                decision
                for block, votes in blocks
                for decision in self._decide(block, votes, shares, voting)
            ]
            pairs = zip(sets, decisions, strict=True)
            return np.array([image_score(wanted, decision.cuis) for wanted, decision in pairs])

        return score

    def _blocks(self, rows: NDArray[np.int64]) -> Sequence[tuple[NDArray[np.int64], list[Votes]]]:
        starts = range(0, len(rows), _IMAGES_AT_ONCE)
        blocks = [rows[start : start + _IMAGES_AT_ONCE] for start in starts]
        return [(block, self._votes(block)) for block in blocks]

    def _decide(
        self,
        block: NDArray[np.int64],
        votes: Sequence[Votes],
        weights: NDArray[np.float64],
        voting: Voting,
    ) -> list[Decision]:
        present = self.present[block]
        shares = present * weights
        # Where all members with a weight are absent, the others count the same.
        shares = np.where(shares.any(axis=1, keepdims=True), shares, present)
        shares = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
        return decide_votes(mix_votes(votes, shares, len(self.labels.cuis)), self.labels, voting)

    def _votes(self, block: NDArray[np.int64]) -> list[Votes]:
        """Votes of each member on some images."""
        shape = (len(block), len(self.labels.cuis))
        known = [
            member.known if isinstance(member, Marginals) else np.ones(shape[1], bool)
            for member in self.members
        ]
        votes: list[Votes | None] = []
        opinions: list[NDArray[np.float64]] = []
        for member in self.members:
            if isinstance(member, Marginals):
                votes.append(None)
                opinions.append(member.values[block].astype(np.float64))
            else:
                some = Posterior(member.rows[block], member.weights[block], member.labels)
                votes.append(count_votes(some))
                opinions.append(_dense(votes[-1], shape))
        if not all(mask.all() for mask in known):
            opinions = _filled(opinions, known, self.present[block])
        return [
            independent_votes(opinion) if cast is None else cast
            for cast, opinion in zip(votes, opinions, strict=True)
        ]


@dataclass(frozen=True)
class ChosenWeights:
    """Result of `choose_weights`.

    Attributes:
        weights: Of the members, summing to 1.
        f1: float64[n], F1 of each image with them.
        alone: float64[m, n], F1 of each image by each member alone.
    """

    weights: tuple[float, ...]
    f1: NDArray[np.float64]
    alone: NDArray[np.float64]


def choose_weights(pool: Pool, truth: Sequence[Sequence[str]], voting: Voting) -> ChosenWeights:
    """Choose the weights with the highest mean F1, by coordinate search in steps of a tenth.

    From equal weights, the weight of each member in turn is tried from 0 to 1, the others keeping
    their proportions, until no change is better. All candidates decide the same images, at most
    2,000. None of the members may have seen the images' concepts: the opinions have to be out of
    sample.

    Args:
        pool: Opinions on n images.
        truth: True concepts of the n images.
        voting: As for `Pool.decide`.
    """
    m = len(pool.members)
    score = pool.scorer(truth, voting, GRID_IMAGES)
    best = np.full(m, 1.0 / m)
    highest = round(float(score(best).mean()), 6)
    tried = {tuple(best.round(6))}
    trials = [j for _ in range(_MOST_ROUNDS) for j in range(m)]
    unchanged = 0
    for j in track(trials, total=len(trials), label="Choosing", unit="weights"):
        before = highest
        for candidate in _candidates(best, j):
            if tuple(candidate.round(6)) in tried:
                continue
            tried.add(tuple(candidate.round(6)))
            f1 = round(float(score(candidate).mean()), 6)
            if f1 > highest:  # ties go to the one that was found first, nearer to equal weights
                best, highest = candidate, f1
        unchanged = 0 if highest > before else unchanged + 1
        if unchanged >= m:
            break
    final = pool.scorer(truth, voting)
    alone = [final([float(i == j) for i in range(m)]) for j in range(m)]
    return ChosenWeights(tuple(best.round(6).tolist()), final(best), np.array(alone))


def _candidates(weights: NDArray[np.float64], j: int) -> list[NDArray[np.float64]]:
    """The weights with that of member j at each step, the others in their proportions."""
    rest = np.delete(weights, j)
    rest = rest / rest.sum() if rest.sum() > 0 else np.full(len(rest), 1.0 / max(len(rest), 1))
    steps = sorted(np.linspace(0, 1, _STEPS + 1), key=lambda step: abs(step - weights[j]))
    return [np.insert(rest * (1 - step), j, step) for step in steps]


def independent_votes(probabilities: NDArray[np.float64]) -> Votes:
    """Votes of independent concepts: P[j, s] = p_j · P(s - 1 of the other concepts are there).

    The number of concepts has a Poisson-binomial distribution, built up concept by concept; that
    of the others follows by division by the factor (1 - p_j + p_j z) of its generating function,
    from the low end for p_j < 1/2 and from the high end otherwise, which is stable.

    Args:
        probabilities: float64[q, c] in 0..1. Those below 0.001 count as 0, and of an image the 128
            highest count.
    """
    q, c = probabilities.shape
    n = min(_MOST_CONCEPTS, c, int((probabilities >= _LEAST).sum(axis=1).max(initial=0)))
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :n]
    p = np.take_along_axis(probabilities, order, axis=1)
    p = np.where(p >= _LEAST, p, 0.0)
    counts = np.zeros((q, n + 1))  # P(S = s) at s
    counts[:, 0] = 1.0
    for k in range(n):
        grown = counts[:, : k + 1] * p[:, k, None]
        counts[:, : k + 1] *= 1 - p[:, k, None]
        counts[:, 1 : k + 2] += grown
    joint = _without_each(counts, p) * p[:, :, None]  # P[j, s] at s - 1
    image, place, size = np.nonzero(joint > _LEAST_VOTE)
    # Candidates are sorted by image and concept.
    key = image * c + order[image, place]
    candidates, vote_candidate = np.unique(key, return_inverse=True)
    return Votes(
        candidate_image=candidates // max(c, 1),
        candidate_cui=candidates % max(c, 1),
        vote_candidate=vote_candidate,
        vote_size=size + 1,
        vote_weight=joint[image, place, size],
        empty=counts[:, 0],
    )


def _without_each(counts: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distribution of the number of the other concepts, float64[q, n, n], of each concept.

    Args:
        counts: float64[q, n + 1], distribution of the number of all.
        p: float64[q, n], their probabilities.
    """
    q, n = p.shape
    others = np.zeros((q, n, n))
    low, high = p < 0.5, p >= 0.5
    for s in range(n):
        before = others[:, :, s - 1] if s else 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            up = (counts[:, s, None] - p * before) / (1 - p)
        others[:, :, s] = np.where(low, up, 0.0)
    above = np.zeros((q, n))
    for s in range(n - 1, -1, -1):
        with np.errstate(divide="ignore", invalid="ignore"):
            above = np.where(high, (counts[:, s + 1, None] - (1 - p) * above) / p, 0.0)
        others[:, :, s] += above
    return np.maximum(others, 0.0)  # rounding errors below zero


def mix_votes(members: Sequence[Votes], weights: NDArray[np.float64], vocabulary: int) -> Votes:
    """Votes of the pool of m members on the same q images.

    Args:
        members: Votes over one vocabulary.
        weights: float64[q, m], of each member on each image.
        vocabulary: Number of concepts.
    """
    width = max(vocabulary, 1)
    keys = [votes.candidate_image * width + votes.candidate_cui for votes in members]
    candidates, joint = np.unique(np.concatenate(keys), return_inverse=True)
    own = np.split(joint, np.cumsum([len(key) for key in keys])[:-1])
    return Votes(
        candidate_image=candidates // width,
        candidate_cui=candidates % width,
        vote_candidate=np.concatenate(
            [place[votes.vote_candidate] for place, votes in zip(own, members, strict=True)]
        ),
        vote_size=np.concatenate([votes.vote_size for votes in members]),
        vote_weight=np.concatenate(
            [
                votes.vote_weight * weights[votes.candidate_image[votes.vote_candidate], m]
                for m, votes in enumerate(members)
            ]
        ),
        empty=(np.stack([votes.empty for votes in members], axis=1) * weights).sum(axis=1),
    )


def _dense(votes: Votes | None, shape: tuple[int, int]) -> NDArray[np.float64]:
    table = np.zeros(shape)
    if votes is not None:
        table[votes.candidate_image, votes.candidate_cui] = votes.scores
    return table


def _filled(
    opinions: Sequence[NDArray[np.float64]],
    known: Sequence[NDArray[np.bool_]],
    present: NDArray[np.bool_],
) -> list[NDArray[np.float64]]:
    """Opinions with the mean of the others' where a member does not know a concept."""
    total, count = np.zeros(opinions[0].shape), np.zeros(opinions[0].shape)
    for m, (opinion, mask) in enumerate(zip(opinions, known, strict=True)):
        has = present[:, m, None] & mask
        total += np.where(has, opinion, 0.0)
        count += has
    mean = total / np.maximum(count, 1)
    return [np.where(mask, opinion, mean) for opinion, mask in zip(opinions, known, strict=True)]


def combine_sets(
    sets: Sequence[Sequence[str]], weights: Sequence[float], rule: Rule
) -> tuple[str, ...]:
    """Combine the members' sets of one image by "vote", "union" or "intersection".

    A vote keeps what members with at least half of the weight have. At exactly half, too: the
    threshold that maximises F1 is half of the F1 that is reached (Lipton, Elkan, Narayanaswamy
    2014), so never above one half.

    Args:
        sets: Concepts of the members.
        weights: Of the members, non-negative; those with weight 0 count in no rule.
        rule: Another rule than "weights".

    Returns:
        At most 100 concepts by descending weight, then in the order of the members.
    """
    pairs = [(concepts, w) for concepts, w in zip(sets, weights, strict=True) if w > 0]
    support: dict[str, float] = {}
    for concepts, weight in pairs:
        for concept in concepts:
            support[concept] = support.get(concept, 0.0) + weight
    total = sum(weight for _, weight in pairs)
    least = {"vote": total / 2, "union": 0.0, "intersection": total}[rule] - 1e-9
    kept = [concept for concept, weight in support.items() if weight >= least]
    best_first = sorted(kept, key=lambda concept: -round(support[concept], 9))
    return tuple(best_first[:MOST_CUIS])
