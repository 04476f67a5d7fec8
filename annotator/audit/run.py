"""An audit from image files to what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from annotator.audit.candidates import looks_projection
from annotator.audit.duplicates import LEAST_SCORE
from annotator.audit.examine import Given, examine
from annotator.audit.findings import Finding, to_dict
from annotator.audit.material import Gathering, Material
from annotator.audit.report import Pictures, pictures_of
from annotator.audit.sources import Source
from annotator.audit.stored import Cases
from annotator.audit.trace import trace
from annotator.errors import AnnotatorError
from annotator.images.ref import ImageRef


@dataclass(frozen=True)
class Result:
    """What an audit found.

    Attributes:
        images: That could be used.
        others: What they were compared with: images, an index, or None for themselves.
        findings: By kind, in each kind the surest first.
        sources: With `others`, for each finding the sources of its image, ranked; else empty.
        notes: What could not be checked, in sentences.
        failed: Reason by place of each image that could not be used.
    """

    images: Sequence[ImageRef]
    others: Sequence[ImageRef] | Cases | None
    findings: Sequence[Finding]
    sources: Sequence[Sequence[tuple[str, Source]]]
    notes: Sequence[str]
    failed: Mapping[str, str]

    def pictures(self, shown: Sequence[Finding], *, workers: int) -> tuple[Pictures, Pictures]:
        """Small pictures of the images of some findings, and of their others."""
        first = {f.image_id for f in shown}
        second = {f.other_id for f in shown if f.other_id}
        if self.others is None:
            both = pictures_of(self.images, first | second, workers=workers)
            return both, both
        ours = pictures_of(self.images, first, workers=workers)
        if isinstance(self.others, Cases):
            return ours, self.others.picture
        return ours, pictures_of(self.others, second, workers=workers)

    def to_dict(self, shown: Sequence[Finding]) -> dict[str, Any]:
        """As plain JSON types, with some of the findings."""
        counts: dict[str, int] = {}
        for finding in self.findings:
            counts[finding.kind] = counts.get(finding.kind, 0) + 1
        rows = [to_dict(finding) for finding in shown]
        if self.sources:
            of = {f.image_id: s for f, s in zip(self.findings, self.sources, strict=True)}
            for row in rows:
                row["sources"] = [
                    {
                        "id": id_,
                        "flag": s.flag,
                        "correlation": round(s.correlation, 4),
                        "similarity": round(s.similarity, 4),
                        "closeness": round(s.closeness, 4),
                    }
                    for id_, s in of[row["id"]]
                ]
        return {
            "images": len(self.images),
            "counts": counts,
            "notes": list(self.notes),
            "failed": dict(self.failed),
            "findings": rows,
        }


def audit_images(
    images: Sequence[ImageRef],
    given: Given,
    gathering: Gathering,
    *,
    cases: Cases | None = None,
    least: float = LEAST_SCORE,
) -> Result:
    """Look for everything that may be wrong with a collection (`examine`).

    Raises:
        AnnotatorError: No image could be used.
    """
    material = gathering.gather(images)
    found = examine(
        material,
        given,
        gathering.embedder,
        cases=cases,
        least=least,
        workers=gathering.workers,
    )
    return Result(material.images, None, found.findings, (), found.notes, material.failed)


def trace_images(
    images: Sequence[ImageRef],
    against: Sequence[ImageRef] | Cases,
    gathering: Gathering,
    *,
    least: float = LEAST_SCORE,
) -> Result:
    """For each image its most likely sources among other images, or in an index (`trace`).

    Raises:
        AnnotatorError: No image could be used.
    """
    collection: Material | Cases
    others: Sequence[ImageRef] | Cases
    if isinstance(against, Cases):
        material = gathering.gather(images)
        collection = others = against
        projection, failed = against.projection, material.failed
    else:
        # Together, so that what sets the images apart from the others is seen as well.
        both = gathering.gather([*against, *images])
        first = {id(ref) for ref in against}
        n = sum(id(ref) in first for ref in both.images)
        collection, material = both.part(slice(0, n)), both.part(slice(n, None))
        if not n or not material.images:
            raise AnnotatorError("None of the images of one of the two could be used.")
        projection, failed = looks_projection(both.vectors, gathering.embedder.blocks), both.failed
        others = collection.images
    found = trace(
        material,
        collection,
        projection,
        least=least,
        workers=gathering.workers,
    )
    return Result(material.images, others, found.findings, found.sources, found.notes, failed)
