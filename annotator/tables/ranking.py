"""Rankings and relevance judgements: TREC formats, and tables `ID,Similar`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from annotator.errors import FormatError
from annotator.tables.formats import read_rows
from annotator.tables.table import read_text


class _Form(NamedTuple):
    """TREC format: its name, its fields, and the position of the number."""

    name: str
    fields: str
    number: int


_RUN = _Form("a TREC run", "query Q0 document rank score tag", 4)
_QRELS = _Form("TREC judgements", "query 0 document relevance", 3)


def read_ranking(path: Path | str) -> dict[str, dict[str, float]]:
    """Read the scores of the documents by query; higher scores rank first.

    A TREC run (`query Q0 document rank score tag`) has scores; its ranks are ignored. Any other
    table has the query in its first column and the documents in its second, joined by `;`, best
    first; they get the scores -1, -2, ...

    Raises:
        FormatError: The file has neither format, a document is repeated for a query, or a query is
            repeated in a table.
    """
    if _has_form(path, _RUN):
        return _read_trec(path, _RUN)
    ranking: dict[str, dict[str, float]] = {}
    for row in read_rows(path):
        documents = [part.strip() for part in (row.cell or "").split(";") if part.strip()]
        if row.id in ranking:
            raise FormatError(
                f"{path}, line {row.line}: the query {row.id!r} is there already",
                "Keep one row for each query.",
            )
        ranking[row.id] = {document: -rank for rank, document in enumerate(documents, start=1)}
        if len(ranking[row.id]) < len(documents):
            raise FormatError(
                f"{path}, line {row.line}: a document is there twice", "Name each once."
            )
    return ranking


def is_qrels(path: Path | str) -> bool:
    """Return whether the first row of a file is a TREC judgement, `query 0 document relevance`.

    Raises:
        FormatError: The file cannot be read.
    """
    return _has_form(path, _QRELS)


def read_qrels(path: Path | str) -> dict[str, dict[str, float]]:
    """Read the relevance of the judged documents by query; decimals are allowed.

    Raises:
        FormatError: A row is malformed, or a document is judged twice for a query.
    """
    return _read_trec(path, _QRELS)


def _has_form(path: Path | str, form: _Form) -> bool:
    _, fields = next(_rows(path), (0, []))
    return _number(fields, form) is not None


def _read_trec(path: Path | str, form: _Form) -> dict[str, dict[str, float]]:
    values: dict[str, dict[str, float]] = {}
    for line, fields in _rows(path):
        number = _number(fields, form)
        if number is None:
            raise FormatError(
                f"{path}, line {line}: no row of {form.name}", f"Each has the fields {form.fields}."
            )
        query, document = fields[0], fields[2]
        if document in values.setdefault(query, {}):
            raise FormatError(
                f"{path}, line {line}: the document {document!r} is there twice for its query",
                "Keep one row for each.",
            )
        values[query][document] = number
    return values


def _rows(path: Path | str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each row that is not blank."""
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        if fields := text.split():
            yield line, fields


def _number(fields: list[str], form: _Form) -> float | None:
    """Number in a row, or None if the row is malformed."""
    if len(fields) != len(form.fields.split()):
        return None
    try:
        value = float(fields[form.number])
    except ValueError:
        return None
    return value if math.isfinite(value) else None
