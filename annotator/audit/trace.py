"""Which images of another collection, or of an index, images come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from annotator.audit.candidates import Views
from annotator.audit.confirm import Look
from annotator.audit.duplicates import LEAST_SCORE, looking_at, same_pixels
from annotator.audit.findings import Finding
from annotator.audit.material import Material
from annotator.audit.sources import SOURCES, Source, find_sources
from annotator.audit.stored import Cases
from annotator.knn.projection import Projection

_ORDER = ("copy", "close", "source")


@dataclass(frozen=True)
class Trace:
    """Where images come from.

    Attributes:
        findings: One of each image, with its most likely source; copies first, then close ones.
        sources: For each finding the sources of its image, ranked, as (id, source).
        notes: What could not be checked, in sentences.
    """

    findings: Sequence[Finding]
    sources: Sequence[Sequence[tuple[str, Source]]]
    notes: Sequence[str]


def trace(
    material: Material,
    against: Material | Cases,
    projection: Projection | None,
    *,
    least: float = LEAST_SCORE,
    k: int = SOURCES,
    workers: int = 1,
) -> Trace:
    """For each image its most likely sources.

    Args:
        material: The images.
        against: Where they may come from. An index without small pictures can only be compared by
            the encoder's vectors, which does not tell a copy from a close one.
        projection: What the encoder's vectors of both go through; that of an index is its own.
        least: Correlation of a copy.
        k: Sources of each image.
        workers: Threads.
    """
    notes = list[str]()
    if isinstance(against, Cases):
        collection, ids = against.views(), against.ids
        same = partial(_same_content, material, against)
        look: Look = against.look
        if not against.has_pictures:
            notes.append(
                "The index keeps no small pictures, so copies are only found to be close: build it "
                "with --thumbnails, or name the folder of its images."
            )
    else:
        collection = Views(_projected(against.vectors, projection), against.glances)
        ids = against.ids
        same = partial(same_pixels, material.images, against.images)
        look = looking_at(against.images)
    views = Views(_projected(material.vectors, projection), material.glances)
    looks_at = (looking_at(material.images), look)
    found = find_sources(views, collection, looks_at, same, least=least, k=k, workers=workers)
    rows = []
    for image_id, sources in zip(material.ids, found, strict=True):
        named = [(ids[s.row], s) for s in sources]
        rows.append((_finding(image_id, named), named))
    rows.sort(key=lambda r: (_ORDER.index(r[0].kind), -r[0].score, r[0].image_id))
    return Trace([finding for finding, _ in rows], [named for _, named in rows], notes)


def _finding(image_id: str, named: Sequence[tuple[str, Source]]) -> Finding:
    (first_id, first), *others = named
    details = [first.how] if first.how else []
    details.append(f"similarity {first.similarity:.3f}")
    if others:
        details.append("then " + ", ".join(f"{id_} ({s.similarity:.3f})" for id_, s in others))
    return Finding(first.flag, image_id, first_id, first.score, "; ".join(details))


def _projected(vectors: NDArray[np.float32], projection: Projection | None) -> NDArray[np.float32]:
    return projection.apply(vectors) if projection is not None else np.array(vectors)


def _same_content(material: Material, cases: Cases, row: int, other: int) -> bool:
    return material.contents[row] == cases.content(other)
