"""The measurements behind the defaults: what is pooled, how images are squared and vectors fitted.

Images of the training side are annotated by those of other groups (patient, study, near-duplicate)
of that side, so nothing is chosen on images that are tested on later.

    python benchmarks/defaults.py IMAGES CONCEPTS --split FILE --only train --groups FILE:COLUMN

For example on a six-source set of radiological images:

    D=../shared/data/radiology
    python benchmarks/defaults.py $D/images $D/concepts.csv \\
        --split $D/split.csv --only train --groups $D/sources.csv:group
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import numpy as np
from common import save
from numpy.typing import NDArray

from annotator.collection import Collection, read_collection
from annotator.encoders.efficientnet import packaged
from annotator.encoders.embedder import Encoder, TorchEmbedder
from annotator.encoders.local_runner import embed_images
from annotator.encoders.preprocess import Resize
from annotator.encoders.registry import DEFAULT
from annotator.knn.model import Adaptation, fit_model
from index.progress import track

# Parts of the vectors by the position of their block: a mean and a deviation for each stage.
POOLED = {
    "means and deviations of stages, head": range(11),
    "means of stages, head": (0, 2, 4, 6, 8, 10),
    "means and deviations of stages": range(10),
    "head": (10,),
}
ADAPTATIONS: tuple[Adaptation, ...] = ("auto", "looks", "none")
RESIZES: tuple[Resize, ...] = ("letterbox", "stretch", "crop")
SIZES = (160, 224, 320)


def main() -> None:
    """Parse, embed in each way, choose, report."""
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
    default = packaged(DEFAULT)
    records: list[dict[str, Any]] = []

    def measure(encoder: Encoder, way: dict[str, Any], pooled: dict[str, Any]) -> None:
        for name, adaptation in ((n, a) for n in pooled for a in ADAPTATIONS):
            record = {**way, "pooled": name, "adaptation": adaptation}
            record |= estimate(collection, vectors, ids, encoder, pooled[name], adaptation)
            records.append(record)
            print(*record.values(), sep="\t", flush=True)

    whole = {next(iter(POOLED)): POOLED[next(iter(POOLED))]}
    for resize, size in [(r, 224) for r in RESIZES] + [("letterbox", s) for s in SIZES if s != 224]:
        square = dataclasses.replace(default.preprocess, resize=resize, size=size)
        encoder = dataclasses.replace(packaged(DEFAULT), preprocess=square)
        ids, vectors = embed(collection, encoder)
        way = {"resize": resize, "size": size}
        measure(encoder, way, POOLED if (resize, size) == ("letterbox", 224) else whole)
    print(f"raw figures: {save('defaults', records)}")


def embed(collection: Collection, encoder: Encoder) -> tuple[list[str], NDArray[np.float32]]:
    """Ids and vectors of the images that can be used."""
    refs, embedder = collection.images, TorchEmbedder("benchmark", encoder)
    results = list(track(embed_images(refs, embedder), total=len(refs), label="Embedding"))
    kept = [(r.ref.id, r.vector) for r in results if r.vector is not None]
    return [id_ for id_, _ in kept], np.stack([vector for _, vector in kept])


def estimate(
    collection: Collection,
    vectors: NDArray[np.float32],
    ids: list[str],
    encoder: Encoder,
    kept: Any,
    adaptation: Adaptation,
) -> dict[str, Any]:
    """The F1 to be expected with some of the vectors' blocks."""
    blocks = encoder.blocks or (vectors.shape[1],)
    ends = np.cumsum(blocks)
    columns = np.concatenate([np.arange(ends[i] - blocks[i], ends[i]) for i in kept])
    part = np.ascontiguousarray(vectors[:, columns])
    part /= np.linalg.norm(part, axis=1, keepdims=True)
    choice = fit_model(
        part,
        [collection.concepts[id_] for id_ in ids],
        [collection.groups.get(id_, "") for id_ in ids],
        blocks=[blocks[i] for i in kept],
        adaptation=adaptation,
    )
    if choice.tuned is None:
        raise SystemExit("There are too few images to choose anything on.")
    voting = dataclasses.asdict(choice.voting)
    chosen = {name: voting[name] for name in ("k", "kernel", "beta", "prior", "decider")}
    interval = [round(end, 6) for end in choice.tuned.interval]
    f1 = {"f1": round(choice.tuned.f1, 6), "interval": interval, "images": choice.tuned.images}
    return {**f1, "penalty": choice.penalty, **chosen}


if __name__ == "__main__":
    main()
