"""Excel workbooks (.xlsx, .xlsm) and Parquet files as rows of cells in text.

A spreadsheet may show something else than was typed. A cell whose text is in doubt, such as an id
that Excel took for a date, is marked, so that it is refused where it is needed and not otherwise.
"""

from __future__ import annotations

import datetime
import io
import json
import re
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotator.errors import FormatError
from annotator.tables.table import MAX_BYTES, Record
from index.distribution import pip_install

MAX_CELLS = 30_000_000
_EXACT = 10**15  # Excel keeps 15 digits
_DATES = (datetime.date, datetime.time, datetime.timedelta)


@dataclass
class Cells:
    """Rows of a workbook or Parquet file.

    Attributes:
        records: All rows, by number from 1.
        doubts: What is wrong with a cell, by row number and column from 0.
        note: What is to be said of the file; "" for nothing.
    """

    records: list[Record] = field(default_factory=list)
    doubts: dict[tuple[int, int], str] = field(default_factory=dict)
    note: str = ""

    def put(self, line: int, column: int, cell: Any) -> None:
        """Put a cell of openpyxl in its place."""
        self.records[line - 1].cells[column], doubt = _text_of(cell)
        if doubt:
            self.doubts[line, column] = doubt
        else:
            self.doubts.pop((line, column), None)


def read_workbook(path: Path, data: bytes) -> Cells:
    """Read the first visible sheet of an Excel workbook, with the values that formulas had.

    Numbers become text without `.0`, and with the leading zeros that their format shows.

    Raises:
        FormatError: No openpyxl, or the workbook is damaged, too large, or without rows.
    """
    try:
        import openpyxl
    except ImportError:
        raise FormatError(
            f"{path} is an Excel workbook, which takes openpyxl",
            f"Install it: {pip_install('excel')}. Or save the sheet as CSV UTF-8.",
        ) from None
    _check_size(path, data)

    def opened(**options: Any) -> Any:
        return openpyxl.load_workbook(io.BytesIO(data), read_only=True, keep_links=False, **options)

    try:
        with warnings.catch_warnings():  # of styles and extensions that openpyxl leaves out
            warnings.simplefilter("ignore")
            book = opened()
            sheets = [s for s in book.worksheets if s.sheet_state == "visible"] or book.worksheets
            if not sheets:
                raise FormatError(f"{path} is an Excel workbook without a sheet")
            cells, formulas = _read_sheet(path, sheets[0])
            if formulas:
                _put_results(cells, formulas, opened(data_only=True)[sheets[0].title])
    except FormatError:
        raise
    except Exception as error:  # openpyxl raises many kinds on damaged files
        raise FormatError(
            f"{path} is not a readable Excel workbook ({error})",
            "Save it again, or as CSV UTF-8.",
        ) from None
    if not any(not record.blank for record in cells.records):
        raise FormatError(
            f"{path} is empty: nothing is in its first sheet, {sheets[0].title!r}",
            "Move the sheet with the table to the front.",
        )
    if len(sheets) > 1:
        cells.note = f"sheet {sheets[0].title!r}, the first of {len(sheets)}"
    return cells


def _check_size(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > 2 * MAX_BYTES:  # XML is longer than its text
        raise FormatError(f"{path} is {size >> 20} MiB when unpacked", "Give one sheet of it.")


def _read_sheet(path: Path, sheet: Any) -> tuple[Cells, set[tuple[int, int]]]:
    """The cells of a sheet, and which of them are formulas."""
    sheet.reset_dimensions()  # as written by some programs they are wrong
    cells, count = Cells(), 0
    formulas: set[tuple[int, int]] = set()
    for line, row in enumerate(sheet.iter_rows(), start=1):
        count += len(row)
        if count > MAX_CELLS:
            raise FormatError(f"{path} has more than {MAX_CELLS:,} cells", "Give one table of it.")
        cells.records.append(Record(line, [""] * len(row)))
        for column, cell in enumerate(row):
            if cell.value is not None:
                cells.put(line, column, cell)
                if cell.data_type == "f":
                    formulas.add((line, column))
    return cells, formulas


def _put_results(cells: Cells, formulas: set[tuple[int, int]], sheet: Any) -> None:
    """Put the results of formulas, as they were last calculated, in their place."""
    sheet.reset_dimensions()
    for line, row in enumerate(sheet.iter_rows(), start=1):
        for column, cell in enumerate(row):
            if (line, column) in formulas:
                cells.put(line, column, cell)


def _text_of(cell: Any) -> tuple[str, str]:
    """The text of a cell, and what is wrong with it or ""."""
    value = cell.value
    if value is None:
        return "", "a formula that was never calculated (open the workbook in Excel and save it)"
    if isinstance(value, bool):
        return str(value).upper(), ""
    if isinstance(value, _DATES):
        return str(value), "a date to Excel (format the column as text and type it again)"
    if isinstance(value, int | float):
        if value != int(value):
            return repr(value), ""
        number = str(int(value))
        if re.fullmatch("0+", cell.number_format or ""):
            number = number.zfill(len(cell.number_format))
        doubt = "a number of more digits than Excel keeps (format the column as text)"
        return number, doubt if abs(value) >= _EXACT else ""
    text = str(value)
    return text, "an error of Excel" if cell.data_type == "e" and text != "#N/A" else ""


def read_parquet(path: Path) -> Cells:
    """Read the columns of texts, numbers and lists of a Parquet file; the first row is the header.

    Lists are in JSON.

    Raises:
        FormatError: The file is damaged or too large.
    """
    from pyarrow import parquet as pq
    from pyarrow import types
    from pyarrow.lib import ArrowException

    try:
        file = pq.ParquetFile(path)
        read = [f.name for f in file.schema_arrow if not _is_bytes(f.type, types)]
        if file.metadata.num_rows * len(read) > MAX_CELLS:
            raise FormatError(f"{path} has more than {MAX_CELLS:,} cells")
        columns = file.read(columns=read).to_pydict()
    except (ArrowException, OSError) as error:
        raise FormatError(f"{path} is not a readable Parquet file ({error})") from None
    rows = zip(*(map(plain_text, columns[name]) for name in read), strict=True)
    return Cells([Record(1, read), *(Record(i, list(row)) for i, row in enumerate(rows, start=2))])


def _is_bytes(kind: Any, types: Any) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_struct(kind))


def plain_text(value: Any) -> str:
    """The text of a value as a table holds it; a list in JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list):
        return json.dumps([str(part) for part in value if part is not None], ensure_ascii=False)
    return str(value)
