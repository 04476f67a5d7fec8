"""Mappings from words to concepts: written as suggestions, reviewed by people, read again."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from annotator.concept_ids import concept_id, is_cui
from annotator.errors import FormatError
from annotator.tables.sheet import Sheet, read_sheet
from annotator.tables.spreadsheets import as_it_was, harmless
from annotator.tables.table import CUI_DELIMITERS, Record

_WORD = ("word", "words", "label", "term", "text", "finding")
_CUI = re.compile(r"\b(?:cui|concept)s?\b")


@dataclass(frozen=True)
class Suggestion:
    """The concept that a word may mean.

    Attributes:
        word: The word.
        count: How often it occurs.
        cui: The concept; empty if none is sure enough.
        name: Its preferred name.
        kind: How its name matches: `exact`, `normalised` or `fuzzy`; empty if none does.
        sure: How sure the best match is, 0..1.
        alternatives: CUI, name and sureness of others, the surest first.
    """

    word: str
    count: int
    cui: str = ""
    name: str = ""
    kind: str = ""
    sure: float = 0.0
    alternatives: tuple[tuple[str, str, float], ...] = ()


def render_suggestions(suggestions: Iterable[Suggestion]) -> str:
    """Render suggestions as a review table in CSV, which `read_mapping` reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["word", "count", "CUI", "name", "match", "sure", "alternatives"])
    for s in suggestions:
        others = "; ".join(f"{cui} {name} ({sure:.2f})" for cui, name, sure in s.alternatives)
        word, name, others = map(harmless, (s.word, s.name, others))
        writer.writerow([word, s.count, s.cui, name, s.kind, f"{s.sure:.2f}", others])
    return text.getvalue()


def read_mapping(path: Path | str) -> dict[str, tuple[str, ...]]:
    """Read the concepts of each word from a review table, or from two columns, word and CUI.

    Columns are found by their names (`word`, `CUI`) if there is a header, and others are ignored;
    without one they are the first two. Several CUIs of a word are joined by `;`. A word without
    CUI is mapped to nothing, `()`. The same row may be there twice.

    Args:
        path: A table, as `annotator concepts match` writes it or a spreadsheet saves it.

    Returns:
        CUIs by the local id of the word (`annotator.concept_ids`), in file order.

    Raises:
        FormatError: The file cannot be read as a table, lacks a column, has something other than a
            CUI in the column of CUIs, or maps a word in two ways.
    """
    sheet = read_sheet(path)
    header, records = _header(sheet)
    word_column, cui_column = _columns(sheet, header)
    mapping: dict[str, tuple[str, ...]] = {}
    lines: dict[str, int] = {}
    for record in records:
        word, cell = (record.cell(column) for column in (word_column, cui_column))
        word = as_it_was(word)
        try:
            key = concept_id(word)
        except ValueError:
            raise sheet.error(record.line, "the row has no word", "Remove the row.") from None
        cuis = tuple(dict.fromkeys(c for c in CUI_DELIMITERS.split(cell.upper()) if c))
        bad = next((cui for cui in cuis if not is_cui(cui)), None)
        if bad is not None:
            raise sheet.error(
                record.line,
                f"{bad!r}, the concept of {word!r}, is not a CUI",
                "A CUI is C and digits; several are joined by `;`; a word may be without one.",
            )
        if mapping.setdefault(key, cuis) != cuis:
            raise sheet.error(
                record.line,
                f"{word!r} is mapped to {';'.join(cuis) or 'nothing'}, and on line {lines[key]} "
                f"to {';'.join(mapping[key]) or 'nothing'}",
                "Keep one row for each word, with its CUIs joined by `;`.",
            )
        lines.setdefault(key, record.line)
    return mapping


def _header(sheet: Sheet) -> tuple[list[str] | None, Sequence[Record]]:
    """The header in lower case, if there is one, and the other rows."""
    first, *rest = sheet.records
    names = [cell.casefold() for cell in first.cells]
    if names[0] in _WORD or any(map(_CUI.search, names)):
        return names, rest
    return None, sheet.records


def _columns(sheet: Sheet, header: Sequence[str] | None) -> tuple[int, int]:
    """Positions of word and CUI."""
    if header is None:
        if all(len(cells) < 2 for _, cells in sheet.records):
            raise FormatError(f"{sheet.path} has only one column", "Give two: word and CUI.")
        return 0, 1
    named = f"Its columns are: {', '.join(header)}."
    cui = next((i for i, name in enumerate(header) if _CUI.search(name)), None)
    if cui is None:
        raise FormatError(f"{sheet.path} has no column called CUI", named)
    word = next((header.index(name) for name in _WORD if name in header), None)
    if word is None:
        others = [i for i in range(len(header)) if i != cui]
        if len(others) != 1:
            raise FormatError(f"{sheet.path} has no column called word", named)
        (word,) = others
    return word, cui
