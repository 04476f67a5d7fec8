"""What it gains, and costs, to let neighbours fill in labels, by how many are missing.

A training side is parted by group: four fifths make an index, of which labels are dropped at
random; the rest, with all of its labels, is annotated; so for each of five folds. Once the cases
vote with what is left of their labels, once also with what their neighbours fill in. Both votes are
tuned on what is left.

    annotator embed IMAGES --only train --split split.csv --out train.npy
    python -m benchmarks.features.incomplete train.npy CONCEPTS --groups sources.csv:group
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.collection import read_collection
from annotator.evaluation.measures import average, compare, group_numbers
from annotator.evaluation.official_f1 import image_score
from annotator.knn.cross_validation import FOLDS, group_folds, projected_rows
from annotator.knn.decision import choose_concepts
from annotator.knn.grid_search import Tuned, choose_voting
from annotator.knn.incomplete import filled_in, folds_of, infer_labels, with_filled_in
from annotator.knn.model import filling, fit_model
from annotator.knn.posterior import weigh
from annotator.vectors.table import VectorTable, read_vectors
from benchmarks import records
from index import FlatIndex, LabelTable


def main(arguments: list[str] | None = None) -> None:
    """Part, drop, fit, annotate, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("vectors", help="From `annotator embed`, of the training side.")
    parser.add_argument("concepts")
    parser.add_argument("--groups", help="FILE:COLUMN")
    parser.add_argument("--name", default="", help="Of the collection, for the record.")
    parser.add_argument("--missing", type=float, nargs="+", default=[0.0, 0.1, 0.3, 0.5])
    parser.add_argument("--folds", type=int, default=FOLDS, help="That are annotated, of five.")
    options = parser.parse_args(arguments)
    table = read_vectors(options.vectors)
    collection = read_collection(table.found(), options.concepts, groups=options.groups)
    ids = [ref.id for ref in collection.images]
    groups = [collection.groups.get(id_, "") for id_ in ids]
    labels = [sorted(set(collection.concepts[id_])) for id_ in ids]
    side = Side(table, ids, groups, labels)
    for missing in options.missing:
        parts = []
        for fold in range(options.folds):
            parts.append(side.measured(missing, fold))
            of_fold = {"collection": options.name, "missing": missing, "fold": fold}
            records.save("incomplete", [{**of_fold, **summary(parts[-1:])}])
        print({"missing": missing, **summary(parts)}, flush=True)


@dataclass(frozen=True)
class Vote:
    """What a vote gives on the images of a fold.

    Attributes:
        f1: F1 of each image.
        concepts: Number of concepts of each.
        estimate: F1 that the index tells of itself.
        voting: Kernel, k and beta.
    """

    f1: list[float]
    concepts: list[int]
    estimate: float
    voting: str

    @classmethod
    def of(
        cls,
        index: FlatIndex,
        queries: NDArray[np.float32],
        truth: Sequence[Sequence[str]],
        labels: LabelTable,
        tuned: Tuned,
    ) -> Vote:
        """Annotate queries by the rows of an index."""
        voting = tuned.voting
        found = index.search(queries, voting.k)
        sets = [one.cuis for one in choose_concepts(weigh(found, labels, voting), voting)]
        f1 = [image_score(own, concepts) for own, concepts in zip(truth, sets, strict=True)]
        name = f"{voting.kernel} k {voting.k} beta {voting.beta:g}"
        return cls(f1, [len(concepts) for concepts in sets], tuned.f1, name)


@dataclass(frozen=True)
class Part:
    """A fold that was annotated by the others.

    Attributes:
        groups: int64[m], group of each of its images.
        plain: With the labels that were left.
        filled: With what neighbours fill in, too.
        added: Number of labels that they fill in.
        right: How many of these had been dropped.
        indexed: Number of images that vote.
        seconds: CPU seconds of filling in.
    """

    groups: NDArray[np.int64]
    plain: Vote
    filled: Vote
    added: int
    right: int
    indexed: int
    seconds: float


def summary(parts: Sequence[Part]) -> dict[str, Any]:
    """Figures of some folds together."""
    groups = np.concatenate([part.groups for part in parts])
    f1 = {}
    facts: dict[str, Any] = {"folds": len(parts), "images": len(groups)}
    for name in ("plain", "filled"):
        votes: list[Vote] = [getattr(part, name) for part in parts]
        f1[name] = [score for vote in votes for score in vote.f1]
        facts[name] = {
            **average(f1[name], groups).to_dict(),
            "estimate": float(np.mean([vote.estimate for vote in votes])),
            "concepts": float(np.mean([n for vote in votes for n in vote.concepts])),
            "votings": [vote.voting for vote in votes],
        }
    indexed, added = sum(part.indexed for part in parts), sum(part.added for part in parts)
    return {
        **facts,
        "difference": compare(f1["filled"], f1["plain"], groups).to_dict(),
        "filled_in": added / indexed,
        "filled_in_right": sum(part.right for part in parts) / max(added, 1),
        "filling_cpu_seconds": sum(part.seconds for part in parts) / len(parts),
    }


class Side:
    """A training side, parted by group into what is indexed and what is annotated.

    Args:
        table: Vectors, with their encoder.
        ids: n image ids.
        groups: Group of each, "" for none.
        labels: Labels of each, ascending.
    """

    def __init__(
        self,
        table: VectorTable,
        ids: Sequence[str],
        groups: Sequence[str],
        labels: Sequence[Sequence[str]],
    ) -> None:
        row_of = {id_: row for row, id_ in enumerate(table.ids)}
        vectors = table.rows[[row_of[id_] for id_ in ids]].astype(np.float32)
        self._vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        self._blocks = table.embedder.blocks
        self._ids, self._groups, self._labels = ids, groups, labels
        self._numbers = group_numbers(groups)
        self._folds = group_folds(self._numbers)

    def measured(self, missing: float, fold: int) -> Part:
        """Annotate a fold by the others, of whose labels a share is dropped."""
        rng = np.random.default_rng(fold)
        indexed, held_out = np.flatnonzero(self._folds != fold), np.flatnonzero(self._folds == fold)
        rows = indexed.tolist()
        left = [[c for c in self._labels[row] if rng.random() >= missing] for row in rows]
        groups = [self._groups[row] for row in rows]
        vectors = self._vectors[indexed]
        model = fit_model(vectors, left, groups, blocks=self._blocks, tuning=True)
        assert model.lists is not None and model.tuned is not None
        folds = folds_of([self._ids[row] for row in rows], groups)
        given = LabelTable.from_sets(left)
        start = time.process_time()
        in_index = partial(projected_rows, vectors, model.projection)
        vote = filling(projected=model.projection is not None)
        texts = infer_labels(in_index, given, group_numbers(groups), folds, vote)
        seconds = time.process_time() - start
        tuned = choose_voting(
            *with_filled_in(model.lists, given, texts, folds),
            start=replace(vote, assume_incomplete=True),
        )
        index = FlatIndex(in_index(np.arange(len(rows))))
        queries = projected_rows(self._vectors, model.projection, held_out)
        filled = filled_in(given, texts)
        plain, with_filled = (
            Vote.of(
                index, queries, [self._labels[row] for row in held_out.tolist()], labels, result
            )
            for labels, result in ((given, model.tuned), (filled, tuned))
        )
        added = [set(filled.row(i)) - set(given.row(i)) for i in range(len(rows))]
        right = [own & set(self._labels[row]) for own, row in zip(added, rows, strict=True)]
        part = Part(
            self._numbers[held_out], plain, with_filled,
            sum(map(len, added)), sum(map(len, right)), len(rows), seconds,
        )  # fmt: skip
        print(summary([part]), flush=True)
        return part


if __name__ == "__main__":
    main()
