"""Most likely sources of an image in another collection: copies, close ones, the most similar."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from annotator.audit.candidates import Views, compare_across, verify_pairs
from annotator.audit.duplicates import near_duplicates
from annotator.audit.findings import ORDER, Finding, Flag, Source
from annotator.knn.neighbors import nearest_of_other_groups
from index import FlatIndex

SOURCES = 5  # of each image
_CLOSE = 0.99  # share of the collection's images that are less similar to their nearest one


def find_sources(
    views: Views,
    collection: Views,
    ids: Sequence[str],
    same: Callable[[int, int], bool],
    *,
    threshold: float,
    k: int = SOURCES,
    workers: int = 1,
) -> list[tuple[Source, ...]]:
    """The most likely sources of each image: copies first, then by similarity.

    Args:
        views: Of the images.
        collection: Of the images that they may come from.
        ids: Of the images of `collection`.
        same: Whether the pixels of an image and of one of the collection are the same.
        threshold: Least correlation of a copy.
        k: Sources of each image.
        workers: Threads.
    """
    index = FlatIndex(np.ascontiguousarray(collection.vectors))
    usual = _nearest_similarities(index, collection.vectors)
    found = index.search(np.ascontiguousarray(views.vectors), min(k, len(collection)))
    pairs = compare_across(views, collection, workers=workers)
    pairs = verify_pairs(pairs, views, collection, workers=workers)
    copies: list[dict[int, tuple[float, str]]] = [{} for _ in range(len(views))]
    for d in near_duplicates(pairs, threshold, same):
        copies[d.row][d.other] = (d.score, d.how)
    result = []
    for i, of_image in enumerate(copies):
        similarity = dict(zip(found.rows[i].tolist(), found.similarities[i].tolist(), strict=True))
        for row in of_image.keys() - similarity.keys():
            similarity[row] = float(views.vectors[i] @ collection.vectors[row])
        # Copies first, whose correlation is above 0.
        ranked = sorted(similarity, key=lambda r: (-of_image.get(r, (0.0,))[0], -similarity[r], r))
        result.append(
            tuple(
                _source(ids[row], of_image.get(row, (0.0, "")), similarity[row], usual)
                for row in ranked[:k]
            )
        )
    return result


def source_findings(ids: Sequence[str], sources: Sequence[tuple[Source, ...]]) -> list[Finding]:
    """A finding of each image, with its most likely source; copies first, then close ones."""
    findings = []
    for image_id, of_image in zip(ids, sources, strict=True):
        first, *others = of_image
        details = [first.how] if first.how else []
        details.append(f"similarity {first.similarity:.3f}")
        if others:
            listed = ", ".join(f"{s.image_id} ({s.similarity:.3f})" for s in others)
            details.append(f"then {listed}")
        findings.append(
            Finding(first.flag, image_id, first.image_id, first.score, "; ".join(details), of_image)
        )
    return sorted(findings, key=lambda f: (ORDER.index(f.kind), -f.score, f.image_id))


def _source(
    image_id: str, copy: tuple[float, str], similarity: float, usual: NDArray[np.float64]
) -> Source:
    correlation, how = copy
    closeness = float(np.searchsorted(usual, similarity) / len(usual)) if len(usual) else 0.0
    flag: Flag = "copy" if correlation else "close" if closeness >= _CLOSE else "source"
    return Source(image_id, flag, correlation, similarity, closeness, how)


def _nearest_similarities(index: FlatIndex, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64[n], ascending: each image's similarity to the nearest other one."""
    if len(vectors) < 2:
        return np.zeros(0)
    rows = np.arange(len(vectors))
    found = nearest_of_other_groups(index, rows, np.ascontiguousarray(vectors), rows, 1)
    return np.sort(found.similarities[:, 0]).astype(float)
