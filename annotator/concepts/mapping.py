"""Mappings from words to concepts: written as suggestions, reviewed by people, read again."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from annotator.concept_ids import concept_id, is_cui
from annotator.errors import FormatError
from annotator.tables.table import CUI_DELIMITERS, Record, read_table

_WORD = ("word", "words", "label", "term", "text", "finding")
_CUI = ("cui", "cuis", "concept", "concepts")


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
        row = [s.word, s.count, s.cui, s.name, s.kind, f"{s.sure:.2f}", others]
        writer.writerow(row)
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
    table = read_table(path)
    records = [record for record in table.records if not record.blank]
    header, records = _header(table.header, records)
    word_column, cui_column = _columns(path, header, records)
    mapping: dict[str, tuple[str, ...]] = {}
    lines: dict[str, int] = {}
    for record in records:
        word, cell = (_cell(record, column) for column in (word_column, cui_column))
        try:
            key = concept_id(word)
        except ValueError:
            raise table.error(record.line, "the row has no word", "Remove the row.") from None
        cuis = tuple(dict.fromkeys(c for c in CUI_DELIMITERS.split(cell.upper()) if c))
        bad = next((cui for cui in cuis if not is_cui(cui)), None)
        if bad is not None:
            raise table.error(
                record.line,
                f"{bad!r}, the concept of {word!r}, is not a CUI",
                "A CUI is C and digits; several are joined by `;`; a word may be without one.",
            )
        if mapping.setdefault(key, cuis) != cuis:
            raise table.error(
                record.line,
                f"{word!r} is mapped to {';'.join(cuis) or 'nothing'}, and on line {lines[key]} "
                f"to {';'.join(mapping[key]) or 'nothing'}",
                "Keep one row for each word, with its CUIs joined by `;`.",
            )
        lines.setdefault(key, record.line)
    return mapping


def _header(
    header: Sequence[str] | None, records: list[Record]
) -> tuple[list[str] | None, list[Record]]:
    """The header in lower case, also where nothing but its names tells that it is one."""
    if header is not None:
        return [cell.strip().casefold() for cell in header], records
    first = [cell.strip().casefold() for cell in records[0].cells]
    if any(cell in _CUI for cell in first) or first[0] in _WORD:
        return first, records[1:]
    return None, records


def _columns(
    path: Path | str, header: Sequence[str] | None, records: Sequence[Record]
) -> tuple[int, int]:
    if header is None:
        if all(len(record.cells) < 2 for record in records):
            raise FormatError(f"{path} has only one column", "Give two columns: word and CUI.")
        return 0, 1
    cui = next((i for i, name in enumerate(header) if name in _CUI), None)
    if cui is None:
        raise FormatError(
            f"{path} has no column called CUI", f"Its columns are: {', '.join(header)}."
        )
    word = next((header.index(name) for name in _WORD if name in header), None)
    if word is None:
        others = [i for i in range(len(header)) if i != cui]
        if len(others) != 1:
            raise FormatError(
                f"{path} has no column called word", f"Its columns are: {', '.join(header)}."
            )
        (word,) = others
    return word, cui


def _cell(record: Record, column: int) -> str:
    return record.cells[column].strip() if column < len(record.cells) else ""
