"""Whether a concept is found as soon as a few images with it are added.

All images that have a concept are left out of the training side. Of the others an index is built
with an encoder as it is, another one with the encoder fitted to them, and a classifier is
fine-tuned. Then 1, 5, 10, 20 and 50 of the images that were left out are added to the indexes, and
the test side is annotated after each addition. The classifier cannot name what it was not trained
on, so it is trained again, with the 50 images, and what that takes is measured, too.

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
from annotator.encoders.registry import DEFAULT
from annotator.fitting.recipe import Recipe
from annotator.images.ref import ImageRef
from annotator.indexing.update import add_images
from annotator.pipeline import Annotator
from benchmarks import records
from benchmarks.plots import Line, Panel, plot_lines
from benchmarks.quality.__main__ import embedded
from benchmarks.quality.data import Data
from benchmarks.quality.methods import Settings
from benchmarks.quality.methods.finetuned import FineTuned
from benchmarks.quality.methods.ours import Ours, OursFitted, named
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
    parser.add_argument("--fit-folds", type=int, default=1, help="Of the fitted encoder.")
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
    settings = Settings(options.work, options.embedder, tuned=Recipe(epochs=options.epochs))
    data = embedded(train, settings, tested=False)
    tested = embedded(test, settings, tested=True)
    truth = Truth({ref.id: frozenset(test.concepts[ref.id]) for ref in test.images}, {})
    found = []
    for concept in chosen:
        case = Case.of(concept, train, data, tested, truth)
        found.append(measured(case, settings, options.fit_folds, options.draws))
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


@dataclass(frozen=True)
class Case:
    """A concept that is left out, and what it is measured on.

    Attributes:
        concept: The concept.
        train: The training side.
        side: The same as the methods get it.
        rest: Its rows without the concept.
        new: Its rows with it.
        test: The test side.
        truth: Its concepts.
    """

    concept: str
    train: Collection
    side: Data
    rest: NDArray[np.int64]
    new: NDArray[np.int64]
    test: Data
    truth: Truth

    @classmethod
    def of(cls, concept: str, train: Collection, side: Data, test: Data, truth: Truth) -> Case:
        """Part the training side by a concept."""
        has = np.array([concept in labels for labels in side.labels])
        return cls(concept, train, side, np.flatnonzero(~has), np.flatnonzero(has), test, truth)

    @property
    def tested(self) -> int:
        """Images of the test side with the concept."""
        return sum(self.concept in labels for labels in self.truth.labels.values())

    def drawn(self, draw: int) -> NDArray[np.int64]:
        """Rows of the images to add, in their order."""
        return np.random.default_rng(draw).permutation(self.new)[: max(ADDED)]

    def figures(self, found: Mapping[str, set[str]]) -> dict[str, float]:
        """Recall and precision of the concept (0 if it was never said), and F1 of all concepts."""
        said = [id_ for id_, concepts in found.items() if self.concept in concepts]
        hits = sum(self.concept in self.truth.labels[id_] for id_ in said)
        return {
            "recall": hits / self.tested,
            "precision": hits / max(len(said), 1),
            "f1": float(np.mean(image_scores(found, self.truth))),
        }


def measured(case: Case, settings: Settings, folds: int, draws: int) -> Record:
    """Retrieval with the encoder as it is and fitted, and the classifier, on one concept."""
    work, encoder, recipe = settings.work, settings.to_fit, settings.tuned
    fitted = OursFitted("fitted encoder", work, encoder, recipe, folds=folds)
    again = np.sort(np.append(case.rest, case.drawn(0)))
    return {
        "concept": case.concept,
        "name": case.train.names.get(case.concept, case.concept),
        "training_images": len(case.new),
        "test_images": case.tested,
        "embedder": settings.embedder,
        "fitted": encoder,
        "epochs": recipe.epochs,
        "fit_folds": folds,
        "added": [0, *ADDED],
        "retrieval": {
            method.name: retrieval(case, method, draws)
            for method in (Ours("encoder as it is", named(settings.embedder)), fitted)
        },
        "classifier": {
            "before": trained(case, case.rest, settings),
            "again": trained(case, again, settings),
        },
    }


def retrieval(case: Case, method: Ours, draws: int) -> Record:
    """Figures after each addition, and the seconds that the additions took up to there."""
    rest = case.side.take(case.rest)
    _, build = rest.cost_of(lambda: method.fit(rest))
    embedder = method.embedder()
    ids, vectors = embedded_images(case.test.images, embedder)
    draws_of: list[list[dict[str, float]]] = []
    for draw in range(draws):
        with tempfile.TemporaryDirectory() as temporary:
            place = Path(temporary) / "index"
            shutil.copytree(method.index, place)
            draws_of.append(after_additions(case, place, embedder, ids, vectors, draw))
    mean = {
        key: np.mean([[step[key] for step in steps] for steps in draws_of], axis=0)
        for key in draws_of[0][0]
    }
    return {"build": asdict(build), **{key: values.tolist() for key, values in mean.items()}}


def after_additions(
    case: Case,
    place: Path,
    embedder: Embedder,
    ids: Sequence[str],
    vectors: NDArray[np.float32],
    draw: int,
) -> list[dict[str, float]]:
    """The figures with 0, 1, 5, ... images of the concept in the index at `place`."""
    new = [case.side.images[row] for row in case.drawn(draw).tolist()]
    steps, seconds = [], 0.0
    for before, n in zip((0, 0, *ADDED), (0, *ADDED), strict=False):
        start = time.perf_counter()
        if n:
            add_images(replace(case.train, images=new[before:n]), place, embedder, use_cache=False)
            seconds += time.perf_counter() - start
        annotator = Annotator.open(place, embedder=embedder)
        answers = annotator.annotate_vectors(vectors, ids, with_neighbors=False)
        found = {answer.image_id: set(answer.cuis) for answer in answers}
        steps.append({**case.figures(found), "seconds": seconds})
    return steps


def embedded_images(
    images: Sequence[ImageRef], embedder: Embedder
) -> tuple[list[str], NDArray[np.float32]]:
    """Ids and vectors of the images that can be used."""
    found = [(result.ref.id, result.vector) for result in embed_images(images, embedder)]
    pairs = [(id_, vector) for id_, vector in found if vector is not None]
    return [id_ for id_, _ in pairs], np.stack([vector for _, vector in pairs])


def trained(case: Case, rows: NDArray[np.int64], settings: Settings) -> Record:
    """Figures and cost of a network fine-tuned on some rows, which decides by expected F1."""
    train = case.side.take(rows)
    recipe, encoder = settings.tuned, settings.to_fit
    method = FineTuned(settings.work, "expected F1", recipe=recipe, encoder=encoder)
    _, cost = train.cost_of(lambda: method.fit(train))
    found = dict(zip(case.test.ids, method.predict(case.test), strict=True))
    return {**case.figures(found), **asdict(cost)}


def plot(found: Sequence[Record], path: Path) -> None:
    """Recall against the number of images added, a panel for each encoder."""
    ticks = {float(i): str(n) for i, n in enumerate(found[0]["added"])}
    again = [record["classifier"]["again"] for record in found]
    seconds = float(np.mean([record["seconds"] for record in again]))
    panels = []
    for kind in found[0]["retrieval"]:
        curves = [record["retrieval"][kind]["recall"] for record in found]
        adding = np.mean([record["retrieval"][kind]["seconds"][-1] for record in found])
        lines = [
            *(Line(r["name"], list(ticks), c) for r, c in zip(found, curves, strict=True)),
            Line("mean", list(ticks), np.mean(curves, axis=0).tolist(), ours=True),
            Line("classifier", list(ticks), [0.0] * len(ticks)),
            Line(
                f"classifier, trained again\n({seconds:.0f} s)",
                list(ticks)[-1:],
                [float(np.mean([record["recall"] for record in again]))],
            ),
        ]
        panels.append(
            Panel(
                f"Index, {kind}: {max(ADDED)} images added in {adding:.1f} s",
                "images with a concept that was unknown",
                "its recall on the test side",
                lines,
                x_ticks=ticks,
                options={"ylim": (-0.03, 1.03)},
            )
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    plot_lines(panels, path)


if __name__ == "__main__":
    main()
