"""The two audits: of a collection and its labels, and of images against another collection."""

from __future__ import annotations

from collections.abc import Sequence

from annotator.audit.candidates import unsupervised_projection
from annotator.audit.duplicates import (
    MIN_CORRELATION,
    duplicate_findings,
    find_duplicates,
    group_leaks,
    merged_groups,
    same_pixels,
)
from annotator.audit.findings import ORDER, AuditResult
from annotator.audit.inputs import AuditLabels, AuditLoader, ReferenceIndex
from annotator.audit.labels import check_labels
from annotator.audit.outliers import find_outliers
from annotator.audit.sources import find_sources, source_findings
from annotator.errors import AnnotatorError
from annotator.images.ref import ImageRef


def audit_images(
    images: Sequence[ImageRef],
    labels: AuditLabels,
    loader: AuditLoader,
    *,
    index: ReferenceIndex | None = None,
    threshold: float = MIN_CORRELATION,
) -> AuditResult:
    """Look for duplicates, leaks, label issues and outliers.

    Args:
        images: The collection.
        labels: Its concepts, groups and sides of a split.
        loader: Embeds the images.
        index: Outliers are then images unlike all of the index, which also judges the concepts
            unless it holds at least half of the images itself.
        threshold: Least correlation of a near duplicate.

    Raises:
        AnnotatorError: No image could be used.
    """
    blocks, workers = loader.embedder.blocks, loader.workers
    with loader.load(images) as data:
        ids = data.ids
        views = data.views(unsupervised_projection(data.vectors, blocks))
        duplicates = find_duplicates(
            data.images, data.contents, views, threshold=threshold, workers=workers
        )
        findings = duplicate_findings(duplicates, ids, labels)
        findings += group_leaks(ids, labels.groups, labels.sides)
        # A copy says nothing of what an image resembles, nor which concepts are right.
        groups = merged_groups(ids, labels.groups, duplicates)
        held = index is not None and 2 * len(set(ids) & set(index.stored.ids)) >= len(ids)
        issues, notes = check_labels(data, labels, groups, loader.embedder, None if held else index)
        outliers, more_notes = find_outliers(
            data, groups, loader.embedder.fingerprint.digest, index
        )
    findings = sorted([*findings, *issues, *outliers], key=lambda f: ORDER.index(f.kind))
    return AuditResult(data.images, findings, [*notes, *more_notes], data.failed)


def trace_images(
    images: Sequence[ImageRef],
    against: Sequence[ImageRef] | ReferenceIndex,
    loader: AuditLoader,
    *,
    threshold: float = MIN_CORRELATION,
) -> AuditResult:
    """For each image its most likely sources among other images, or in an index.

    An index without thumbnails is only compared by its vectors, which does not tell a copy from a
    close image.

    Args:
        images: The images.
        against: Where they may come from.
        loader: Embeds the images; for an index with its encoder.
        threshold: Least correlation of a copy.

    Raises:
        AnnotatorError: No image could be used.
    """
    if isinstance(against, ReferenceIndex):
        return _trace_in_index(images, against, loader, threshold)
    # Together, so that what sets the images apart from the others is seen as well.
    with loader.load([*against, *images]) as both:
        first = {id(ref) for ref in against}
        n = sum(id(ref) in first for ref in both.images)
        others, data = both.part(slice(0, n)), both.part(slice(n, None))
        if not n or not data.images:
            raise AnnotatorError("None of the images of one of the two could be used.")
        projection = unsupervised_projection(both.vectors, loader.embedder.blocks)
        sources = find_sources(
            data.views(projection),
            others.views(projection),
            others.ids,
            lambda row, other: same_pixels(data.images, others.images, row, other),
            threshold=threshold,
            workers=loader.workers,
        )
    findings = source_findings(data.ids, sources)
    return AuditResult(data.images, findings, [], both.failed, others.images)


def _trace_in_index(
    images: Sequence[ImageRef], index: ReferenceIndex, loader: AuditLoader, threshold: float
) -> AuditResult:
    stored = index.stored
    with loader.load(images) as data:
        sources = find_sources(
            data.views(index.projection),
            index.views(),
            stored.ids,
            lambda row, other: data.contents[row] == stored.content(other),
            threshold=threshold,
            workers=loader.workers,
        )
    notes = []
    if not stored.has_thumbnails:
        notes.append(
            "The index keeps no small pictures, so copies are only found to be close: build it "
            "with --thumbnails, or name the folder of its images."
        )
    return AuditResult(data.images, source_findings(data.ids, sources), notes, data.failed, stored)
