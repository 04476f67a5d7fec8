"""Outliers: a photograph among radiographs, a form, a broken export.

What counts is the distance to the fifth nearest image (Ramaswamy, Rastogi and Shim 2000), so that a
few outliers of one kind do not vouch for each other, of the encoder's vectors as they are: the
projection drops what no image of the collection has, and with it what is unusual.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from annotator.audit.findings import Finding
from annotator.audit.inputs import AuditInput, ReferenceIndex
from annotator.encoders.cache import EmbeddingCache
from annotator.evaluation.measures import group_numbers
from annotator.knn.cross_validation import LEAST_IMAGES
from annotator.knn.neighbors import nearest_of_other_groups
from index import FlatIndex
from index.progress import track_rows
from index.sampling import sample_rows

_FENCE = 3.0  # interquartile ranges; Tukey's outer fence
_RANK = 5  # which nearest image counts
_OWN = 30  # images of the own group that are looked past
_MOST_COMPARED = 10_000  # images; of more, evenly spaced ones
_SEARCHED_AT_ONCE = 1024


def find_outliers(
    data: AuditInput,
    groups: Sequence[str],
    fingerprint: str,
    index: ReferenceIndex | None,
) -> tuple[list[Finding], list[str]]:
    """Images far from all others or, with an index, from its images; notes where that is not known.

    Args:
        data: The images.
        groups: Of each image; an empty one is a group of its own.
        fingerprint: Digest of the encoder's fingerprint.
        index: Its images are the reference; its cache has their vectors.
    """
    image_ids = data.ids
    if index is not None:
        known = _cached_vectors(index, fingerprint, data.vectors.shape[1])
        if known is None:
            return [], [
                "Unlike images were not looked for: the vectors of the index's images are not in "
                "its cache."
            ]
        # An image that the index holds is not compared with itself.
        ids, vectors = known
        number = {id_: n for n, id_ in enumerate(ids)}
        own = np.array([number.get(id_, -1) for id_ in image_ids])
        theirs = np.arange(len(ids))
        distances = distances_to(vectors, data.vectors, theirs, own)
        typical = distances_to(vectors, vectors, theirs, theirs)
        where = "case of the index"
    elif len(image_ids) < LEAST_IMAGES:
        return [], [f"Unlike images were not looked for: that takes {LEAST_IMAGES} images."]
    else:
        typical = distances = distances_within(data.vectors, groups)
        where = "other image"
    threshold = outlier_threshold(typical)
    rows = np.flatnonzero(distances > threshold).tolist()
    return [
        Finding(
            "unlike",
            image_ids[row],
            "",
            min(float(distances[row]) / 2, 1.0),
            f"distance {distances[row]:.3f} to its fifth nearest {where}; from {threshold:.3f} on "
            "is unusual",
        )
        for row in sorted(rows, key=lambda row: (-distances[row], row))
    ], []


def outlier_threshold(typical: NDArray[np.float64]) -> float:
    """Tukey's outer fence of some distances, NaN left out; infinite if there are none."""
    known = typical[np.isfinite(typical)]
    if not len(known):
        return np.inf
    low, high = np.quantile(known, (0.25, 0.75))
    return float(high + _FENCE * (high - low))


def distances_within(vectors: NDArray[np.float32], groups: Sequence[str]) -> NDArray[np.float64]:
    """float64[n]: each image's distance to its fifth nearest of another group; NaN without one.

    Args:
        vectors: float32[n, dim] of unit norm, as the encoder made them; may be mapped from disk.
        groups: Of each row; an empty one is a group of its own.
    """
    compared = sample_rows(len(vectors), _MOST_COMPARED)
    numbers = group_numbers(groups)
    return distances_to(vectors[compared], vectors, numbers[compared], numbers)


def distances_to(
    known: NDArray[np.float32],
    vectors: NDArray[np.float32],
    known_groups: NDArray[np.int64],
    groups: NDArray[np.int64],
) -> NDArray[np.float64]:
    """float64[n]: as `distances_within`, to other images.

    Args:
        known: float32[m, dim] of unit norm.
        vectors: float32[n, dim] of unit norm.
        known_groups: int64[m].
        groups: int64[n], by the same numbers.
    """
    index = FlatIndex(np.ascontiguousarray(known))
    distances = np.full(len(vectors), np.nan)
    for part in track_rows(len(vectors), _SEARCHED_AT_ONCE, label="Outliers", unit="images"):
        found = nearest_of_other_groups(
            index, known_groups, np.array(vectors[part]), groups[part], _RANK, _OWN
        )
        similarity = found.similarities.astype(np.float64)
        count = np.isfinite(similarity).sum(axis=1)
        rank = np.minimum(_RANK, np.maximum(count, 1)) - 1
        nearest = np.sqrt(np.maximum(2 - 2 * similarity[np.arange(len(rank)), rank], 0))
        distances[part] = np.where(count > 0, nearest, np.nan)
    return distances


def _cached_vectors(
    index: ReferenceIndex, fingerprint: str, dim: int
) -> tuple[list[str], NDArray[np.float32]] | None:
    """Ids and encoder's vectors, float32[m, dim], of images of an index; None with less than 50."""
    if not index.cache_file.is_file():
        return None
    stored = index.stored
    ids: list[str] = []
    vectors: list[NDArray[np.float32]] = []
    with EmbeddingCache(index.cache_file, fingerprint) as cache:
        for row in sample_rows(len(stored.ids), _MOST_COMPARED).tolist():
            content = stored.content(row)
            vector = cache.get(content, dim) if content is not None else None
            if vector is not None:
                ids.append(stored.ids[row])
                vectors.append(vector)
    return (ids, np.stack(vectors)) if len(ids) >= LEAST_IMAGES else None
