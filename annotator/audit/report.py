"""An audit as a page: the pictures of each pair side by side, with what was found."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from annotator.audit.findings import KINDS, TITLES, Finding
from annotator.images.ref import ImageRef
from annotator.images.thumbnails import make_thumbnails
from annotator.render.html import document, picture, text

#: The small picture of an image by its id: a JPEG, or b"" where there is none.
Pictures = Callable[[str], bytes]


def pictures_of(images: Sequence[ImageRef], ids: set[str], *, workers: int) -> Pictures:
    """Small pictures of those of `images` that have these ids."""
    shown = [ref for ref in images if ref.id in ids]
    with contextlib.closing(make_thumbnails(shown, workers=workers)) as made:
        by_id = dict(zip((ref.id for ref in shown), made, strict=True))
    return lambda image_id: by_id.get(image_id, b"")


_MEANING = {
    "leak": "The same picture is on two sides: what is measured on one side was seen on the other. "
    "Leave one of each pair out, or put both on one side.",
    "straddle": "Images of one patient or study are on two sides. Split by group.",
    "exact": "The same file, or not a pixel differs. Keep one of each.",
    "near": "The same picture scaled, compressed, cropped, mirrored or made brighter. Score: the "
    "correlation of the fine structure, laid over each other.",
    "label": "Cases of other groups that look the same have other concepts. A proposal: look at "
    "each. Score: the F1 that these cases expect of their concepts, less that of the given ones.",
    "unlike": "Far from every other image. A proposal: look at each. Score: half the distance "
    "to the fifth nearest.",
    "copy": "Laid over an image of the other collection, the pixels agree. Score: the correlation "
    "of the fine structure.",
    "close": "More similar to it than 99 % of the other collection's images are to any of their "
    "own. Score: that share.",
    "source": "No closer than those images are to each other. Score: the share of them that are "
    "less similar to their nearest.",
}
_STYLE = """
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)); gap: 1rem; }
.grid .card { margin: 0; }
.grid .row { flex-wrap: nowrap; }
.grid figure { flex: 1 1 0; min-width: 0; max-width: 10rem; }
.grid img { width: 100%; }
.detail { margin: .5rem 0 0; font-size: .875rem; overflow-wrap: anywhere; }
.detail strong { font-variant-numeric: tabular-nums; }
a { color: var(--action); }
nav ul { padding-left: 1.25rem; margin: .5rem 0 0; }
"""


def page(
    title: str,
    intro: str,
    findings: Sequence[Finding],
    left_out: dict[str, int],
    pictures: Pictures,
    others: Pictures | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The page, as HTML.

    Args:
        title: What was audited, as plain text.
        intro: What was compared, as plain text.
        findings: What is shown, in order.
        left_out: How many more there are, by kind.
        pictures: Of `Finding.image_id`.
        others: Of `Finding.other_id`; None if those are images of the same collection.
        notes: What could not be checked.
    """
    kinds = [kind for kind in KINDS if any(f.kind == kind for f in findings)]
    kinds.sort(key=list(TITLES).index)
    body = [f"<h1>{text(title)}</h1>", f'<p class="muted">{text(intro)}</p>']
    body += [f'<p class="muted">{text(note)}</p>' for note in notes]
    if not kinds:
        body.append('<p class="card">Nothing was found.</p>')
    else:
        items = "".join(
            f'<li><a href="#{kind}">{text(TITLES[kind])}</a>: '
            f"{_count(kind, findings, left_out)}</li>"
            for kind in kinds
        )
        body.append(f'<nav class="card"><strong>Found</strong><ul>{items}</ul></nav>')
    for kind in kinds:
        body.append(f'<h2 id="{kind}">{text(TITLES[kind])}</h2>')
        body.append(f'<p class="muted">{text(_MEANING[kind])}</p>')
        of_kind = [f for f in findings if f.kind == kind]
        cards = (_card(f, pictures, others or pictures) for f in of_kind)
        body.append(f'<div class="grid">{"".join(cards)}</div>')
        if left_out.get(kind):
            body.append(f'<p class="muted">… and {left_out[kind]} more (--limit).</p>')
    return document(title, "\n".join(body), style=_STYLE)


def _count(kind: str, findings: Sequence[Finding], left_out: dict[str, int]) -> int:
    return sum(f.kind == kind for f in findings) + left_out.get(kind, 0)


def _card(finding: Finding, pictures: Pictures, others: Pictures) -> str:
    figures = [_figure(finding.image_id, pictures)]
    if finding.other_id:
        figures.append(_figure(finding.other_id, others))
    return (
        f'<div class="card"><div class="row">{"".join(figures)}</div>'
        f'<p class="detail"><strong>{finding.score:.3f}</strong> {text(finding.detail)}</p></div>'
    )


def _figure(image_id: str, pictures: Pictures) -> str:
    shown = picture(pictures(image_id), image_id)
    return f"<figure>{shown}<figcaption>{text(image_id)}</figcaption></figure>"
