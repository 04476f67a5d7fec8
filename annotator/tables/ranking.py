"""Rankings and their judgements: TREC's formats, and tables `ID,Similar`."""

from __future__ import annotations

import math
from pathlib import Path

from annotator.errors import FormatError
from annotator.tables.formats import read_rows
from annotator.tables.table import read_text

_RUN_FIELDS = 6  # query Q0 document rank score tag
_QRELS_FIELDS = 4  # query iteration document relevance


def read_ranking(path: Path | str) -> dict[str, list[str]]:
    """Read what was found for each query, best first.

    A file of TREC's form (`query Q0 document rank score tag`) is ordered by score and, among equal
    scores, by document id from z to a, as trec_eval does; its ranks are not looked at. Any other
    table has the query in its first column and the documents in its second, joined by `;`, best
    first.

    Raises:
        FormatError: The file cannot be read as either, or a query has a document twice or, in a
            table, is there twice.
    """
    lines = _fields(path)
    if not lines or len(lines[0][1]) != _RUN_FIELDS or _number(lines[0][1][4]) is None:
        return _read_table(path)
    scored: dict[str, dict[str, float]] = {}
    for line, fields in lines:
        score = _number(fields[4]) if len(fields) == _RUN_FIELDS else None
        if score is None:
            raise FormatError(
                f"{path}, line {line}: no row of a TREC run",
                "Each has six fields: query Q0 document rank score tag.",
            )
        _add(path, line, scored.setdefault(fields[0], {}), fields[2], score)
    return {
        query: sorted(documents, key=lambda d: (documents[d], d), reverse=True)
        for query, documents in scored.items()
    }


def is_qrels(path: Path | str) -> bool:
    """Whether a file's first row is one of TREC's judgements, `query 0 document relevance`.

    Raises:
        FormatError: The file cannot be read.
    """
    lines = _fields(path)
    return bool(lines) and len(lines[0][1]) == _QRELS_FIELDS and _number(lines[0][1][3]) is not None


def read_qrels(path: Path | str) -> dict[str, dict[str, float]]:
    """Read the judged documents of each query with their relevance, which may have decimals.

    Raises:
        FormatError: A row has another form, or a document is judged twice for a query.
    """
    judged: dict[str, dict[str, float]] = {}
    for line, fields in _fields(path):
        relevance = _number(fields[3]) if len(fields) == _QRELS_FIELDS else None
        if relevance is None:
            raise FormatError(
                f"{path}, line {line}: no row of TREC judgements",
                "Each has four fields: query 0 document relevance.",
            )
        _add(path, line, judged.setdefault(fields[0], {}), fields[2], relevance)
    return judged


def _read_table(path: Path | str) -> dict[str, list[str]]:
    ranking: dict[str, list[str]] = {}
    for row in read_rows(path):
        documents = [part.strip() for part in (row.cell or "").split(";") if part.strip()]
        if row.id in ranking:
            raise FormatError(
                f"{path}, line {row.line}: the query {row.id!r} is there already",
                "Keep one row for each query.",
            )
        if len(set(documents)) < len(documents):
            raise FormatError(
                f"{path}, line {row.line}: a document is there twice", "Name each once."
            )
        ranking[row.id] = documents
    return ranking


def _fields(path: Path | str) -> list[tuple[int, list[str]]]:
    lines = enumerate(read_text(path).splitlines(), start=1)
    return [(number, line.split()) for number, line in lines if line.strip()]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _add(
    path: Path | str, line: int, values: dict[str, float], document: str, value: float
) -> None:
    if document in values:
        raise FormatError(
            f"{path}, line {line}: the document {document!r} is there twice for its query",
            "Keep one row for each.",
        )
    values[document] = value
