"""Whether search by concept finds planted label errors.

A share of each concept's images lose it, and as many others get it; an index is built of that, and
what `annotator search CONCEPT` calls likely missing and likely wrong is compared with what was
planted. Errors that were there before count as mistakes.

    python -m benchmarks.features.finding IMAGES CONCEPTS --split FILE --only train \\
        --groups FILE:COLUMN
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from annotator.collection import Collection, read_collection
from annotator.encoders.registry import make_embedder
from annotator.explore.concept import of_concept
from annotator.indexing.build import build_index
from annotator.pipeline import Annotator
from benchmarks.records import save

FEWEST = 20  # images of a concept

Planted = dict[str, set[str]]  # images by concept


def main(arguments: list[str] | None = None) -> None:
    """Plant, build, search, report."""
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
    options = parser.parse_args(arguments)
    sides = {"split": options.split, "only": options.only, "groups": options.groups}
    collection = read_collection(options.images, options.concepts, **sides)
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(options.seeds):
            planted, lost, added = plant(collection, options.share, seed)
            build_index(planted, Path(temporary) / "index", make_embedder())
            found = listed(Annotator.open(Path(temporary) / "index"), lost, added)
            records.append({"what": "label errors", "share": options.share, "seed": seed, **found})
            print(records[-1], flush=True)
    print(f"raw figures: {save('finding', records)}")


def plant(collection: Collection, share: float, seed: int) -> tuple[Collection, Planted, Planted]:
    """The collection with errors, and by concept the images that lost it and that got it."""
    rng = np.random.default_rng(seed)
    ids = [ref.id for ref in collection.images]
    sets = {id_: set(collection.concepts[id_]) for id_ in ids}
    true = {id_: frozenset(cuis) for id_, cuis in sets.items()}
    lost: Planted = {}
    added: Planted = {}
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


def listed(annotator: Annotator, lost: Planted, added: Planted) -> dict[str, Any]:
    """Precision and recall of both lists, over all concepts, and of their first entries."""
    n, judged = len(annotator.stored), 0
    lists: dict[str, dict[str, list[str]]] = {"missing": {}, "wrong": {}}
    for cui in lost:
        found = of_concept(annotator.stored, annotator.voting, cui, k=n, most=n)
        judged += found.judges_wrong
        lists["missing"][cui] = [case.image_id for case in found.missing]
        lists["wrong"][cui] = [case.image_id for case in found.wrong]
    figures: dict[str, Any] = {"concepts": len(lost), "concepts_judged_wrong": judged}
    for kind, planted in (("missing", lost), ("wrong", added)):
        first = {cui: ids[: len(planted[cui])] for cui, ids in lists[kind].items()}
        figures |= {
            f"{kind}_planted": sum(map(len, planted.values())),
            f"{kind}_listed": sum(map(len, lists[kind].values())),
            f"{kind}_precision": _precision(lists[kind], planted),
            f"{kind}_recall": _precision(planted, lists[kind]),
            f"{kind}_precision_of_first": _precision(first, planted),
        }
    return figures


def _precision(some: Mapping[str, Any], true: Mapping[str, Any]) -> float:
    """The share of `some`, over all concepts, that is in `true`."""
    hits = sum(len(set(ids).intersection(true[cui])) for cui, ids in some.items())
    return round(hits / max(sum(map(len, some.values())), 1), 3)


if __name__ == "__main__":
    main()
