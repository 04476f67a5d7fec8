"""Tables of any program as rows of cells: CSV in its dialects, Excel workbooks, Parquet.

`annotator.tables.table.read_table` is for the files of the task, whose separators are those of its
scorers. Here a semicolon separates as well, as where the comma is in numbers.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from annotator.errors import FormatError
from annotator.tables.table import (
    PREAMBLE,
    SEPARATORS,
    Record,
    check_size,
    decode,
    find_separator,
    inflate,
    parse_rows,
    read_bytes,
)

_SEPARATORS = f"{SEPARATORS};"
_SEP_LINE = re.compile(r'"?sep=(.)"?[ \t]*$', re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Sheet:
    """Rows of a table, of which none is known to be a header.

    Attributes:
        path: The file.
        records: Rows that are not blank, with stripped cells and without blank ones at the end.
        separator: Tab, `|`, comma or semicolon; "" of a workbook or Parquet file.
        doubts: What is wrong with a cell, by line and column from 0.
        notes: What is to be said of the file.
    """

    path: Path
    records: tuple[Record, ...]
    separator: str
    doubts: Mapping[tuple[int, int], str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def error(self, line: int, message: str, hint: str = "") -> FormatError:
        """Make a FormatError that names this file and a line (of a workbook: a row)."""
        unit = "line" if self.separator else "row"
        return FormatError(f"{self.path}, {unit} {line}: {message}", hint)


def read_sheet(path: Path | str) -> Sheet:
    """Read a table: text in UTF-8 or UTF-16, a zip with one csv, an Excel workbook, or Parquet.

    Text is separated by the tab, `|`, comma or semicolon that is first in it, or that Excel's
    `sep=` names. Comments before the table are left out, and quotes round whole rows taken off. In
    a workbook so is a title over the table.

    Raises:
        FormatError: The file is missing, too large, empty, or of another kind, which is named.
    """
    path = Path(path)
    data = read_bytes(path)
    name = path.name.lower()
    if data.startswith(b"PK\x03\x04") or name.endswith((".zip", ".xlsx", ".xlsm")):
        members = _members(data)
        if "xl/workbook.xml" in members:
            from annotator.tables.workbook import read_workbook

            book = read_workbook(path, data)
            records, title = _without_title(_stripped(book.records))
            notes = tuple(filter(None, (book.note, title)))
            return Sheet(path, records, "", book.doubts, notes)
        if "xl/workbook.bin" in members:
            raise _refusal(path, "an Excel workbook in its binary format (.xlsb)")
        if "content.xml" in members and "mimetype" in members:
            raise _refusal(path, "an OpenDocument spreadsheet (.ods)")
        if any(member.startswith("Index/") and member.endswith(".iwa") for member in members):
            raise _refusal(path, "a Numbers spreadsheet")
        _, data = inflate(path, data)
    elif data.startswith(b"PAR1"):
        from annotator.tables.workbook import read_parquet

        return Sheet(path, _stripped(read_parquet(path).records), "")
    check_size(path, data)
    _check_kind(path, data)
    return _read_text_sheet(path, decode(path, data, utf16=True))


def _members(data: bytes) -> list[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.namelist()
    except zipfile.BadZipFile:
        return []


def _refusal(path: Path, kind: str) -> FormatError:
    return FormatError(f"{path} is {kind}, which is not read", "Save it as .xlsx, or as CSV UTF-8.")


def _check_kind(path: Path, data: bytes) -> None:
    """Raise for the kinds of files that people give for tables."""
    start = data[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        kind = "an old Excel workbook (.xls), or one with a password"
        raise _refusal(path, kind)
    if start.startswith((b"<!doctype", b"<html", b"<table", b"<?xml")):
        raise _refusal(path, "HTML or XML")
    if start.startswith((b'{"', b"[{", b'["', b"[[", b"{\n", b"[\n", b"{\r\n")) or start == b"{":
        raise FormatError(f"{path} is JSON, which is not read", "Save it as CSV.")
    if data.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")):
        raise FormatError(f"{path} is compressed, but no zip", "Unpack it.")
    if data.startswith(b"{\\rtf"):
        raise _refusal(path, "a text document (.rtf)")


def _read_text_sheet(path: Path, text: str) -> Sheet:
    separator, skipped = "", 0
    if found := PREAMBLE.match(text):
        skipped = len(io.StringIO(found[0], newline=None).readlines())
        if word := _SEP_LINE.search(found[0]):
            separator = word[1]
        text = text[found.end() :]
    separator = separator or find_separator(text, _SEPARATORS)
    try:
        parsed = parse_rows(text, separator)
    except csv.Error as error:
        line, message = error.args
        raise FormatError(
            f"{path}, line {line + skipped}: {message}", "Check the quotes on that line."
        ) from None
    records = _stripped([Record(line + skipped, cells) for line, cells in parsed])
    records, separator, notes = _without_outer_quotes(records, separator)
    if not records:
        raise FormatError(f"{path} is empty", "Give a file with one row for each image.")
    return Sheet(path, records, separator, notes=notes)


def _stripped(records: list[Record]) -> tuple[Record, ...]:
    kept = []
    for line, cells in records:
        cells = [cell.strip() for cell in cells]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            kept.append(Record(line, cells))
    return tuple(kept)


def _without_outer_quotes(
    records: tuple[Record, ...], separator: str
) -> tuple[tuple[Record, ...], str, tuple[str, ...]]:
    """Rows that are one quoted cell each, parsed again."""
    if not records or any(len(cells) > 1 for _, cells in records):
        return records, separator, ()
    inner = find_separator("\n".join(cells[0] for _, cells in records), _SEPARATORS)
    if not all(inner in cells[0] for _, cells in records):
        return records, separator, ()
    again = [Record(line, parse_rows(cells[0], inner)[0].cells) for line, cells in records]
    return _stripped(again), inner, ("the quotes round each row are taken off",)


def _without_title(records: tuple[Record, ...]) -> tuple[tuple[Record, ...], str]:
    """A sheet less the rows of one cell over its table."""
    titles = 0
    if any(len(cells) > 1 for _, cells in records):
        while len([cell for cell in records[titles].cells if cell]) == 1:
            titles += 1
    if not titles:
        return records, ""
    first = next(cell for cell in records[0].cells if cell)
    return records[titles:], f"the title {first!r} is left out"
