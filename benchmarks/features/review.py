"""What the order of review gains: a simulated reviewer, who gives images their labels.

A tenth of a side is labelled, and an index built of it. In each of 20 rounds 50 images are chosen
of those without labels, by one of four strategies, and get theirs. After every four rounds the
index is built anew. F1 is measured after each round, on a held-out quarter of the groups of that
side, or with --test on a test side.

    annotator embed IMAGES --split split.csv --only train --out train.npz
    python -m benchmarks.features.review train.npz CONCEPTS --groups sources.csv:group
    annotator embed IMAGES --split split.csv --only test --out test.npz
    python -m benchmarks.features.review train.npz CONCEPTS --groups … --test test.npz

With --images IMAGES, labels are given over HTTP, as `POST /v1/images` to `annotator serve
--writable`; F1 is that of `POST /v1/annotate-vectors`, and indexes are built by `annotator
build-index`. With --plot, draws what is in the results; with --cost N, says what it costs to rank N
images.
"""

from __future__ import annotations

import argparse
import io
import resource
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
import numpy as np
from numpy.typing import NDArray

from annotator.collection import read_collection
from annotator.encoders.local_runner import Embedded
from annotator.evaluation.measures import group_numbers
from annotator.evaluation.official_f1 import image_score
from annotator.images.sources import find_images
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.calibration import Calibration, calibrate
from annotator.knn.cross_validation import group_folds, projected_rows
from annotator.knn.decision import Decision, choose_concepts
from annotator.knn.model import fit_model
from annotator.knn.posterior import weigh
from annotator.pipeline import Annotator
from annotator.queue.rank import NewImages, rank_new
from annotator.vectors.table import VectorTable, read_vectors
from benchmarks import records
from benchmarks.features.cli import annotator
from benchmarks.plots import Line, Panel, plot_lines
from benchmarks.records import Record
from benchmarks.service_load.server import Server
from index import FlatIndex, LabelTable, open_index

FIRST = 0.1  # of the images that can be labelled, that are
ROUNDS, STEP = 20, 50
REBUILT = 4  # rounds, after which the index is built anew
STRATEGIES = ("queue", "random", "uncertainty", "diversity")
KEY = "reviewer-of-the-benchmark"

Rows = NDArray[np.int64]


def main(arguments: list[str] | None = None) -> None:
    """Simulate, save, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("vectors", nargs="?", help="From `annotator embed`, of the training side.")
    parser.add_argument("concepts", nargs="?")
    parser.add_argument("--groups", help="FILE:COLUMN")
    parser.add_argument("--test", help="Vectors of the test side.")
    parser.add_argument("--images", help="The images, to send them to a service.")
    parser.add_argument("--name", default="", help="Of the collection, for the record.")
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES, choices=STRATEGIES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--step", type=int, default=STEP)
    parser.add_argument("--rebuilt", type=int, default=REBUILT, help="Rounds; 0 for never.")
    parser.add_argument("--plot", action="store_true")
    parser.add_argument("--cost", type=int, metavar="N", help="Rank N generated vectors instead.")
    options = parser.parse_args(arguments)
    if options.cost:
        costs = cost(options.cost)
        records.save("review_cost", [costs])
        print(costs)
        return
    if options.plot:
        found = records.load("review")
        print(*report(found), sep="\n")
        plot(found, records.RESULTS / "review.png")
        return
    train = Side.read(options.vectors, options.concepts, options.groups)
    if options.test:
        test = Side.read(options.test, options.concepts, options.groups)
        sides = train, test
    else:
        held = group_folds(group_numbers(train.groups), 4) == 0
        sides = train.take(np.flatnonzero(~held)), train.take(np.flatnonzero(held))
    for seed in options.seeds:
        for strategy in options.strategies:
            with tempfile.TemporaryDirectory() as folder:
                collection: Reviewed
                if options.images:
                    collection = Served(*sides, options.images, Path(folder))
                else:
                    collection = Here(*sides)
                try:
                    f1 = campaign(collection, strategy, seed, options)
                finally:
                    collection.close()
            record = {
                "collection": options.name,
                "on": "test side" if options.test else "held-out groups",
                "how": "HTTP" if options.images else "in process",
                "strategy": strategy,
                "seed": seed,
                "first": round(FIRST * len(sides[0])),
                "step": options.step,
                "rebuilt_every": options.rebuilt,
                "images": len(sides[0]),
                "tested": len(sides[1]),
                "f1": [round(value, 6) for value in f1],
                "area": round(float(np.mean(f1)), 6),
            }
            records.save("review", [record])
            print({name: record[name] for name in ("strategy", "seed", "area", "f1")}, flush=True)


@dataclass(frozen=True)
class Side:
    """Images with their vectors, groups and labels.

    Attributes:
        table: What the vectors were read from.
        vectors: float32[n, dim] of unit norm, from the encoder.
        ids: Image ids.
        groups: Group of each, "" for none.
        labels: Labels of each, ascending.
    """

    table: VectorTable
    vectors: NDArray[np.float32]
    ids: Sequence[str]
    groups: Sequence[str]
    labels: Sequence[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def read(cls, vectors: str, concepts: str, groups: str | None) -> Side:
        table = read_vectors(vectors)
        collection = read_collection(table.found(), concepts, groups=groups)
        ids = [ref.id for ref in collection.images]
        row_of = {id_: row for row, id_ in enumerate(table.ids)}
        rows = table.rows[[row_of[id_] for id_ in ids]].astype(np.float32)
        return cls(
            table,
            rows / np.linalg.norm(rows, axis=1, keepdims=True),
            ids,
            [collection.groups.get(id_, "") for id_ in ids],
            [tuple(sorted(set(collection.concepts[id_]))) for id_ in ids],
        )

    def take(self, rows: Rows) -> Side:
        """Some of the images."""
        chosen = rows.tolist()
        ids, groups, labels = (
            [values[row] for row in chosen] for values in (self.ids, self.groups, self.labels)
        )
        return Side(self.table, self.vectors[rows], ids, groups, labels)


class Reviewed(Protocol):
    """An index of what is labelled so far."""

    side: Side

    def build(self, labelled: Rows) -> None:
        """Build the index of these images anew."""
        ...

    def label(self, rows: Rows) -> None:
        """Add images with their labels."""
        ...

    def seen(self, rows: Rows) -> NewImages:
        """Images without labels, as the index sees them."""
        ...

    def vectors(self, rows: Rows) -> NDArray[np.float32]:
        """Images in the space of the index."""
        ...

    def f1(self) -> float:
        """Mean F1 of the tested side."""
        ...

    def close(self) -> None: ...


def campaign(
    collection: Reviewed, strategy: str, seed: int, options: argparse.Namespace
) -> list[float]:
    """F1 before the first round and after each."""
    rng = np.random.default_rng(seed)
    n = len(collection.side)
    labelled = rng.permutation(n)[: round(FIRST * n)]
    collection.build(labelled)
    f1 = [collection.f1()]
    for number in range(1, options.rounds + 1):
        others = np.setdiff1d(np.arange(n), labelled)
        chosen = CHOOSE[strategy](collection, labelled, others, options.step, rng)
        labelled = np.concatenate([labelled, chosen])
        if options.rebuilt and number % options.rebuilt == 0:
            collection.build(labelled)
        else:
            collection.label(chosen)
        f1.append(collection.f1())
        print(strategy, seed, len(labelled), round(f1[-1], 4), file=sys.stderr, flush=True)
    return f1


def by_queue(
    collection: Reviewed, labelled: Rows, others: Rows, n: int, rng: np.random.Generator
) -> Rows:
    """`annotator queue`, and the least sure ones where it stops."""
    seen = collection.seen(others)
    items = [*rank_new(seen, n).items, *rank_new(seen, len(others), order="doubt").items]
    return _rows(collection, [item.image_id for item in items])[:n]


def by_doubt(
    collection: Reviewed, labelled: Rows, others: Rows, n: int, rng: np.random.Generator
) -> Rows:
    """The images of the lowest expected F1."""
    seen = collection.seen(others)
    order = np.argsort(seen.expected_f1, kind="stable")[:n]
    return _rows(collection, [seen.ids[i] for i in order.tolist()])


def _rows(collection: Reviewed, ids: Sequence[str]) -> Rows:
    """The rows of some images, each once."""
    row_of = {id_: row for row, id_ in enumerate(collection.side.ids)}
    return np.array([row_of[id_] for id_ in dict.fromkeys(ids)], np.int64)


def by_chance(
    collection: Reviewed, labelled: Rows, others: Rows, n: int, rng: np.random.Generator
) -> Rows:
    """Any images."""
    return rng.permutation(others)[:n]


def by_distance(
    collection: Reviewed, labelled: Rows, others: Rows, n: int, rng: np.random.Generator
) -> Rows:
    """Each the one that is furthest from all that are labelled or chosen (k-center; Gonzalez 1985,
    as Sener and Savarese 2018 use it).
    """
    vectors = collection.vectors(others)
    nearest = (vectors @ collection.vectors(labelled).T).max(axis=1)
    chosen: list[int] = []
    for _ in range(min(n, len(others))):
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, vectors @ vectors[chosen[-1]])
        nearest[chosen] = 2.0
    return others[chosen]


CHOOSE: Mapping[str, Callable[[Reviewed, Rows, Rows, int, np.random.Generator], Rows]] = {
    "queue": by_queue,
    "random": by_chance,
    "uncertainty": by_doubt,
    "diversity": by_distance,
}


class Here:
    """In this process: the model of `build-index`, without its files."""

    def __init__(self, side: Side, tested: Side) -> None:
        self.side, self._tested = side, tested
        self._table = LabelTable.from_sets(side.labels)

    def build(self, labelled: Rows) -> None:
        part = self.side.take(labelled)
        blocks = self.side.table.embedder.blocks
        model = fit_model(part.vectors, part.labels, part.groups, blocks=blocks)
        self._voting = model.voting
        self._calibration: Calibration | None = None
        if model.lists is not None:
            labels = LabelTable.from_sets(part.labels)
            self._calibration = calibrate(model.lists, labels, model.voting)
        self._vectors, self._queries = (
            projected_rows(side.vectors, model.projection, np.arange(len(side)))
            for side in (self.side, self._tested)
        )
        self._labelled = labelled

    def label(self, rows: Rows) -> None:
        self._labelled = np.concatenate([self._labelled, rows])

    def vectors(self, rows: Rows) -> NDArray[np.float32]:
        return self._vectors[rows]

    def _decide(self, queries: NDArray[np.float32]) -> list[Decision]:
        index = FlatIndex(np.ascontiguousarray(self._vectors[self._labelled]))
        found = index.search(np.ascontiguousarray(queries), self._voting.k)
        labels = self._table.take(self._labelled)
        return choose_concepts(weigh(found, labels, self._voting), self._voting)

    def seen(self, rows: Rows) -> NewImages:
        decisions = self._decide(self._vectors[rows])
        expected = np.array([decision.expected_f1 for decision in decisions])
        if self._calibration is not None:
            expected = self._calibration.expected_f1(expected)
        ids = [self.side.ids[row] for row in rows.tolist()]
        unknown = np.zeros(len(rows), bool)
        return NewImages(ids, self._vectors[rows], expected, [()] * len(rows), unknown)

    def f1(self) -> float:
        decisions = self._decide(self._queries)
        return mean_f1(self._tested, [decision.cuis for decision in decisions])

    def close(self) -> None:
        pass


class Served:
    """`annotator serve --writable`, which gets images and labels over HTTP.

    Args:
        side: Images that can be labelled.
        tested: Images on which F1 is measured.
        images: Where the files of the former are.
        folder: For the index, the keys and tables.
    """

    def __init__(self, side: Side, tested: Side, images: str, folder: Path) -> None:
        self.side, self._tested, self._images, self._folder = side, tested, images, folder
        self._files = {ref.id: ref for ref in find_images(images).images}
        self._index = folder / "index"
        self._keys = folder / "keys.txt"
        self._keys.write_text(f"correct:{KEY} Reviewer\n")
        self._keys.chmod(0o600)
        self._server: Server | None = None
        file = io.BytesIO()
        np.save(file, tested.vectors)
        self._queries = file.getvalue()

    def build(self, labelled: Rows) -> None:
        self.close()
        part = self.side.take(labelled)
        table, split, groups = (self._folder / f"{n}.csv" for n in ("concepts", "split", "groups"))
        rows = list(zip(part.ids, part.labels, part.groups, strict=True))
        table.write_text("ID,CUIs\n" + "".join(f"{i},{';'.join(c)}\n" for i, c, _ in rows))
        split.write_text("ID,split\n" + "".join(f"{i},labelled\n" for i, _, _ in rows))
        groups.write_text("ID,group\n" + "".join(f"{i},{g}\n" for i, _, g in rows if g))
        annotator(
            *("-q", "build-index", self._images, table, "--split", split, "--only", "labelled"),
            *("--groups", f"{groups}:group", "--index", self._index),
        )
        self._server = Server(
            self._index,
            *("--writable", "--allow-reload", "--api-key-file", str(self._keys)),
            *("--max-images", "1000", "--max-queue", "1000", "--timeout-s", "120"),
        )
        host, port = self._server.address
        self._client = httpx.Client(
            base_url=f"http://{host}:{port}", headers={"X-API-Key": KEY}, timeout=180
        )
        info = self._client.get("/v1/info").raise_for_status().json()
        self._model = {"fingerprint": info["model"]["fingerprint"], "neighbors": "0"}

    def label(self, rows: Rows) -> None:
        for row in rows.tolist():
            id_ = self.side.ids[row]
            given = {"id": id_, "concepts": list(self.side.labels[row])}
            if self.side.groups[row]:
                given["group"] = self.side.groups[row]
            image = {"image": (id_, self._files[id_].read())}
            self._client.post("/v1/images", params=given, files=image).raise_for_status()

    def _opened(self) -> Annotator:
        """The index as it is now; what was labelled is published first."""
        self._client.post("/v1/reload").raise_for_status()
        embedder = IndexMetadata.of(open_index(self._index)).encoder_of(self.side.table)
        return Annotator.open(self._index, embedder=embedder)

    def seen(self, rows: Rows) -> NewImages:
        part = self.side.take(rows)
        refs = self._files
        embedded = (
            Embedded(refs[id_], vector) for id_, vector in zip(part.ids, part.vectors, strict=True)
        )
        return NewImages.of(self._opened(), embedded)

    def vectors(self, rows: Rows) -> NDArray[np.float32]:
        return self._opened().project(self.side.vectors[rows])

    def f1(self) -> float:
        answer = self._client.post(
            "/v1/annotate-vectors",
            params=self._model,
            content=self._queries,
            headers={"Content-Type": "application/x-npy"},
        )
        results = answer.raise_for_status().json()["results"]
        sets = [[concept["cui"] for concept in result["concepts"]] for result in results]
        return mean_f1(self._tested, sets)

    def close(self) -> None:
        if self._server is not None:
            self._client.close()
            self._server.__exit__(None, None, None)
            self._server = None


def mean_f1(side: Side, sets: Sequence[Sequence[str]]) -> float:
    pairs = zip(side.labels, sets, strict=True)
    return float(np.mean([image_score(set(truth), chosen) for truth, chosen in pairs]))


def cost(n: int, dim: int = 256) -> Record:
    """What it costs to rank n new images, without embedding and annotating them."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(n, dim)).astype(np.float32)
    vectors += 1.5 * rng.normal(size=(n // 50 + 1, dim)).astype(np.float32)[np.arange(n) // 50]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"image-{i}" for i in range(n)]
    unknown = np.zeros(n, bool)
    images = NewImages(ids, vectors, rng.random(n), [()] * n, unknown)
    before = resource.getrusage(resource.RUSAGE_SELF)
    ranked = rank_new(images, 200)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "images": n,
        "dim": dim,
        "budget": len(ranked.items),
        "cpu_seconds": round(
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1
        ),
        "peak_mib": round(after.ru_maxrss / 1024),
        "before_mib": round(before.ru_maxrss / 1024),
    }


def curves(found: Sequence[Record]) -> dict[tuple[str, str, str], dict[str, NDArray[np.float64]]]:
    """F1 of each strategy, float64[seeds, rounds + 1], by collection, side and way."""
    of: dict[tuple[str, str, str], dict[str, list[list[float]]]] = {}
    for one in found:
        key = one["collection"], one["on"], one["how"]
        of.setdefault(key, {}).setdefault(one["strategy"], []).append(one["f1"])
    return {
        key: {name: np.array(rows) for name, rows in strategies.items()}
        for key, strategies in of.items()
    }


def needed(f1: NDArray[np.float64], level: float, step: int) -> float | None:
    """Corrections after which a mean curve has reached a level, between rounds by a straight line.

    None if it does not.
    """
    highest = np.maximum.accumulate(f1)
    if highest[-1] < level:
        return None
    after = int(np.argmax(highest >= level))
    if after == 0:
        return 0.0
    below, above = highest[after - 1], highest[after]
    return float(step * (after - 1 + (level - below) / (above - below)))


def report(found: Sequence[Record]) -> list[Record]:
    """Area under F1, and the corrections that the queue takes to where chance is after some."""
    step, rows = int(found[0]["step"]), list[Record]()
    for (collection, on, how), strategies in curves(found).items():
        mean = {name: f1.mean(axis=0) for name, f1 in strategies.items()}
        row: Record = {"collection": collection, "on": on, "how": how}
        row["seeds"] = {name: len(f1) for name, f1 in strategies.items()}
        row["area"] = {name: round(float(f1.mean()), 4) for name, f1 in mean.items()}
        if {"queue", "random"} <= mean.keys():
            row["queue_needs"] = {
                number * step: needed(mean["queue"], float(mean["random"][number]), step)
                for number in range(4, len(mean["random"]), 4)
            }
        rows.append(row)
    return rows


def plot(found: Sequence[Record], path: Path) -> None:
    """F1 by corrections, a panel for each collection and way."""
    step = int(found[0]["step"])
    panels = [
        Panel(
            f"{collection}, {on}, {how}",
            "corrections",
            "F1",
            [
                Line(
                    name,
                    (step * np.arange(strategies[name].shape[1])).tolist(),
                    strategies[name].mean(axis=0).tolist(),
                    name == "queue",
                )
                for name in STRATEGIES
                if name in strategies
            ],
        )
        for (collection, on, how), strategies in sorted(curves(found).items())
    ]
    plot_lines(panels, path)


if __name__ == "__main__":
    main()
