"""What a search found as a page with pictures, in one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from annotator.explore.concept import OfConcept
from annotator.explore.search_report import KINDS, cases_of_kind, headline, none
from annotator.knn.neighbors import Case, Ranking
from annotator.render.html import document, picture, text

PictureOf = Callable[[str], bytes]  # a JPEG by image id; b"" where there is none

_STYLE = """
ol.cases { list-style: none; margin: 0 0 1rem; padding: 0; display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 11rem), 1fr)); }
ol.cases > li, .query { padding: .5rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; overflow-wrap: anywhere; font-size: .875rem; }
ol.cases img, .query img { width: 100%; height: 9rem; object-fit: contain;
  max-width: none !important; }
.query { max-width: 12rem; margin-bottom: .75rem; border-color: var(--action); }
.id { font-weight: 600; margin: .375rem 0 0; }
.facts { margin: 0; color: var(--muted); font-variant-numeric: tabular-nums; }
.chips { display: flex; flex-wrap: wrap; gap: .25rem; margin: .25rem 0 0; padding: 0;
  list-style: none; }
.chips li { padding: 0 .4375rem; border: 1px solid var(--line); border-radius: .75rem;
  font-size: .75rem; background: none; }
.chips li.meant { background: var(--chosen); border-color: var(--chosen); color: var(--text); }
.caption { margin: .25rem 0 0; font-size: .8125rem; }
"""
_NOTE = "Not for clinical use."


def rankings_page(
    rankings: Sequence[Ranking],
    names: Mapping[str, str],
    picture_of: PictureOf,
    query_picture_of: PictureOf | None,
) -> str:
    """What is most similar to each query.

    Args:
        rankings: Of images or texts.
        names: Of CUIs.
        picture_of: Small pictures of the index's images.
        query_picture_of: Small pictures of the queries; None where these are texts.
    """
    parts = [f'<h1>Similar cases</h1>\n<p class="muted">{_NOTE}</p>']
    for ranking in rankings:
        parts.append(f"<h2>{text(ranking.query)}</h2>")
        if ranking.error is not None:
            parts.append(f"<p>{text(ranking.error)}</p>")
            continue
        if query_picture_of is not None:
            shown = picture(query_picture_of(ranking.query), ranking.query)
            parts.append(
                f'<div class="query">{shown}<p class="facts">the image asked for</p></div>'
            )
        parts.append(_cases(ranking.cases, "similarity {:.3f}", names, picture_of))
    return document("Similar cases", "\n".join(parts), style=_STYLE)


def concept_page(found: OfConcept, names: Mapping[str, str], picture_of: PictureOf) -> str:
    """The images of a concept."""
    title = headline(found, names)
    parts = [f'<h1>{text(title)}</h1>\n<p class="muted">{_NOTE}</p>']
    for kind, heading in KINDS.items():
        head, _, meaning = heading.partition(": ")
        parts.append(f'<h2>{head}</h2>\n<p class="muted">{meaning[0].upper()}{meaning[1:]}.</p>')
        cases = cases_of_kind(found, kind)
        parts.append(
            _cases(cases, "{:.3f} of the votes", names, picture_of, found.cui)
            if cases
            else f"<p>{text(none(found, kind).capitalize())}.</p>"
        )
    return document(title, "\n".join(parts), style=_STYLE)


def _cases(
    cases: Sequence[Case],
    score: str,
    names: Mapping[str, str],
    picture_of: PictureOf,
    meant: str = "",
) -> str:
    items = [
        f'<li>{picture(picture_of(case.image_id), case.image_id)}<p class="id">'
        f'{text(case.image_id)}</p><p class="facts">{rank} · {score.format(case.score)}</p>'
        f"{_chips(case.cuis, names, meant)}{_caption(case.caption)}</li>"
        for rank, case in enumerate(cases, 1)
    ]
    return f'<ol class="cases">{"".join(items)}</ol>'


def _chips(cuis: Sequence[str], names: Mapping[str, str], meant: str) -> str:
    class_ = {meant: ' class="meant"'}
    chips = [
        f'<li title="{text(cui)}"{class_.get(cui, "")}>{text(names.get(cui) or cui)}</li>'
        for cui in sorted(cuis, key=lambda cui: cui != meant)
    ]
    return f'<ul class="chips">{"".join(chips)}</ul>'


def _caption(caption: str) -> str:
    return f'<p class="caption">{text(caption)}</p>' if caption else ""
