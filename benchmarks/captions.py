"""The consensus caption against the nearest case's, by ROUGE-1 with a paired interval.

How many neighbours are asked, and how sharply they are weighted, is compared on the training side:
each of its images is captioned by those of other groups (patient, study), through projections that
have not seen its concepts. The test side is read once, with what the index was tuned to.

    python benchmarks/captions.py --images DIR --concepts FILE --captions FILE \\
        --split FILE --groups FILE:COLUMN

Without --captions, captions are composed from the names of the concepts (--names), in a wording
drawn for each image. Such captions say whether the method works, and little about real ones.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import save
from numpy.typing import NDArray

from annotator.collection import Collection, read_collection
from annotator.encoders.registry import make_embedder
from annotator.evaluation.measures import compare as compare_scores
from annotator.evaluation.measures import measure
from annotator.evaluation.official_f1 import mean
from annotator.evaluation.rouge import rouge1, similarities
from annotator.indexing.build import build_index
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.caption import Method, choose_caption
from annotator.knn.cross_validation import stored_lists
from annotator.knn.posterior import weigh
from annotator.knn.voting import Voting
from annotator.pipeline import Annotation, Annotator
from annotator.tables.formats import read_column
from index import StoredIndex, open_index
from index.progress import track

K = (1, 3, 5, 10, 20, 30, 50, 100)
BETA = (0.0, 4.0, 8.0, 12.0, 16.0, 24.0, 48.0)
METHODS: tuple[Method, ...] = ("consensus", "nearest")
OPENINGS = ("{} showing {}.", "{}: {}.", "This {} demonstrates {}.", "{}. There is {}.")


def main() -> None:
    """Parse, build, compare on the training side, score the test side, report."""
    options = parse()
    with contextlib.ExitStack() as stack:
        folder = options.index or stack.enter_context(tempfile.TemporaryDirectory())
        train, test = (read(options, side) for side in ("train", "test"))
        build_index(train, folder, make_embedder())
        settings = list(compare(open_index(Path(folder))))
        records: list[dict[str, Any]] = [{"side": "train", "settings": settings}]
        records += score(Annotator.open(folder), test, options.by)
    for record in settings + records[1:]:
        print(*(f"{name} {value}" for name, value in record.items()), sep="\t")
    named = {"captions": options.name, "images": [len(train.images), len(test.images)]}
    print(f"raw figures: {save('captions', [{**named, **record} for record in records])}")


def parse() -> argparse.Namespace:
    """What was given on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for option in ("--images", "--concepts", "--split"):
        parser.add_argument(option, required=True)
    parser.add_argument("--captions", help="Table with each image's caption.")
    parser.add_argument("--names", help="Without captions: names of the concepts.")
    parser.add_argument("--groups", help="FILE:COLUMN, each image's patient or study.")
    parser.add_argument("--by", help="FILE:COLUMN, ROUGE-1 for each of its values, too.")
    parser.add_argument("--index", help="Keep the index there, with what was embedded.")
    parser.add_argument("--name", required=True, help="Of the captions, for the results.")
    options = parser.parse_args()
    if not options.captions and not options.names:
        parser.error("give --captions or --names")
    return options


def read(options: argparse.Namespace, side: str) -> Collection:
    """One side of the collection, its captions composed where there are none."""
    collection = read_collection(
        options.images,
        options.concepts,
        captions=options.captions,
        names=options.names,
        groups=options.groups,
        split=options.split,
        only=side,
    )
    if options.captions:
        return collection
    captions = {id_: compose(id_, c, collection.names) for id_, c in collection.concepts.items()}
    return dataclasses.replace(collection, captions=captions)


def compose(image_id: str, cuis: Sequence[str], names: Mapping[str, str]) -> str:
    """A sentence of the concepts' names, their order and its opening drawn by the id."""
    if not cuis:
        return "No finding."
    rng = np.random.default_rng(zlib.crc32(image_id.encode()))
    first, *rest = [names.get(cui, cui).lower() for cui in rng.permutation(list(cuis))]
    return OPENINGS[rng.integers(len(OPENINGS))].format(first, ", ".join(rest) or "nothing else")


def compare(stored: StoredIndex) -> Iterator[dict[str, Any]]:
    """Mean ROUGE-1 on the training side, by other patients' images, of each k and beta."""
    lists = stored_lists(stored)
    if lists is None:
        raise SystemExit("There are too few images to compare anything on.")
    texts = stored.columns["captions"]
    # Of each image: how its neighbours' captions are like each other, and like its own.
    between, own = [], []
    for query, rows in track(
        zip(lists.queries, lists.found.rows, strict=True), total=len(lists.queries), label="ROUGE-1"
    ):
        between.append(similarities([texts[row] for row in rows]).astype(np.float32))
        own.append([rouge1(texts[query], texts[row]) for row in rows])
    settings = [("the index's", IndexMetadata.of(stored).voting)]
    settings += [
        ("tried", Voting(k=k, beta=beta, kernel="exponential")) for k in K for beta in BETA
    ]
    for origin, voting in settings:
        posterior = weigh(lists.found, stored.labels, voting)
        # Weight of the prior is nobody's caption.
        weights: NDArray[np.float64] = posterior.weights[:, : voting.k]
        m = weights.shape[1]
        chosen = [
            int(np.round(b[:m, :m] @ w[:m], 6).argmax())
            for b, w in zip(between, weights, strict=True)
        ]
        scores = [found[i] for found, i in zip(own, chosen, strict=True)]
        nearest = [found[0] for found in own]
        against = compare_scores(scores, nearest)
        yield {
            "setting": origin,
            "k": voting.k,
            "beta": voting.beta,
            "kernel": voting.kernel,
            "rouge1": _rounded(mean(scores)),
            "nearest": _rounded(against.other),
            "interval_of_difference": _rounded(list(against.interval)),
        }


def score(annotator: Annotator, test: Collection, by: str | None) -> Iterator[dict[str, Any]]:
    """ROUGE-1 of each method on the test side, the consensus against the nearest case."""
    group_of = read_column(by) if by else {}
    annotations = [a for a in annotator.annotate(test.images) if a.error is None]
    groups = [group_of.get(a.image_id, "") for a in annotations] if by else None
    scores = {
        method: [rouge1(test.captions[a.image_id], caption(a, method)) for a in annotations]
        for method in METHODS
    }
    for method in METHODS:
        others = scores["nearest"] if method == "consensus" else None
        found = measure("ROUGE-1", scores[method], groups=groups, others=others)
        yield {"side": "test", "method": method, **_rounded(found.to_dict())}


def caption(annotation: Annotation, method: Method) -> str:
    """What the command writes for an image."""
    captions = [n.caption for n in annotation.neighbors]
    choice = choose_caption(captions, [n.weight for n in annotation.neighbors], method)
    return captions[choice.position] if choice else ""


def _rounded(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _rounded(value) for name, value in found.items() if name != "name"}
    if isinstance(found, list):
        return [_rounded(value) for value in found]
    return round(found, 5) if isinstance(found, float) else found


if __name__ == "__main__":
    main()
