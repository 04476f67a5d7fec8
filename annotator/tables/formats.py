"""Readers of the tables of the task, 2017 to 2026, and of ROCO v1 and ROCOv2.

`annotator.tables.table.read_table` describes the detection of separator and header.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from annotator.errors import AnnotatorError, FormatError
from annotator.ids import by_image, natural_key
from annotator.tables.labels import labels_of
from annotator.tables.sheet import Sheet, read_sheet
from annotator.tables.table import CUI_DELIMITERS, SEPARATORS, Table, is_header, read_table

_OF_IDS = "id:"  # in --only: a pattern of ids


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a ground truth or a run.

    Attributes:
        line: First line of the row, from 1.
        id: Image id, stripped.
        cell: Second column (CUIs, a caption), unstripped; None if the row has only the id.
    """

    line: int
    id: str
    cell: str | None


def read_rows(path: Path | str) -> list[Row]:
    """Read a ground truth or a run: text in UTF-8, or a zip with one csv.

    Blank lines and the header are skipped; rows are in file order.

    Raises:
        FormatError: The file cannot be read as a table, or a row has no id.
    """
    return _rows_of(read_table(path), 1)


def split_cuis(cell: str | None) -> tuple[str, ...]:
    """Split the cell of a run into concept ids, in order, without empty parts and repeats.

    The separator is `;` today; older files have comma, tab or space.
    """
    parts = CUI_DELIMITERS.split(cell.upper()) if cell else []
    return tuple(dict.fromkeys(part for part in parts if part))


def read_captions(path: Path | str) -> dict[str, str]:
    """Read the caption of each image, stripped, in file order.

    Raises:
        FormatError: The file cannot be read as a table, or an id is repeated.
    """
    sheet = read_sheet(path)
    table = _with_header(sheet)
    if sheet.separator and sheet.separator in SEPARATORS:
        with suppress(FormatError):  # UTF-16
            table = read_table(path)  # keeps white space round commas without quotes
    return {row.id: (row.cell or "").strip() for row in _unique(path, _rows_of(table, 1))}


def read_column(spec: str) -> dict[str, str]:
    """Read one column of a table by image id (the first column), stripped, in file order.

    Args:
        spec: `FILE` for the second column or `FILE:COLUMN` for a column by its header's name
            (upper or lower case). A row that ends before the column has an empty value.

    Raises:
        FormatError: The file cannot be read as a table, has no such column, or repeats an id.
    """
    path, _, name = spec.rpartition(":")
    if not path or Path(spec).exists():
        return _values(_with_header(read_sheet(spec)), 1)
    table = _with_header(read_sheet(path))
    if table.header is None:  # a named column implies a header
        first, *rest = table.rows
        header = tuple(cell.strip() for cell in first.cells)
        table = Table(table.path, table.separator, header, tuple(rest))
    columns = [column.casefold() for column in table.header or ()]
    if name.strip().casefold() not in columns:
        raise FormatError(
            f"{path} has no column {name!r}",
            f"Its columns are: {', '.join(table.header or ())}.",
        )
    return _values(table, columns.index(name.strip().casefold()))


def read_ids(path: Path | str) -> list[str]:
    """Read ids from a plain list, a table of labels, or the first column of another table.

    Raises:
        FormatError: The file cannot be read as a table, or an id is repeated.
    """
    sheet = read_sheet(path)
    if any(len(cells) > 1 for _, cells in sheet.records):
        with suppress(FormatError):  # no table of labels
            return list(labels_of(sheet).concepts)
    return [row.id for row in _unique(path, _rows_of(_with_header(sheet), 1))]


def _with_header(sheet: Sheet) -> Table:
    first, *rest = sheet.records
    if not is_header(first.cells, rest):
        return Table(sheet.path, sheet.separator, None, sheet.records)
    return Table(sheet.path, sheet.separator, tuple(first.cells), tuple(rest))


def _values(table: Table, column: int) -> dict[str, str]:
    if all(len(record.cells) <= column for record in table.rows):
        raise FormatError(f"{table.path} has only one column", "Give a table with two columns.")
    return {
        row.id: (row.cell or "").strip() for row in _unique(table.path, _rows_of(table, column))
    }


def _rows_of(table: Table, column: int) -> list[Row]:
    rows = []
    for record in table.rows:
        image_id = record.cells[0].strip()
        if not image_id:
            hint = "The first column is the id (pandas: to_csv(..., index=False))."
            raise table.error(record.line, "the row has no image id", hint)
        rows.append(Row(record.line, image_id, table.cell(record, column)))
    return rows


def _unique(path: Path | str, rows: Iterable[Row]) -> Iterable[Row]:
    lines: dict[str, int] = {}
    for row in rows:
        first = lines.setdefault(row.id, row.line)
        if first != row.line:
            raise FormatError(
                f"{path}, line {row.line}: the id {row.id!r} is on line {first} already",
                "Keep one row for each image, with its CUIs joined by `;`.",
            )
        yield row


def select_side(
    ids: Iterable[str],
    split: str | None,
    only: str | None,
    notes: list[str],
) -> set[str]:
    """Select the ids on the side `only`; all of them without a side.

    Args:
        ids: Image ids, with which those of the split are matched (`annotator.ids`).
        split: `FILE` or `FILE:COLUMN`.
        only: A side of the split, or, without a split, `id:PATTERN` for the ids that match a
            pattern with `*`, `?` and `[...]`, as file names do in a shell.
        notes: Gets a line where ids of the split differ from `ids`.

    Raises:
        AnnotatorError: Only one of `split` and a side is given, the side does not occur, or no id
            matches the pattern.
    """
    everything = set(ids)
    if only is not None and only.startswith(_OF_IDS):
        if split is not None:
            raise AnnotatorError(
                "--only id:PATTERN selects by the ids alone.", "Leave out --split, or name a side."
            )
        pattern = only.removeprefix(_OF_IDS)
        selected = {id_ for id_ in everything if fnmatchcase(id_, pattern)}
        if everything and not selected:
            raise AnnotatorError(
                f"None of the {len(everything)} ids matches {pattern!r}.",
                f"Ids are such as {min(everything, key=natural_key)!r}.",
            )
        return selected
    if split is None and only is None:
        return everything
    if split is None or only is None:
        raise AnnotatorError(
            "--split and --only belong together.",
            "For example: --split split.csv --only train. Without a split: --only 'id:*_train_*'.",
        )
    sides = by_image(read_column(split), everything, split, notes)
    if only not in sides.values():
        raise AnnotatorError(
            f"{split} has no side {only!r}.",
            f"It has: {', '.join(sorted(set(sides.values()))[:10])}",
        )
    return {id_ for id_ in everything if sides.get(id_) == only}
