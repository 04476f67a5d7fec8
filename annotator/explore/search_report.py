"""Search results as text: tables, CSV, JSON lines and TREC runs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from annotator.errors import AnnotatorError
from annotator.explore.concept import ConceptReview
from annotator.knn.neighbors import Case, Ranking
from annotator.render.text_table import columns, section

Format = Literal["table", "csv", "json", "trec"]

_DECIMALS = 6  # of scores in JSON
#: Heading of each list of a concept's images.
KINDS = {
    "exemplars": "Exemplars: they have it, and so have their neighbours",
    "missing": "Likely missing: they lack it, though most of their neighbours' votes are for it",
    "wrong": "Likely wrong: they have it, though hardly any of their neighbours' votes is for it",
}


def render_rankings(rankings: Sequence[Ranking], format_: Format, names: Mapping[str, str]) -> str:
    """Render rankings.

    - "table": a table for each query;
    - "csv": `ID,Similar`, a row for each query, ids joined by ";", best first;
    - "json": an object per line;
    - "trec": a run for trec_eval, `query Q0 id rank score annotator`.

    Raises:
        AnnotatorError: An id cannot be written in the format.
    """
    if format_ == "table":
        return _blocks(
            section(ranking.query, _table("similarity", ranking.cases, names))
            if ranking.error is None
            else section(f"{ranking.query}: {ranking.error.message}", [])
            for ranking in rankings
        )
    if format_ == "json":
        return "".join(_line(_ranking_dict(ranking, names)) for ranking in rankings)
    if format_ == "csv":
        rows = [(r.query, ";".join(_fit(c.image_id, ";") for c in r.cases)) for r in rankings]
        return _csv([("ID", "Similar"), *rows])
    return "".join(
        f"{_fit(ranking.query, ' ')} Q0 {_fit(case.image_id, ' ')} {rank} {case.score:.9g} "
        "annotator\n"
        for ranking in rankings
        for rank, case in enumerate(ranking.cases, 1)
    )


def render_concept(found: ConceptReview, format_: Format, names: Mapping[str, str]) -> str:
    """Render a concept review as "table", "csv" (`List,Rank,ID,Share,CUIs,Caption`) or "json"."""
    if format_ == "json":
        return _line(_concept_dict(found, names))
    lists = cases_by_kind(found)
    if format_ == "csv":
        head = ("List", "Rank", "ID", "Share", "CUIs", "Caption")
        return _csv(
            [head]
            + [
                (kind, str(rank), c.image_id, f"{c.score:.4f}", ";".join(c.cuis), c.caption)
                for kind, cases in lists.items()
                for rank, c in enumerate(cases, 1)
            ]
        )
    sections = [section(headline(found, names), [])]
    for kind, cases in lists.items():
        lines = _table("share", cases, names) if cases else [if_empty(found, kind)]
        sections.append(section(KINDS[kind], lines))
    return _blocks(sections)


def cases_by_kind(found: ConceptReview) -> dict[str, tuple[Case, ...]]:
    """Lists of cases, by their keys in `KINDS`."""
    return {"exemplars": found.exemplars, "missing": found.missing, "wrong": found.wrong}


def if_empty(found: ConceptReview, kind: str) -> str:
    """Placeholder text for an empty list."""
    if kind == "wrong" and not found.judges_wrong:
        return f"not judged: its images support each other too little ({found.support:.2f})"
    return "none"


def headline(found: ConceptReview, names: Mapping[str, str]) -> str:
    """Name of the concept and its number of images."""
    held = f"{found.images:,} image{'' if found.images == 1 else 's'}"
    if found.judged < found.images:
        held += f", {found.judged:,} of them looked at"
    return f"{shown(found.cui, names)}: {held}"


def shown(cui: str, names: Mapping[str, str]) -> str:
    """Format a concept as name and CUI, or as CUI if it has no name."""
    return f"{names[cui]} ({cui})" if names.get(cui) else cui


def _ranking_dict(ranking: Ranking, names: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "query": ranking.query,
        "cases": [_case_dict(case, "similarity", names) for case in ranking.cases],
    }
    return fields if ranking.error is None else {**fields, "error": ranking.error.message}


def _concept_dict(found: ConceptReview, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "cui": found.cui,
        "name": names.get(found.cui, ""),
        "images": found.images,
        "judged": found.judged,
        "support": round(found.support, _DECIMALS),
        **{
            kind: [_case_dict(case, "share", names) for case in cases]
            for kind, cases in cases_by_kind(found).items()
        },
    }


def _case_dict(case: Case, score: str, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": case.image_id,
        score: round(case.score, _DECIMALS),
        "concepts": [{"cui": cui, "name": names.get(cui, "")} for cui in case.cuis],
        "caption": case.caption,
    }


def _table(score: str, cases: Sequence[Case], names: Mapping[str, str]) -> list[str]:
    rows = [
        (
            rank,
            case.score,
            case.image_id,
            ", ".join(names.get(cui) or cui for cui in case.cuis),
            " ".join(case.caption.split()),
        )
        for rank, case in enumerate(cases, 1)
    ]
    header = ("rank", score, "id", "concepts", "caption")
    return columns(header, rows, decimals=3)


def _blocks(sections: Iterable[Sequence[str]]) -> str:
    """Join sections to text, without a leading empty line."""
    lines = [line for block in sections for line in block]
    return "".join(f"{line}\n" for line in lines[1:])


def _line(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _csv(rows: Sequence[Sequence[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def _fit(text: str, separator: str) -> str:
    """Check that an id does not contain the separator of ids."""
    if separator in text or (separator == " " and len(text.split()) != 1):
        raise AnnotatorError(
            f"The id {text!r} cannot be written in this format, in which "
            f"{'blanks' if separator == ' ' else repr(separator)} separate ids.",
            "Use --format json, or rename the image.",
        )
    return text
