"""The measurements behind the defaults: what is pooled, how images are squared, k and beta.

Each row of the training side is annotated by all others of that side that belong to another group
(patient, study, near-duplicate), so nothing is chosen on images that are tested on later.

    python benchmarks/defaults.py IMAGES CONCEPTS --split FILE --only train --groups FILE:COLUMN

For example on a six-source set of radiological images:

    D=../shared/data/radiology
    python benchmarks/defaults.py $D/images $D/concepts.csv \\
        --split $D/split.csv --only train --groups $D/sources.csv:group
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from typing import Any, get_args

import numpy as np
from common import save
from numpy.typing import NDArray
from torch import Tensor, nn

from annotator.collection import Collection, read_collection
from annotator.embed.embedder import Encoder, TorchEmbedder
from annotator.embed.packaged import packaged, packaged_network
from annotator.embed.preprocess import Resize
from annotator.embed.stream import embed_images
from annotator.progress import bar
from annotator.score.scorers import image_f1
from annotator.vote.voting import Voting
from index import FlatIndex, LabelTable, Neighbors

KS = (5, 10, 20, 50, 100)
BETAS = (8.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0)
SEARCHED = 400  # enough to leave 100 after a row's own group is taken out


def main() -> None:
    """Parse, embed in each way, try each voting, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("images")
    parser.add_argument("concepts")
    parser.add_argument("--split")
    parser.add_argument("--only")
    parser.add_argument("--groups")
    options = parser.parse_args()
    collection = read_collection(
        options.images,
        options.concepts,
        split=options.split,
        only=options.only,
        groups=options.groups,
    )
    ways = [("both", resize) for resize in get_args(Resize)]
    ways += [("stages", "letterbox"), ("head", "letterbox")]
    records = []
    for pooled, resize in ways:
        records += try_votings(collection, pooled, resize)
    path = save("defaults", records)
    default = Voting()
    for pooled, resize in ways:
        mine = [r for r in records if (r["pooled"], r["resize"]) == (pooled, resize)]
        best = max(mine, key=lambda r: r["f1"])
        at_default = next(r for r in mine if (r["k"], r["beta"]) == (default.k, default.beta))
        print(
            f"{pooled:7s} {resize:10s} F1 {at_default['f1']:.4f} at the default k and beta, "
            f"at best {best['f1']:.4f} with k {best['k']}, beta {best['beta']:.0f}"
        )
    print(f"raw figures: {path}")


def try_votings(collection: Collection, pooled: str, resize: Resize) -> list[dict[str, Any]]:
    """Mean leave-one-group-out F1 for each k and beta."""
    encoder = packaged()
    if pooled == "stages":  # without the head
        encoder = dataclasses.replace(encoder, model=Part(encoder.model, slice(0, 744)))
    if pooled == "head":  # the last layer's mean, as most use such a network
        network = packaged_network()
        network.reset_classifier(0)
        encoder = Encoder(network, encoder.preprocess, "head")
    encoder = dataclasses.replace(
        encoder, preprocess=dataclasses.replace(encoder.preprocess, resize=resize)
    )
    embedder = TorchEmbedder(f"{pooled} {resize}", encoder)
    results = list(
        bar(embed_images(collection.images, embedder), total=len(collection.images), label=resize)
    )
    kept = [r for r in results if r.vector is not None]
    vectors = np.stack([r.vector for r in kept if r.vector is not None])
    ids = [r.ref.id for r in kept]
    concepts = [collection.concepts[id_] for id_ in ids]
    labels = LabelTable.from_sets(concepts)
    neighbors = without_own_group(vectors, [collection.groups.get(id_) or id_ for id_ in ids])
    records = []
    for k, beta in itertools.product(KS, BETAS):
        _, decisions = Voting(k=k, beta=beta).decide(neighbors, labels)
        scores = [image_f1(t, d.cuis) for t, d in zip(concepts, decisions, strict=True)]
        f1 = float(np.mean(scores))
        records.append(
            {"pooled": pooled, "resize": resize, "k": k, "beta": beta, "f1": f1, "images": len(ids)}
        )
    return records


class Part(nn.Module):
    """Some of the numbers of an encoder's vectors."""

    def __init__(self, model: nn.Module, part: slice) -> None:
        super().__init__()
        self.model, self.part = model, part

    def forward(self, pixels: Tensor) -> Tensor:
        """float[n, 3, size, size] to float32[n, part]."""
        vectors: Tensor = self.model(pixels)
        return vectors[:, self.part]


def without_own_group(vectors: NDArray[np.float32], groups: list[str]) -> Neighbors:
    """The nearest rows of each row that belong to another group."""
    number = np.unique(groups, return_inverse=True)[1]
    found = FlatIndex(vectors).search(vectors, SEARCHED)
    foreign = number[found.rows] != number[:, None]
    order = np.argsort(~foreign, axis=1, kind="stable")[:, : max(KS)]
    if not np.take_along_axis(foreign, order, axis=1).all():
        raise SystemExit("A group is too large for this search: raise SEARCHED.")
    return Neighbors(
        np.take_along_axis(found.rows, order, axis=1),
        np.take_along_axis(found.similarities, order, axis=1),
    )


if __name__ == "__main__":
    main()
