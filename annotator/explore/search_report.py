"""What a search found as text: for people, for spreadsheets, for programs, for trec_eval."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from annotator.errors import AnnotatorError
from annotator.explore.concept import OfConcept
from annotator.knn.neighbors import Case, Ranking

Format = Literal["table", "csv", "json", "trec"]

_WIDEST = 48
_DECIMALS = 6
KINDS = {
    "exemplars": "Exemplars: they have it, and so have their neighbours",
    "missing": "Likely missing: they lack it, though most of their neighbours' votes are for it",
    "wrong": "Likely wrong: they have it, though hardly any of their neighbours' votes is for it",
}


def render_rankings(rankings: Sequence[Ranking], format_: Format, names: Mapping[str, str]) -> str:
    """Rankings in a format.

    - "table": one table for each query;
    - "csv": `ID,Similar`, a row for each query, ids joined by ";", the best first;
    - "json": an object a line;
    - "trec": a run for trec_eval, `query Q0 id rank score annotator`.

    Raises:
        AnnotatorError: An id cannot stand in the format.
    """
    if format_ == "table":
        return "\n".join(_of_query(ranking, names) for ranking in rankings)
    if format_ == "json":
        return "".join(_line(ranking_dict(ranking, names)) for ranking in rankings)
    if format_ == "csv":
        rows = [(r.query, ";".join(_fit(c.image_id, ";") for c in r.cases)) for r in rankings]
        return _csv([("ID", "Similar"), *rows])
    return "".join(
        f"{_fit(ranking.query, ' ')} Q0 {_fit(case.image_id, ' ')} {rank} {case.score:.9g} "
        "annotator\n"
        for ranking in rankings
        for rank, case in enumerate(ranking.cases, 1)
    )


def render_concept(found: OfConcept, format_: Format, names: Mapping[str, str]) -> str:
    """The images of a concept as "table", "csv" (`List,Rank,ID,Share,CUIs,Caption`) or "json"."""
    if format_ == "json":
        return _line(concept_dict(found, names))
    lists = {kind: cases_of_kind(found, kind) for kind in KINDS}
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
    parts = [f"{headline(found, names)}\n"]
    for kind, cases in lists.items():
        shown_ = _table("share", cases, names) if cases else f"  {none(found, kind)}"
        parts.append(f"{KINDS[kind]}\n{shown_}\n")
    return "\n".join(parts)


def cases_of_kind(found: OfConcept, kind: str) -> tuple[Case, ...]:
    """One of the three lists, by its name in `KINDS`."""
    lists = {"exemplars": found.exemplars, "missing": found.missing, "wrong": found.wrong}
    return lists[kind]


def none(found: OfConcept, kind: str) -> str:
    """What is said in place of an empty list."""
    if kind == "wrong" and not found.judges_wrong:
        return f"not judged: its images support each other too little ({found.support:.2f})"
    return "none"


def headline(found: OfConcept, names: Mapping[str, str]) -> str:
    """The concept, and how many images it has."""
    held = f"{found.images:,} image{'' if found.images == 1 else 's'}"
    if found.judged < found.images:
        held += f", {found.judged:,} of them looked at"
    return f"{shown(found.cui, names)}: {held}"


def shown(cui: str, names: Mapping[str, str]) -> str:
    """A concept with its name, where it has one."""
    return f"{names[cui]} ({cui})" if names.get(cui) else cui


def ranking_dict(ranking: Ranking, names: Mapping[str, str]) -> dict[str, Any]:
    """As plain JSON types."""
    fields: dict[str, Any] = {
        "query": ranking.query,
        "cases": [_case_dict(case, "similarity", names) for case in ranking.cases],
    }
    return fields if ranking.error is None else {**fields, "error": ranking.error}


def concept_dict(found: OfConcept, names: Mapping[str, str]) -> dict[str, Any]:
    """As plain JSON types."""
    return {
        "cui": found.cui,
        "name": names.get(found.cui, ""),
        "images": found.images,
        "judged": found.judged,
        "support": round(found.support, _DECIMALS),
        **{
            kind: [_case_dict(case, "share", names) for case in cases_of_kind(found, kind)]
            for kind in KINDS
        },
    }


def _case_dict(case: Case, score: str, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": case.image_id,
        score: round(case.score, _DECIMALS),
        "concepts": [{"cui": cui, "name": names.get(cui, "")} for cui in case.cuis],
        "caption": case.caption,
    }


def _of_query(ranking: Ranking, names: Mapping[str, str]) -> str:
    if ranking.error is not None:
        return f"{ranking.query}: {ranking.error}\n"
    return f"{ranking.query}\n{_table('similarity', ranking.cases, names)}\n"


def _table(score: str, cases: Sequence[Case], names: Mapping[str, str]) -> str:
    rows = [("rank", score, "id", "concepts", "caption")]
    for rank, case in enumerate(cases, 1):
        concepts = ", ".join(names.get(cui) or cui for cui in case.cuis)
        row = (
            str(rank),
            f"{case.score:.3f}",
            case.image_id,
            _short(concepts),
            _short(case.caption),
        )
        rows.append(row)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if i < 2 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(f"  {line}".rstrip() for line in lines)


def _short(text: str) -> str:
    return textwrap.shorten(text, _WIDEST, placeholder=" …")


def _line(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _csv(rows: Sequence[Sequence[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def _fit(text: str, separator: str) -> str:
    """An id that does not hold what separates ids."""
    if separator in text or (separator == " " and len(text.split()) != 1):
        raise AnnotatorError(
            f"The id {text!r} cannot stand in this format, in which "
            f"{'blanks' if separator == ' ' else repr(separator)} separate ids.",
            "Use --format json, or rename the image.",
        )
    return text
