"""Rankings and their judgements: TREC's formats, and tables `ID,Similar`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from annotator.errors import FormatError
from annotator.tables.formats import read_rows
from annotator.tables.table import read_text


class _Form(NamedTuple):
    """A TREC format: its name, its fields, and which of them holds the number."""

    name: str
    fields: str
    number: int


_RUN = _Form("a TREC run", "query Q0 document rank score tag", 4)
_QRELS = _Form("TREC judgements", "query 0 document relevance", 3)


def read_ranking(path: Path | str) -> dict[str, dict[str, float]]:
    """Read the documents found for each query, each with its score; a higher one ranks first.

    A TREC run (`query Q0 document rank score tag`) has scores; its ranks are not looked at. Any
    other table has the query in its first column and the documents in its second, joined by `;`,
    best first; they get the scores -1, -2, ...

    Raises:
        FormatError: The file cannot be read as either, or a query has a document twice or, in a
            table, is there twice.
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
    """Whether a file's first row is a TREC judgement, `query 0 document relevance`.

    Raises:
        FormatError: The file cannot be read.
    """
    return _has_form(path, _QRELS)


def read_qrels(path: Path | str) -> dict[str, dict[str, float]]:
    """Read the judged documents of each query with their relevance, which may have decimals.

    Raises:
        FormatError: A row has another form, or a document is judged twice for a query.
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
    """The number in a row, or None where the row has another form."""
    if len(fields) != len(form.fields.split()):
        return None
    try:
        value = float(fields[form.number])
    except ValueError:
        return None
    return value if math.isfinite(value) else None
