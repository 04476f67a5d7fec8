"""Whether a concept is found as soon as a few images with it are added.

All images that have a concept are left out of the training side; of the others an index is built
and a classifier is fine-tuned. Then 1, 5, 10, 20 and 50 of the images that were left out are added
to the index, and the test side is annotated after each addition. The classifier cannot name what it
was not trained on, so it is trained again, with the 50 images, and it is measured what that takes.

Concepts are chosen by their number of images alone: at least 50 to add and 20 to be found in the
test side, and at most a tenth of the training side, since what more images have is a modality or an
organ, without which another collection is left.

    python -m benchmarks.features.new_concepts IMAGES CONCEPTS --split split.csv \\
        --groups sources.csv:patient --names names.csv --work DIR
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.collection import Collection, read_collection
from annotator.encoders.embedder import Embedder
from annotator.encoders.local_runner import embed_images
from annotator.encoders.registry import DEFAULT, make_embedder
from annotator.fitting.recipe import Recipe
from annotator.images.ref import ImageRef
from annotator.indexing.build import build_index
from annotator.indexing.update import add_images
from annotator.pipeline import Annotator
from benchmarks import records
from benchmarks.plots import Line, Panel, plot_lines
from benchmarks.quality.__main__ import embedded
from benchmarks.quality.data import Data
from benchmarks.quality.methods import Settings
from benchmarks.quality.methods.finetuned import FineTuned
from benchmarks.quality.scores import Truth, image_scores

ADDED = (1, 5, 10, 20, 50)  # images with the concept
FEWEST_TESTED = 20
LARGEST_SHARE = 0.1  # of the training side

Record = dict[str, Any]


def main(arguments: list[str] | None = None) -> None:
    """Leave out, build, train, add, annotate, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("images")
    parser.add_argument("concepts")
    parser.add_argument("--split", required=True)
    parser.add_argument("--train", default="train")
    parser.add_argument("--test", default="test")
    parser.add_argument("--groups")
    parser.add_argument("--names")
    parser.add_argument("--most", type=int, default=6, help="Concepts that are tried.")
    parser.add_argument("--draws", type=int, default=3, help="Choices of the images to add.")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs, help="Of fine-tuning.")
    parser.add_argument("--embedder", default=DEFAULT)
    parser.add_argument("--work", type=Path, required=True, help="Folder for what is kept.")
    options = parser.parse_args(arguments)
    train, test = (
        read_collection(
            options.images,
            options.concepts,
            names=options.names,
            groups=options.groups,
            split=options.split,
            only=only,
        )
        for only in (options.train, options.test)
    )
    chosen = held_out(train, test, options.most)
    if not chosen:
        parser.error(f"no concept has {max(ADDED)} training and {FEWEST_TESTED} test images")
    found = []
    for concept in chosen:
        found.append(measured(concept, train, test, options))
        print(found[-1], flush=True)
        plot(found, records.RESULTS / "new_concepts.png")
    print(f"raw figures: {records.save('new_concepts', found)}")


def held_out(train: Collection, test: Collection, most: int) -> list[str]:
    """The concepts that are tried, those of most training images first."""
    counts, tested = (
        Counter(concept for ref in side.images for concept in set(side.concepts[ref.id]))
        for side in (train, test)
    )
    largest = LARGEST_SHARE * len(train.images)
    fit = [c for c, n in counts.items() if max(ADDED) <= n <= largest]
    eligible = [c for c in fit if tested[c] >= FEWEST_TESTED]
    return sorted(eligible, key=lambda c: (-counts[c], c))[:most]


def measured(
    concept: str, train: Collection, test: Collection, options: argparse.Namespace
) -> Record:
    """Retrieval and the classifier on one concept."""
    new = [ref for ref in train.images if concept in train.concepts[ref.id]]
    rest = [ref for ref in train.images if concept not in train.concepts[ref.id]]
    split = Split(replace(train, images=rest), replace(train, images=new))
    tested = Tested(concept, Truth({r.id: frozenset(test.concepts[r.id]) for r in test.images}, {}))
    return {
        "concept": concept,
        "name": train.names.get(concept, concept),
        "training_images": len(new),
        "test_images": tested.images,
        "added": [0, *ADDED],
        "retrieval": retrieval(split, test.images, tested, options),
        "classifier": classifier(split, train, test, tested, options),
    }


@dataclass(frozen=True)
class Split:
    """The training side, parted by a concept.

    Attributes:
        rest: The images without it.
        new: The images with it.
    """

    rest: Collection
    new: Collection

    def drawn(self, seed: int) -> list[ImageRef]:
        """Images to add, in their order."""
        order = np.random.default_rng(seed).permutation(len(self.new.images))
        return [self.new.images[i] for i in order[: max(ADDED)]]


@dataclass(frozen=True)
class Tested:
    """What is measured of a concept on the test side.

    Attributes:
        concept: The concept.
        truth: Of all images.
    """

    concept: str
    truth: Truth

    @property
    def images(self) -> int:
        """How many images have it."""
        return sum(self.concept in labels for labels in self.truth.labels.values())

    def figures(self, found: Mapping[str, set[str]]) -> dict[str, float]:
        """Recall and precision of the concept (0 if it was never said), and F1 of all concepts."""
        said = {id_ for id_, concepts in found.items() if self.concept in concepts}
        hits = sum(self.concept in self.truth.labels[id_] for id_ in said)
        return {
            "recall": hits / self.images,
            "precision": hits / max(len(said), 1),
            "f1": float(np.mean(image_scores(found, self.truth))),
        }


def retrieval(
    split: Split, images: Sequence[ImageRef], tested: Tested, options: argparse.Namespace
) -> Record:
    """Figures after each addition, and the seconds that the additions took up to there."""
    embedder = make_embedder(options.embedder)
    with tempfile.TemporaryDirectory() as temporary:
        start, base = time.perf_counter(), Path(temporary) / "base"
        build_index(split.rest, base, embedder, use_cache=False)
        seconds = time.perf_counter() - start
        ids, vectors = embedded_images(images, embedder)
        draws = []
        for draw in range(options.draws):
            place = Path(temporary) / f"draw-{draw}"
            shutil.copytree(base, place)
            draws.append(after_additions(split, place, embedder, ids, vectors, tested, draw))
    mean = {
        key: np.mean([[step[key] for step in steps] for steps in draws], axis=0).round(4).tolist()
        for key in draws[0][0]
    }
    return {"embedder": embedder.name, "build_seconds": round(seconds, 1), **mean}


def after_additions(
    split: Split,
    place: Path,
    embedder: Embedder,
    ids: Sequence[str],
    vectors: NDArray[np.float32],
    tested: Tested,
    draw: int,
) -> list[dict[str, float]]:
    """The figures with 0, 1, 5, ... images of the concept in the index at `place`."""
    new, steps, seconds = split.drawn(draw), [], 0.0
    for before, n in zip((0, 0, *ADDED), (0, *ADDED), strict=False):
        start = time.perf_counter()
        if n:
            some = replace(split.new, images=new[before:n])
            add_images(some, place, embedder, use_cache=False)
            seconds += time.perf_counter() - start
        annotator = Annotator.open(place, embedder=embedder)
        answers = annotator.annotate_vectors(vectors, ids, with_neighbors=False)
        found = {answer.image_id: set(answer.cuis) for answer in answers}
        steps.append({**tested.figures(found), "seconds": seconds})
    return steps


def embedded_images(
    images: Sequence[ImageRef], embedder: Embedder
) -> tuple[list[str], NDArray[np.float32]]:
    """Ids and vectors of the images that can be used."""
    results = [result for result in embed_images(images, embedder) if result.vector is not None]
    vectors = [result.vector for result in results if result.vector is not None]
    return [result.ref.id for result in results], np.stack(vectors)


def classifier(
    split: Split,
    train: Collection,
    test: Collection,
    tested: Tested,
    options: argparse.Namespace,
) -> Record:
    """Figures of a fine-tuned network before and after it is trained again, with the costs."""
    settings = Settings(options.work, DEFAULT)
    side, test_side = (embedded(s, settings, tested=s is test) for s in (train, test))
    rows = {id_: row for row, id_ in enumerate(side.ids)}
    rest = [rows[ref.id] for ref in split.rest.images if ref.id in rows]
    new = [rows[ref.id] for ref in split.drawn(0) if ref.id in rows]
    found: Record = {"epochs": options.epochs}
    for name, own in (("before", rest), ("again", sorted(rest + new))):
        found[name] = trained(side.take(np.array(own)), test_side, tested, options)
    return found


def trained(train: Data, test: Data, tested: Tested, options: argparse.Namespace) -> Record:
    """Figures of a network fine-tuned on some images, which decides by expected F1."""
    method = FineTuned(options.work, "expected F1", recipe=Recipe(epochs=options.epochs))
    _, cost = train.cost_of(lambda: method.fit(train))
    found = dict(zip(test.ids, method.predict(test), strict=True))
    figures = {**tested.figures(found), **asdict(cost)}
    return {key: round(value, 4) for key, value in figures.items()}


def plot(found: Sequence[Record], path: Path) -> None:
    """Recall against the number of images added."""
    steps = found[0]["added"]
    positions = list(range(len(steps)))
    curves = [record["retrieval"]["recall"] for record in found]
    again = [record["classifier"]["again"] for record in found]
    seconds = float(np.mean([record["seconds"] for record in again]))
    adding = float(np.mean([record["retrieval"]["seconds"][-1] for record in found]))
    lines = [
        *(
            Line(record["name"], positions, curve)
            for record, curve in zip(found, curves, strict=True)
        ),
        Line("mean, added to the index", positions, np.mean(curves, axis=0).tolist(), ours=True),
        Line("classifier as it is", positions, [0.0] * len(positions)),
        Line(
            f"classifier trained again\n({seconds:.0f} s)",
            positions[-1:],
            [float(np.mean([record["recall"] for record in again]))],
        ),
    ]
    panel = Panel(
        f"A concept that was unknown: {max(ADDED)} images added in {adding:.1f} s",
        "images with the concept",
        "recall on the test side",
        lines,
        x_ticks={float(i): str(n) for i, n in enumerate(steps)},
        options={"ylim": (-0.03, 1.03)},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    plot_lines([panel], path)


if __name__ == "__main__":
    main()
