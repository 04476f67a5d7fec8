"""The report of an audit: a page with its findings and the pictures of each pair."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from annotator.audit.findings import ORDER, AuditResult, Finding, Kind
from annotator.images.ref import ImageRef
from annotator.images.thumbnails import make_thumbnails
from annotator.render.html import render_page
from annotator.render.thumbnails import Thumbnails, index_thumbnails
from index import StoredIndex

# Heading and meaning of each kind.
_KINDS: dict[Kind, tuple[str, str]] = {
    "leak": (
        "Copies on both sides of the split",
        "The same picture is on both sides of the split, which inflates results. Leave out one "
        "image of each pair, or put both on one side.",
    ),
    "straddle": (
        "Groups on both sides of the split",
        "Images of one patient or study are on both sides of the split. Split by group.",
    ),
    "exact": (
        "Exact duplicates",
        "The same file, or the same pixels. Keep one of each.",
    ),
    "near": (
        "Near duplicates",
        "The same picture scaled, compressed, cropped, mirrored or made brighter. Score: the "
        "correlation of the fine structure after alignment.",
    ),
    "label": (
        "Likely label errors",
        "Similar cases of other groups have other concepts. To be reviewed. Score: the expected "
        "F1 of the concepts of these cases, less that of the given ones.",
    ),
    "unlike": (
        "Images unlike any other",
        "Far from every other image. To be reviewed. Score: half the distance to the fifth "
        "nearest.",
    ),
    "copy": (
        "Copies of an image of the other collection",
        "The pixels agree with an image of the other collection after alignment. Score: the "
        "correlation of the fine structure.",
    ),
    "close": (
        "Closer to an image of the other collection than its own images are to each other",
        "More similar to it than 99 % of the other collection's images are to any other of "
        "them. Score: that share.",
    ),
    "source": (
        "Other images with their most likely sources",
        "No closer than the other collection's images are to each other. Score: the share of "
        "them that are less similar to their nearest.",
    ),
}


def page(
    title: str,
    result: AuditResult,
    shown: Sequence[Finding],
    left_out: dict[str, int],
    *,
    workers: int,
) -> str:
    """An audit as HTML.

    Args:
        title: What was audited.
        result: The audit.
        shown: The findings to show, in order.
        left_out: Number of the others, by kind.
        workers: Threads that make thumbnails.
    """
    sections = []
    for kind in ORDER:
        if of_kind := [finding for finding in shown if finding.kind == kind]:
            heading, meaning = _KINDS[kind]
            sections.append(
                {
                    "kind": kind,
                    "heading": heading,
                    "meaning": meaning,
                    "findings": of_kind,
                    "left_out": left_out.get(kind, 0),
                }
            )
    pictures, other_pictures = _pictures(result, shown, workers)
    return render_page(
        "audit.html",
        title=title,
        intro=f"{len(result.images)} images.",
        notes=result.notes,
        sections=sections,
        picture_of=pictures,
        other_picture_of=other_pictures,
    )


def _pictures(
    result: AuditResult, shown: Sequence[Finding], workers: int
) -> tuple[Thumbnails, Thumbnails]:
    """Thumbnails of `Finding.image_id`, and of `Finding.other_id`."""
    ids, other_ids = {f.image_id for f in shown}, {f.other_id for f in shown}
    if result.others is None:
        both = _thumbnails(result.images, ids | other_ids, workers)
        return both, both
    pictures = _thumbnails(result.images, ids, workers)
    if isinstance(result.others, StoredIndex):
        return pictures, index_thumbnails(result.others)
    return pictures, _thumbnails(result.others, other_ids, workers)


def _thumbnails(images: Sequence[ImageRef], ids: set[str], workers: int) -> Thumbnails:
    chosen = [ref for ref in images if ref.id in ids]
    with contextlib.closing(make_thumbnails(chosen, workers=workers)) as made:
        by_id = dict(zip((ref.id for ref in chosen), made, strict=True))
    return lambda image_id: by_id.get(image_id, b"")
