"""HTML pages of search results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from annotator.explore.concept import ConceptReview
from annotator.explore.search_report import KINDS, cases_by_kind, headline, if_empty
from annotator.knn.neighbors import Ranking
from annotator.render.html import render_page
from annotator.render.thumbnails import Thumbnails


def rankings_page(
    rankings: Sequence[Ranking],
    names: Mapping[str, str],
    thumbnails: Thumbnails,
    query_thumbnails: Thumbnails | None,
) -> str:
    """Render the most similar cases of each query as HTML.

    Args:
        rankings: Rankings of image or text queries.
        names: Name by CUI, where known.
        thumbnails: Thumbnails of the index.
        query_thumbnails: Thumbnails of the queries; None for text queries.
    """
    return render_page(
        "similar.html",
        rankings=rankings,
        names=names,
        picture_of=thumbnails,
        query_picture_of=query_thumbnails,
    )


def concept_page(found: ConceptReview, names: Mapping[str, str], thumbnails: Thumbnails) -> str:
    """Render the review of a concept as HTML."""
    sections = []
    for kind, cases in cases_by_kind(found).items():
        heading, _, meaning = KINDS[kind].partition(": ")
        sections.append(
            {
                "heading": heading,
                "meaning": f"{meaning[0].upper()}{meaning[1:]}.",
                "cases": cases,
                "if_empty": f"{if_empty(found, kind).capitalize()}.",
            }
        )
    return render_page(
        "concept.html",
        title=headline(found, names),
        concept=found.cui,
        sections=sections,
        names=names,
        picture_of=thumbnails,
    )
