"""An audit as a page: its findings, with the pictures of each pair side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from annotator.audit.findings import TITLES, Finding
from annotator.images.ref import ImageRef
from annotator.images.thumbnails import make_thumbnails
from annotator.render.html import render_page
from annotator.render.thumbnails import Thumbnails

Pictures = Thumbnails


def pictures_of(images: Sequence[ImageRef], ids: set[str], *, workers: int) -> Pictures:
    """Thumbnails of those of `images` that have these ids."""
    shown = [ref for ref in images if ref.id in ids]
    with contextlib.closing(make_thumbnails(shown, workers=workers)) as made:
        by_id = dict(zip((ref.id for ref in shown), made, strict=True))
    return lambda image_id: by_id.get(image_id, b"")


_MEANING = {
    "leak": "The same picture is on both sides of the split, which inflates results. Leave out one "
    "image of each pair, or put both on one side.",
    "straddle": "Images of one patient or study are on both sides of the split. Split by group.",
    "exact": "The same file, or the same pixels. Keep one of each.",
    "near": "The same picture scaled, compressed, cropped, mirrored or made brighter. Score: the "
    "correlation of the fine structure after alignment.",
    "label": "Similar cases of other groups have other concepts. To be reviewed. Score: the "
    "expected F1 of the concepts of these cases, less that of the given ones.",
    "unlike": "Far from every other image. To be reviewed. Score: half the distance to the fifth "
    "nearest.",
    "copy": "The pixels agree with an image of the other collection after alignment. Score: the "
    "correlation of the fine structure.",
    "close": "More similar to it than 99 % of the other collection's images are to any other of "
    "them. Score: that share.",
    "source": "No closer than the other collection's images are to each other. Score: the share of "
    "them that are less similar to their nearest.",
}


def page(
    title: str,
    intro: str,
    findings: Sequence[Finding],
    left_out: dict[str, int],
    pictures: Pictures,
    others: Pictures | None = None,
    notes: Sequence[str] = (),
) -> str:
    """An audit as HTML.

    Args:
        title: What was audited.
        intro: What was compared.
        findings: The findings to show, in order.
        left_out: How many more there are, by kind.
        pictures: Thumbnails of `Finding.image_id`.
        others: Thumbnails of `Finding.other_id`; None if those are images of the same collection.
        notes: What could not be checked.
    """
    sections = []
    for kind, heading in TITLES.items():
        if of_kind := [finding for finding in findings if finding.kind == kind]:
            sections.append(
                {
                    "kind": kind,
                    "heading": heading,
                    "meaning": _MEANING[kind],
                    "findings": of_kind,
                    "left_out": left_out.get(kind, 0),
                }
            )
    return render_page(
        "audit.html",
        title=title,
        intro=intro,
        notes=notes,
        sections=sections,
        picture_of=pictures,
        other_picture_of=others or pictures,
    )
