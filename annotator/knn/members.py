"""Members of an ensemble: runs and score files of the same images, and what an index knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annotator.concept_ids import is_concept_id
from annotator.errors import AnnotatorError, FormatError
from annotator.ids import match_ids
from annotator.knn.cross_validation import LEAST_IMAGES, stored_lists
from annotator.knn.decision import Decision, choose_concepts
from annotator.knn.ensemble import (
    ChosenWeights,
    Marginals,
    Pool,
    Rule,
    choose_weights,
    combine_sets,
)
from annotator.knn.incomplete import voters
from annotator.knn.posterior import Posterior, weigh
from annotator.knn.voting import Voting
from annotator.tables.formats import read_rows, split_cuis
from annotator.tables.scores import Scores, is_scores, read_scores
from index import LabelTable, StoredIndex
from index.protocols import Index

_SHOWN = 3  # ids in a message

Run = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Member:
    """A run (concepts by image id) or the scores of a model, with the file's name for messages."""

    source: str
    opinion: Run | Scores

    @property
    def ids(self) -> tuple[str, ...]:
        """Image ids, in the order of the file."""
        return self.opinion.ids if isinstance(self.opinion, Scores) else tuple(self.opinion)


def read_member(path: Path | str) -> Member:
    """Read a run of any year, or a score file.

    Raises:
        FormatError: The file is neither, or damaged; an id is repeated.
    """
    if is_scores(path):
        return Member(str(path), read_scores(path))
    run: dict[str, tuple[str, ...]] = {}
    rows = read_rows(path)
    if all(row.cell is None for row in rows):
        raise FormatError(
            f"{path} has no column of concepts", "Give a run, or scores with a column for each."
        )
    for row in rows:
        concepts = split_cuis(row.cell)
        bad = next((concept for concept in concepts if not is_concept_id(concept)), None)
        if bad is not None:
            raise FormatError(f"{path}, line {row.line}: {bad!r} is not a concept")
        if row.id in run:
            raise FormatError(f"{path}, line {row.line}: the id {row.id!r} is there twice")
        run[row.id] = concepts
    return Member(str(path), run)


def index_member(stored: Index, voting: Voting, source: str) -> Member:
    """The out-of-sample votes on an index's own images, from its stored neighbour lists.

    Raises:
        AnnotatorError: As `out_of_sample`.
    """
    own = out_of_sample(stored, stored.labels, voting, source)
    rows = zip(own.ids, choose_concepts(own.posterior, voting), strict=True)
    shares = ((image_id, decision.by_concept()) for image_id, decision in rows)
    return Member(source, Scores.from_shares(shares, stored.labels.cuis))


@dataclass(frozen=True)
class OutOfSample:
    """An index's own images, annotated by those of other groups.

    Attributes:
        ids: n image ids.
        rows: int64[n], their rows.
        posterior: Of their neighbours.
    """

    ids: list[str]
    rows: NDArray[np.int64]
    posterior: Posterior


def out_of_sample(stored: Index, labels: LabelTable, voting: Voting, source: str) -> OutOfSample:
    """Weigh the stored neighbours of an index's own images.

    Args:
        stored: Open index.
        labels: Labels of its rows, as given, or some of their concepts.
        voting: Voting parameters.
        source: The index, for messages.

    Raises:
        AnnotatorError: The index has no lists, or lies on a server.
    """
    if not isinstance(stored, StoredIndex):
        raise AnnotatorError(
            f"{source} is on a server, which keeps no list of its images.",
            "Weights are chosen on an index in a folder; or give weights.",
        )
    lists = stored_lists(stored)
    if lists is None:
        raise AnnotatorError(
            f"{source} holds no neighbour lists, on which weights are chosen.",
            f"`build-index` stores them for {LEAST_IMAGES} images or more; or give weights.",
        )
    lists, labels = voters(lists, labels, stored, voting)
    ids = [stored.ids[row] for row in lists.queries.tolist()]
    return OutOfSample(ids, lists.queries, weigh(lists.found, labels, voting))


@dataclass(frozen=True)
class Aligned:
    """Members on the same images.

    Attributes:
        ids: q image ids.
        pool: Their opinions.
        missing: By source, ids without an opinion of that member.
    """

    ids: tuple[str, ...]
    pool: Pool
    missing: Mapping[str, tuple[str, ...]]

    def combine(
        self, rule: Rule, weights: Sequence[float], voting: Voting
    ) -> list[tuple[str, ...]]:
        """Choose the concepts of each image by a rule.

        Args:
            rule: "weights" decides under the pool; the others combine the members' sets, for which
                each member decides alone.
            weights: Of the members, non-negative.
            voting: Decider with its parameter.
        """
        if rule == "weights":
            return [decision.cuis for decision in self.pool.decide(weights, voting)]
        m = len(self.pool.members)
        alone = [self.pool.decide(np.eye(m)[j], voting) for j in range(m)]
        shares = self.pool.present * np.asarray(weights)
        return [
            combine_sets([decisions[i].cuis for decisions in alone], row, rule)
            for i, row in enumerate(shares.tolist())
        ]


def align(members: Sequence[Member], ids: Sequence[str], notes: list[str]) -> Aligned:
    """Bring members to the same images and one vocabulary.

    Args:
        members: Runs and scores.
        ids: Image ids, with which those of the members are matched (`annotator.ids`).
        notes: Gets a line for ids that differ and for scores that are missing.

    Raises:
        AnnotatorError: A run lacks images, or has others; or scores have none of the images.
    """
    rows = [_rows_of(member, ids, notes) for member in members]
    runs = [member.opinion for member in members if not isinstance(member.opinion, Scores)]
    scored = [member.opinion for member in members if isinstance(member.opinion, Scores)]
    labels = LabelTable.from_sets([concepts for run in runs for concepts in run.values()])
    labels = labels.including({concept for scores in scored for concept in scores.concepts})
    start = 0
    opinions: list[Posterior | Marginals] = []
    for member, own in zip(members, rows, strict=True):
        if isinstance(member.opinion, Scores):
            opinions.append(marginals(member.opinion, own, labels.cuis))
        else:
            opinions.append(Posterior(start + own[:, None], np.ones((len(own), 1)), labels))
            start += len(member.opinion)
    present = np.stack([own >= 0 for own in rows], axis=1)
    missing = {
        member.source: tuple(id_ for id_, row in zip(ids, own.tolist(), strict=True) if row < 0)
        for member, own in zip(members, rows, strict=True)
        if (own < 0).any()
    }
    return Aligned(tuple(ids), Pool(tuple(opinions), present, labels), missing)


def marginals(scores: Scores, rows: NDArray[np.int64], vocabulary: Sequence[str]) -> Marginals:
    """The opinion of a classifier on some images, over a vocabulary.

    Args:
        scores: Its scores.
        rows: int64[q], row of each image in them; -1 for none.
        vocabulary: c concepts; others of the classifier are left out.
    """
    position = {concept: j for j, concept in enumerate(vocabulary)}
    pairs = [(j, position[c]) for j, c in enumerate(scores.concepts) if c in position]
    theirs, ours = np.array(pairs, np.int64).reshape(-1, 2).T
    values = np.zeros((len(rows), len(vocabulary)), np.float32)
    has = rows >= 0
    values[np.ix_(has, ours)] = scores.values[np.ix_(rows[has], theirs)]
    known = np.zeros(len(vocabulary), bool)
    known[ours] = True
    return Marginals(values, known)


@dataclass(frozen=True)
class Classifiers:
    """Classifiers whose probabilities are pooled with the votes of neighbours.

    Attributes:
        scores: Scores of each classifier.
        weights: Of the votes, then of the classifiers.
    """

    scores: tuple[Scores, ...]
    weights: tuple[float, ...]

    def decide(
        self, image_ids: Sequence[str], posterior: Posterior, voting: Voting
    ) -> list[Decision]:
        """Choose the concepts of each image; one that no classifier has is decided by the votes.

        Args:
            image_ids: Ids of the q images, as the classifiers have them.
            posterior: Posterior of their neighbours.
            voting: Decider with its parameter, and `min_score`.
        """
        rows = [self._rows(j, image_ids) for j in range(len(self.scores))]
        return votes_and_classifiers(posterior, self.scores, rows).decide(self.weights, voting)

    def _rows(self, j: int, image_ids: Sequence[str]) -> NDArray[np.int64]:
        row_of = self.scores[j].row_of
        return np.array([row_of.get(image_id, -1) for image_id in image_ids], np.int64)


def votes_and_classifiers(
    posterior: Posterior, scores: Sequence[Scores], rows: Sequence[NDArray[np.int64]]
) -> Pool:
    """The pool of a posterior and of classifiers, over the concepts of both.

    Args:
        posterior: Posterior of q images.
        scores: Scores of m classifiers.
        rows: int64[q] for each, row of each image in its scores; -1 for none.
    """
    # Of an index on a server, the posterior has but the labels of what was found.
    labels = posterior.labels.including({concept for s in scores for concept in s.concepts})
    posterior = Posterior(posterior.rows, posterior.weights, labels)
    opinions = [marginals(s, own, labels.cuis) for s, own in zip(scores, rows, strict=True)]
    present = np.stack([np.ones(len(posterior), bool), *(own >= 0 for own in rows)], axis=1)
    return Pool((posterior, *opinions), present, labels)


def tune_classifiers(
    stored: Index,
    labels: LabelTable,
    voting: Voting,
    out_of_fold: Sequence[Member],
    source: str,
    notes: list[str],
) -> ChosenWeights:
    """Choose the weights of votes and classifiers on an index's own images.

    Args:
        stored: Open index.
        labels: Labels of its rows, as given, or some of their concepts.
        voting: Voting parameters.
        out_of_fold: Scores of each classifier for images of the index, each by a model that was
            not trained on the image or its patient.
        source: The index, for messages.
        notes: Gets a line where ids differ.

    Raises:
        AnnotatorError: As `out_of_sample`, or fewer than 50 of its images have scores of all.
    """
    own = out_of_sample(stored, labels, voting, source)
    scores = [as_scores(member) for member in out_of_fold]
    rows = np.stack(
        [s.rows_of(own.ids, m.source, notes) for s, m in zip(scores, out_of_fold, strict=True)]
    )
    kept = np.flatnonzero((rows >= 0).all(axis=0))
    if len(kept) < LEAST_IMAGES:
        raise _too_few(len(kept), f"the images of {source}", out_of_fold)
    some = replace(
        own.posterior, rows=own.posterior.rows[kept], weights=own.posterior.weights[kept]
    )
    truth = [labels.row(row) for row in own.rows[kept].tolist()]
    return choose_weights(votes_and_classifiers(some, scores, list(rows[:, kept])), truth, voting)


def tune_members(
    out_of_fold: Sequence[Member], truth: Mapping[str, Sequence[str]], voting: Voting, source: str
) -> ChosenWeights:
    """Choose the weights of members by what they say of images whose concepts are known.

    Args:
        out_of_fold: The members on images that they were not trained on.
        truth: Concepts by image id.
        voting: Decider with its parameter.
        source: Where the truth is from, for messages.

    Raises:
        AnnotatorError: Fewer than 50 images are known to all.
    """
    matches = [match_ids(member.ids, truth).image_of for member in out_of_fold]
    common = set(truth).intersection(*(match.values() for match in matches))
    ids = [id_ for id_ in truth if id_ in common]
    if len(ids) < LEAST_IMAGES:
        raise _too_few(len(ids), source, out_of_fold)
    some = [
        _only(member, match, common) for member, match in zip(out_of_fold, matches, strict=True)
    ]
    return choose_weights(align(some, ids, []).pool, [truth[id_] for id_ in ids], voting)


def as_scores(member: Member) -> Scores:
    """The scores of a member.

    Raises:
        AnnotatorError: It is a run.
    """
    if not isinstance(member.opinion, Scores):
        raise AnnotatorError(
            f"{member.source} is a run, which has no probabilities.",
            "Runs are combined by `annotator ensemble`.",
        )
    return member.opinion


def _only(member: Member, match: Mapping[str, str], ids: set[str]) -> Member:
    """A member with the images of a truth alone, under the truth's ids."""
    opinion = member.opinion
    if not isinstance(opinion, Scores):
        run = {match[id_]: c for id_, c in opinion.items() if match.get(id_) in ids}
        return Member(member.source, run)
    rows = [row for row, id_ in enumerate(opinion.ids) if match.get(id_) in ids]
    kept = tuple(match[opinion.ids[row]] for row in rows)
    return Member(member.source, Scores(kept, opinion.concepts, opinion.values[rows]))


def _rows_of(member: Member, ids: Sequence[str], notes: list[str]) -> NDArray[np.int64]:
    """Row of each image in a member, int64[q]; -1 for none, which only scores may lack."""
    match = match_ids(member.ids, ids)
    notes.extend(match.notes(member.source))
    row_of = {match.image_of.get(id_): row for row, id_ in enumerate(member.ids)}
    rows = np.array([row_of.get(id_, -1) for id_ in ids], np.int64)
    missing = [id_ for id_, row in zip(ids, rows.tolist(), strict=True) if row < 0]
    others = [id_ for id_ in member.ids if id_ not in match.image_of]
    if isinstance(member.opinion, Scores):
        if len(missing) == len(ids):
            raise AnnotatorError(
                f"{member.source} has none of the {len(ids)} images, such as {ids[0]!r}; "
                f"it has {member.ids[0]!r}.",
                "All members are about the same images.",
            )
        if missing:
            notes.append(
                f"{member.source} has no scores of {_examples(missing)}: decided by the other "
                "members alone"
            )
    elif missing or others:
        lacks = [f"lacks {_examples(missing)}"] if missing else []
        has = [f"has {_examples(others)} besides"] if others else []
        raise AnnotatorError(
            f"{member.source} {' and '.join(lacks + has)}.",
            "All members are about the same images; a run has a row for each.",
        )
    return rows


def _examples(ids: Sequence[str]) -> str:
    more = ", …" if len(ids) > _SHOWN else ""
    images = "1 image" if len(ids) == 1 else f"{len(ids)} images"
    return f"{images} ({', '.join(map(repr, ids[:_SHOWN]))}{more})"


def _too_few(n: int, source: str, members: Sequence[Member]) -> AnnotatorError:
    return AnnotatorError(
        f"Of {source} only {n} are in {', '.join(member.source for member in members)}.",
        f"Weights are chosen on {LEAST_IMAGES} images or more; or give weights.",
    )
