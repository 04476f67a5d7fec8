"""What pays of ensembles: classifiers beside the votes, two indexes, filters of the result.

Two classifiers are trained on the training side, the last blocks of the packaged network and a
logistic regression on the index's own vectors, and predict it out of fold; a second index has
another encoder. Everything is chosen on the training side, by neighbour lists and predictions that
have seen nothing of an image's patient. The test side is annotated once, by the commands that users
have.

    python -m benchmarks.features.ensembles IMAGES CONCEPTS --split split.csv \\
        --groups sources.csv:patient --by sources.csv:source --work DIR
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.collection import read_collection
from annotator.encoders.registry import DEFAULT, make_embedder
from annotator.evaluation.evaluation import Evaluation, evaluate
from annotator.evaluation.measures import average_by, compare, read_groups
from annotator.indexing.build import build_index
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.decision import choose_concepts
from annotator.knn.ensemble import Pool, choose_weights
from annotator.knn.members import OutOfSample, out_of_sample, votes_and_classifiers
from annotator.knn.posterior import Posterior
from annotator.knn.voting import Voting
from annotator.tables.scores import Scores, read_scores
from benchmarks.features.cli import annotator
from benchmarks.quality.__main__ import embedded
from benchmarks.quality.data import Data
from benchmarks.quality.labels import (
    best_threshold,
    best_thresholds,
    f1_of_rows,
    group_folds,
)
from benchmarks.quality.methods import Settings
from benchmarks.quality.methods.expected_f1 import expected_f1_sets
from benchmarks.quality.methods.finetuned import FineTuned
from benchmarks.quality.methods.logistic import Logistic
from benchmarks.records import save
from index import LabelTable, StoredIndex, open_index

OTHER_ENCODER = "efficientnet-lite1"
STEPS = tuple(i / 10 for i in range(11))
FREQUENCIES = (2, 3, 5, 10, 20, 50)
MOST_CONCEPTS = (3, 4, 5, 6, 8)
MIN_SCORES = (0.1, 0.2, 0.3, 0.4)
SINGLE = ("votes", "finetuned alone")

Floats = NDArray[np.floating]
Record = dict[str, Any]


def main(arguments: list[str] | None = None) -> None:
    """Train, choose on the training side, annotate the test side, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("images")
    parser.add_argument("concepts")
    parser.add_argument("--split", required=True)
    parser.add_argument("--train", default="train")
    parser.add_argument("--test", default="test")
    parser.add_argument("--groups")
    parser.add_argument("--by")
    parser.add_argument("--work", type=Path, required=True, help="Folder for what is kept.")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    for name in ("finetuned", "logistic"):
        predict(name, options)
    indexes = [build(encoder, options) for encoder in (DEFAULT, OTHER_ENCODER)]
    found = [train_side(options, indexes[0]), *filters(indexes[0]), test_side(options, indexes)]
    for record in found:
        print(record, flush=True)
    print(f"raw figures: {save('ensembles', found)}")


def predict(name: str, options: argparse.Namespace) -> tuple[Path, Path]:
    """Probabilities of the training side, out of fold, and of the test side, as files."""
    files = tuple(options.work / f"{name}-{side}.npz" for side in ("train", "test"))
    if not all(file.exists() for file in files):
        train, test = (side(options, only) for only in (options.train, options.test))
        method = FineTuned(options.work) if name == "finetuned" else Logistic(expected_f1=True)
        method.fit(train)
        cuis = method.vocabulary.cuis
        for file, data, values in (
            (files[0], train, method.out_of_fold),
            (files[1], test, method.probabilities(test)),
        ):
            file.write_bytes(Scores(data.ids, cuis, values.astype(np.float32)).to_npz())
    return files[0], files[1]


def side(options: argparse.Namespace, only: str) -> Data:
    """One side, the labels of the test side hidden."""
    collection = read_collection(
        options.images,
        options.concepts,
        groups=options.groups,
        split=options.split,
        only=only,
    )
    return embedded(collection, Settings(options.work, DEFAULT), tested=only == options.test)


def build(encoder: str, options: argparse.Namespace) -> Path:
    """An index of the training side."""
    place: Path = options.work / f"index-{encoder}"
    if not place.exists():
        collection = read_collection(
            options.images,
            options.concepts,
            groups=options.groups,
            split=options.split,
            only=options.train,
        )
        build_index(collection, place, make_embedder(encoder))
    return place


# The training side


def opened(place: Path) -> tuple[StoredIndex, Voting, OutOfSample]:
    """An index with its voting parameters and what it says of its own images."""
    stored = open_index(place)
    voting = IndexMetadata.of(stored).voting
    return stored, voting, out_of_sample(stored, stored.labels, voting, str(place))


def train_side(options: argparse.Namespace, place: Path) -> Record:
    """F1 by weight and decider of votes with each classifier, and the weights that are chosen."""
    stored, voting, own = opened(place)
    labels = stored.labels
    truth = [labels.row(row) for row in own.rows.tolist()]
    true = table([dict.fromkeys(row, 1.0) for row in truth], labels) > 0
    decisions = choose_concepts(own.posterior, voting)
    votes = table([decision.by_concept() for decision in decisions], labels)
    alone = f1_of(truth, [decision.cuis for decision in decisions])
    record: Record = {"what": "training side", "images": len(truth), "votes": mean(alone)}
    scores = [read_scores(predict(name, options)[0]) for name in ("finetuned", "logistic")]
    rows = [s.rows_of(own.ids, "", []) for s in scores]
    for name, some, own_rows in zip(("finetuned", "logistic"), scores, rows, strict=True):
        pool = votes_and_classifiers(own.posterior, [some], [own_rows])
        theirs = np.zeros(true.shape)
        columns = [labels.cuis.index(cui) for cui in some.concepts]
        theirs[:, columns] = some.values[own_rows]
        score = pool.scorer(truth, voting)
        mixed = [(1 - w) * votes + w * theirs for w in STEPS]
        record[name] = {
            "weights": STEPS,
            "pool": [mean(score([1 - w, w])) for w in STEPS],
            "mean probability, expected F1": [
                mean(f1_of_rows(true, expected_f1_sets(m)[0])) for m in mixed
            ],
            "mean probability, best threshold": [
                mean(f1_of_rows(true, m >= best_threshold(true, m))) for m in mixed
            ],
            **chosen(pool, truth, voting),
        }
    pool = votes_and_classifiers(own.posterior, scores, rows)
    return {**record, "both": chosen(pool, truth, voting)}


def chosen(pool: Pool, truth: Sequence[Sequence[str]], voting: Voting) -> Record:
    """The chosen weights, and what they gain over the votes."""
    found = choose_weights(pool, truth, voting)
    gain = compare(found.f1.tolist(), found.alone[0].tolist())
    return {
        "chosen": found.weights,
        "f1": mean(found.f1),
        "alone": [mean(scores) for scores in found.alone],
        "gain over votes": gain.to_dict(),
    }


def filters(place: Path) -> list[Record]:
    """What teams apply to the result, on the training side: F1 without and with each."""
    stored, voting, own = opened(place)
    labels = stored.labels
    truth = [labels.row(row) for row in own.rows.tolist()]
    decisions = choose_concepts(own.posterior, voting)
    plain = f1_of(truth, [decision.cuis for decision in decisions])

    def tried(sets: Sequence[Sequence[str]]) -> Record:
        scores = f1_of(truth, sets)
        return {"f1": mean(scores), **compare(scores.tolist(), plain.tolist()).to_dict()}

    frequent = {
        n: {cui for cui, count in stored.concepts.items() if count >= n} for n in FREQUENCIES
    }
    return [
        {"what": "filters", "plain": mean(plain)}
        | {
            "least frequency": {
                n: tried(revote(own, labels, voting, frequent[n])) for n in frequent
            }
        }
        | {"most concepts": {n: tried([d.cuis[:n] for d in decisions]) for n in MOST_CONCEPTS}}
        | {
            "least score": {
                least: tried(
                    [
                        [c for c, s in zip(d.cuis, d.scores, strict=True) if s >= least]
                        for d in decisions
                    ]
                )
                for least in MIN_SCORES
            }
        }
        | {"threshold of each concept, nested": tried(own_thresholds(stored, own, voting))}
    ]


def revote(
    own: OutOfSample, labels: LabelTable, voting: Voting, kept: set[str]
) -> list[tuple[str, ...]]:
    """The decisions if the cases had these concepts alone."""
    posterior = Posterior(own.posterior.rows, own.posterior.weights, labels.only(kept))
    return [decision.cuis for decision in choose_concepts(posterior, voting)]


def own_thresholds(stored: StoredIndex, own: OutOfSample, voting: Voting) -> list[list[str]]:
    """Sets by a threshold for each concept, each chosen on the other folds."""
    labels = stored.labels
    true = table([dict.fromkeys(labels.row(row), 1.0) for row in own.rows.tolist()], labels) > 0
    votes = table([d.by_concept() for d in choose_concepts(own.posterior, voting)], labels)
    named = stored.columns.get("groups", [""] * len(stored))
    keys = [named[row] or f"#{row}" for row in own.rows.tolist()]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    sets: list[list[str]] = [[] for _ in own.ids]
    for fitted, held in group_folds(np.array([numbers[key] for key in keys])):
        thresholds = best_thresholds(true[fitted], votes[fitted])
        for i in held.tolist():
            sets[i] = [labels.cuis[j] for j in np.flatnonzero(votes[i] >= thresholds)]
    return sets


def table(rows: Sequence[dict[str, float]], labels: LabelTable) -> NDArray[np.float64]:
    """float64[n, c] of scores by concept."""
    return Scores.from_shares(
        ((str(i), row) for i, row in enumerate(rows)), labels.cuis
    ).values.astype(np.float64)


def f1_of(truth: Sequence[Sequence[str]], sets: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """F1 of each image."""
    pairs = [(set(t), set(s)) for t, s in zip(truth, sets, strict=True)]
    return np.array([2 * len(t & s) / (len(t) + len(s)) if t or s else 1.0 for t, s in pairs])


def mean(scores: Any) -> float:
    """Rounded mean."""
    return round(float(np.mean(scores)), 4)


# The test side


def test_side(options: argparse.Namespace, indexes: Sequence[Path]) -> Record:
    """F1 of the runs that the commands write, with paired differences from the votes alone."""
    files = {name: predict(name, options) for name in ("finetuned", "logistic")}

    def run(name: str, *arguments: str | Path) -> Path:
        path: Path = options.work / f"run-{name}.csv"
        path.write_text(annotator(*arguments))
        return path

    def annotate(place: Path, *arguments: str | Path) -> tuple[str | Path, ...]:
        picked = ("--split", options.split, "--only", options.test)
        return ("annotate", options.images, "--index", place, *picked, *arguments)

    def mixed(name: str, weight: str | Path) -> tuple[str | Path, ...]:
        return ("--with", f"{files[name][1]}:{weight}")

    own_votes = [options.work / f"votes-{i}.npz" for i in range(len(indexes))]
    for place, path in zip(indexes, own_votes, strict=True):
        annotator(*annotate(place, "--format", "scores", "--output", path))
    first, second = (annotate(place) for place in indexes)
    runs = {"votes": run("votes", *first), "votes, other encoder": run("other", *second)}
    for name, (out_of_fold, probabilities) in files.items():
        runs[f"{name} alone"] = run(name, "ensemble", probabilities)
        for weight in ("0.5", out_of_fold):
            key = f"votes and {name}, {'half' if weight == '0.5' else 'chosen weight'}"
            runs[key] = run(f"{name}-mix-{key[-6:]}", *first, *mixed(name, weight))
    trained = [run_with for n in files for run_with in mixed(n, files[n][0])]
    runs["votes and both, chosen weights"] = run("both", *first, *trained)
    pairs = [f"{path}:{place}" for path, place in zip(own_votes, indexes, strict=True)]
    runs["two indexes, chosen weights"] = run("two", "ensemble", *pairs)
    tuned = f"{files['finetuned'][1]}:{files['finetuned'][0]}"
    runs["two indexes and finetuned, chosen weights"] = run("three", "ensemble", *pairs, tuned)
    sets = [runs[name] for name in ("votes", "votes, other encoder", "finetuned alone")]
    for rule in ("vote", "union", "intersection", "weights"):
        runs[f"three runs, {rule}"] = run(rule, "ensemble", *sets, "--rule", rule)
    test = read_collection(
        options.images, options.concepts, split=options.split, only=options.test
    ).concepts
    return {"what": "test side", "runs": compared(options.concepts, test, options.by, runs)}


def compared(
    concepts: Path | str, test: Collection[str], by: str | None, runs: Mapping[str, Path]
) -> Record:
    """F1 of each run, by source, and its paired difference from runs of a single model."""
    results = {name: evaluate(path, concepts, ids=test) for name, path in runs.items()}
    ids = next(iter(results.values())).image_ids
    scores_of = {name: scores_by_id(result) for name, result in results.items()}
    rows: Record = {}
    for name, result in results.items():
        scores = result.image_scores.tolist()
        groups = read_groups(by, result.image_ids, [])
        sources = {} if groups is None else average_by(scores, groups)
        rows[name] = {
            "f1": round(result.f1, 4),
            "interval": [round(end, 4) for end in result.interval],
            "macro_f1": round(result.macro_f1, 4),
            "against": {
                other: compare(
                    [scores_of[name][i] for i in ids], [scores_of[other][i] for i in ids]
                ).to_dict()
                for other in SINGLE
                if other in runs
            },
            "by": {source: round(found.mean, 4) for source, found in sources.items()},
        }
    return rows


def scores_by_id(result: Evaluation) -> dict[str, float]:
    """F1 of each image."""
    return dict(zip(result.image_ids, result.image_scores.tolist(), strict=True))


if __name__ == "__main__":
    main()
