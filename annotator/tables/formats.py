"""Readers of the tables of the task, 2017 to 2026, and of ROCO v1 and ROCOv2.

`annotator.tables.table.read_table` describes the detection of separator and header.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from annotator.concept_ids import CUI
from annotator.errors import AnnotatorError, FormatError
from annotator.ids import by_image, natural_key
from annotator.tables.table import CUI_DELIMITERS, SEPARATOR, Table, holds_cui, read_table

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
    """Split a cell into CUIs in upper case, in order, without empty parts and repeats.

    The separator is `;` today; older files have comma, tab or space.
    """
    parts = CUI_DELIMITERS.split(cell.upper()) if cell else []
    return tuple(dict.fromkeys(part for part in parts if part))


def read_concepts(path: Path | str) -> dict[str, tuple[str, ...]]:
    """Read the CUIs of each image, in file order; an image without CUIs has an empty tuple.

    Raises:
        FormatError: The file cannot be read as a table, an id is repeated, or something other than
            a CUI (`C` and digits, in either case) is among the CUIs.
    """
    concepts: dict[str, tuple[str, ...]] = {}
    table = read_table(path)
    rows = _rows_of(table, 1)
    if not rows:
        raise FormatError(f"{path} has a header and no rows", "Give one row for each image.")
    if all(row.cell is None for row in rows):
        hint = "Separate id and CUIs by a tab, `|` or comma, and the CUIs by `;`."
        if all(SEPARATOR.search(row.id) for row in rows):
            hint = "Each row is one quoted cell: leave out the outer quotes."
        raise FormatError(f"{path} has no column of CUIs", hint)
    for row in _unique(path, rows):
        cuis = split_cuis(row.cell)
        bad = next((cui for cui in cuis if not CUI.fullmatch(cui)), None)
        if bad is not None:
            raise table.error(row.line, f"{bad!r} is not a CUI", _no_cui_hint(table, row, bad))
        concepts[row.id] = cuis
    return concepts


def _no_cui_hint(table: Table, row: Row, bad: str) -> str:
    """Hint for a part of a cell that is not a CUI."""
    if bad in ("NAN", "NA", "N/A", "NONE", "NULL", "-"):
        return "Leave the cell of an image without CUIs empty."
    if bad in ("0", "1", "0.0", "1.0", "TRUE", "FALSE"):
        return "Give two columns, `ID,CUIs`, instead of a column for each CUI."
    if CUI.fullmatch(bad.strip("[](){}'\"\u2018\u2019\u201c\u201d")):
        return "Join several CUIs by `;`, without brackets and quotes."
    record = next(record for record in table.rows if record.line == row.line)
    for column, cell in enumerate(record.cells):
        if column != 1 and holds_cui(cell):
            return f"CUIs are read from the second column, but column {column + 1} has some."
    return "A CUI is C and digits, such as C0817096; several are joined by `;`."


def read_captions(path: Path | str) -> dict[str, str]:
    """Read the caption of each image, stripped, in file order.

    Raises:
        FormatError: The file cannot be read as a table, or an id is repeated.
    """
    return {row.id: (row.cell or "").strip() for row in _unique(path, read_rows(path))}


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
        return _values(read_table(spec), 1)
    table = read_table(path)
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
    """Read ids from the first column of a table, or from a plain list, in file order.

    Raises:
        FormatError: The file cannot be read as a table, or an id is repeated.
    """
    return [row.id for row in _unique(path, read_rows(path))]


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
