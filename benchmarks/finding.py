"""Whether search by concept finds planted label errors, and search by words what the words mean.

**Label errors.** A share of each concept's images lose it, and as many others get it; an index is
built of that, and what `annotator search CONCEPT` calls likely missing and likely wrong is compared
with what was planted. Errors that were there before count as mistakes.

**Words.** The ranking of texts through a projection is compared with the exact one, by the
encoder's own vectors. In place of texts, of which the packaged encoder knows nothing, stand the
mean vectors of concepts, moved by a random offset, as texts lie beside images: 0, 1 and 5 times as
long as what they mean.

    python benchmarks/finding.py IMAGES CONCEPTS --split FILE --only train --groups FILE:COLUMN

For example on a six-source set of radiological images:

    D=../shared/data/radiology
    python benchmarks/finding.py $D/images $D/concepts.csv \\
        --split $D/split.csv --only train --groups $D/sources.csv:group
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import save
from numpy.typing import NDArray

from annotator.collection import Collection, read_collection
from annotator.encoders.cache import CACHE_FILE, EmbeddingCache
from annotator.encoders.embedder import Embedder
from annotator.encoders.registry import make_embedder
from annotator.explore.concept import of_concept
from annotator.explore.text_search import project_directions
from annotator.indexing.build import build_index
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.projection import Projection
from index import StoredIndex, open_index

FEWEST = 20  # images of a concept
DEPTH = 10


def main() -> None:
    """Parse, plant, build, search, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("images")
    parser.add_argument("concepts")
    parser.add_argument("--split")
    parser.add_argument("--only")
    parser.add_argument("--groups")
    parser.add_argument("--share", type=float, default=0.05, help="Of a concept's images.")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--work", type=Path, help="Folder for the index and its cache.")
    options = parser.parse_args()
    collection = read_collection(
        options.images,
        options.concepts,
        split=options.split,
        only=options.only,
        groups=options.groups,
    )
    embedder = make_embedder()
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        for seed in range(options.seeds):
            planted, lost, added = plant(collection, options.share, seed)
            build_index(planted, folder, embedder)
            found = errors(open_index(folder), lost, added)
            records.append({"what": "label errors", "share": options.share, "seed": seed, **found})
            print(records[-1])
        build_index(collection, folder, embedder)
        for offset in (0, 1, 5):
            figures = words(open_index(folder), folder, embedder, offset)
            records.append({"what": "words", "offset": offset, **figures})
            print(records[-1])
    print(f"raw figures: {save('finding', records)}")


def plant(
    collection: Collection, share: float, seed: int
) -> tuple[Collection, dict[str, set[str]], dict[str, set[str]]]:
    """The collection with errors, and by concept the images that lost it and that got it."""
    rng = np.random.default_rng(seed)
    ids = [ref.id for ref in collection.images]
    sets = {id_: set(collection.concepts[id_]) for id_ in ids}
    true = {id_: frozenset(cuis) for id_, cuis in sets.items()}
    lost: dict[str, set[str]] = {}
    added: dict[str, set[str]] = {}
    for cui in sorted(set().union(*true.values())):
        holding = [id_ for id_ in ids if cui in true[id_]]
        lacking = [id_ for id_ in ids if cui not in true[id_]]
        if not FEWEST <= len(holding) <= len(ids) / 2:
            continue
        n = max(1, round(share * len(holding)))
        lost[cui] = set(rng.choice(holding, n, replace=False).tolist())
        added[cui] = set(rng.choice(lacking, n, replace=False).tolist())
        for id_ in lost[cui]:
            sets[id_].discard(cui)
        for id_ in added[cui]:
            sets[id_].add(cui)
    concepts = {id_: tuple(sorted(cuis)) for id_, cuis in sets.items()}
    return dataclasses.replace(collection, concepts=concepts), lost, added


def errors(
    stored: StoredIndex, lost: dict[str, set[str]], added: dict[str, set[str]]
) -> dict[str, Any]:
    """Precision and recall of both lists, over all concepts, and of their first entries."""
    voting, judged = IndexMetadata.of(stored).voting, 0
    tallies = {"missing": Tally(), "wrong": Tally()}
    for cui in lost:
        found = of_concept(stored, voting, cui, k=len(stored), most=len(stored))
        judged += found.judges_wrong
        tallies["missing"].add([case.image_id for case in found.missing], lost[cui])
        tallies["wrong"].add([case.image_id for case in found.wrong], added[cui])
    figures: dict[str, Any] = {"concepts": len(lost), "concepts_judged_wrong": judged}
    for kind, tally in tallies.items():
        figures |= {
            f"{kind}_planted": tally.planted,
            f"{kind}_listed": tally.listed,
            f"{kind}_precision": round(tally.hits / max(tally.listed, 1), 3),
            f"{kind}_recall": round(tally.hits / tally.planted, 3),
            f"{kind}_precision_of_first": round(tally.first_hits / max(tally.first, 1), 3),
        }
    return figures


@dataclasses.dataclass
class Tally:
    """What is listed and planted; `first` counts as many of each list as were planted."""

    listed: int = 0
    hits: int = 0
    planted: int = 0
    first: int = 0
    first_hits: int = 0

    def add(self, ids: list[str], true: set[str]) -> None:
        """Count one list."""
        self.listed += len(ids)
        self.hits += len(true.intersection(ids))
        self.planted += len(true)
        self.first += len(ids[: len(true)])
        self.first_hits += len(true.intersection(ids[: len(true)]))


def words(stored: StoredIndex, folder: Path, embedder: Embedder, offset: float) -> dict[str, Any]:
    """Rankings through the projection beside those by the encoder's vectors."""
    projection = Projection.from_arrays(stored.arrays)
    if projection is None:
        raise SystemExit("The index has no projection: there are too few images.")
    with EmbeddingCache(folder / CACHE_FILE, embedder.fingerprint.digest) as cache:
        rows = [cache.get(stored.content(row) or b"") for row in range(len(stored))]
    own = np.stack([row for row in rows if row is not None])
    held = stored.vectors(np.arange(len(stored)))
    rng = np.random.default_rng(0)
    correlations, hits = [], []
    for cui, images in stored.concepts.items():
        if not FEWEST <= images <= len(stored) / 2:
            continue
        holders = stored.labels.holders(cui)
        direction = unit(np.mean(own[holders], axis=0) - np.mean(own, axis=0))
        beside = unit(rng.normal(size=own.shape[1]))
        text = unit(direction + offset * beside).astype(np.float32)[None]
        exact, seen = own @ text[0], held @ project_directions(projection, text)[0]
        as_image = held @ projection.apply(text)[0]
        correlations.append(np.corrcoef(ranks(exact), ranks(seen))[0, 1])
        hits.append(
            [np.isin(np.argsort(-s)[:DEPTH], holders).mean() for s in (exact, seen, as_image)]
        )
    names = ("exact", "direction", "projected_as_an_image")
    means = np.mean(hits, axis=0)
    return {
        "concepts": len(hits),
        "rank_correlation": round(float(np.mean(correlations)), 3),
        **{
            f"precision_at_{DEPTH}_{n}": round(float(m), 3)
            for n, m in zip(names, means, strict=True)
        },
    }


def unit(vector: Any) -> Any:
    """float[dim]: the vector over its length."""
    return vector / np.linalg.norm(vector)


def ranks(scores: NDArray[Any]) -> NDArray[np.int64]:
    """The place of each score among all."""
    return np.argsort(np.argsort(scores))


if __name__ == "__main__":
    main()
