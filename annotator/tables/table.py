"""Text tables: rows of cells with their line numbers.

Separator and header of the files of the ImageCLEFmedical Caption task differ between years, so both
are detected by content, and columns are read by position.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from annotator.concept_ids import is_cui
from annotator.errors import FormatError

SEPARATORS = "\t|,"
MAX_BYTES = 256 * 2**20  # of a table as text; also limits inflated zips

CUI_DELIMITERS = re.compile(r"[;,\s]+")  # `;` today; comma, tab or space in the older files

_HEADER_WORD = re.compile(
    r"(?:.*[ _-])?u?ids?|images?|img|files?|path|name|cuis?|concepts?"
    r"|(?:images?|img|file|dicom|picture|figure)[ _-]?(?:id|uid|name|path|file|index)"
    r"|(?:sop|study|series)?[ _-]?instance[ _-]?uid|patient[ _-]?id",
    re.IGNORECASE,
)
# What some programs write before a table: comments, and Excel's word on the separator.
PREAMBLE = re.compile(r'(?:[ \t]*(?:#[^\r\n]*|"?sep=.{1,2}?"?)?(?:\r\n|\r|\n))+', re.IGNORECASE)
_WORKBOOK_HINT = "Save the sheet of an Excel workbook as CSV UTF-8."
_QUOTED_CELL = re.compile(r'"(?:[^"]|"")*"')


class Record(NamedTuple):
    """Row of a table: its first line (from 1) and its cells; a blank line has no cells."""

    line: int
    cells: list[str]

    @property
    def blank(self) -> bool:
        """True if there are only separators and white space."""
        return not any(cell.strip() for cell in self.cells)

    def cell(self, column: int) -> str:
        """The cell in a column; "" if the row is shorter."""
        return self.cells[column] if column < len(self.cells) else ""


@dataclass(frozen=True)
class Table:
    """Raw table with a separate header.

    Attributes:
        path: The file.
        separator: Tab, `|` or comma.
        header: Cells of the header, stripped, or None without a header.
        records: All rows but the header, in file order, including blank lines.
    """

    path: Path
    separator: str
    header: tuple[str, ...] | None
    records: tuple[Record, ...]

    @property
    def rows(self) -> tuple[Record, ...]:
        """Rows that are not blank."""
        return tuple(record for record in self.records if not record.blank)

    def cell(self, record: Record, column: int = 1) -> str | None:
        """Raw cell in a column, or None if the row is too short.

        The last column takes the rest of the row, since CUIs (ROCO v1) and captions may contain the
        separator unquoted. Without a header the second column is the last one.
        """
        cells = record.cells
        if column >= len(cells):
            return None
        last = max(len(self.header or ()), 2) - 1
        return self.separator.join(cells[column:]) if column == last else cells[column]

    def error(self, line: int, message: str, hint: str = "") -> FormatError:
        """Make a FormatError that names this file and a line."""
        return FormatError(f"{self.path}, line {line}: {message}", hint)


def read_table(path: Path | str, *, preamble: bool = True) -> Table:
    """Read a table, detecting its separator and header.

    The separator is the first tab, `|` or comma of the first line with one (after a quoted first
    cell). Comma-separated files follow csv quoting. Other files do so only if all quotes are well
    formed; otherwise quotes are plain characters, as in free-text captions.

    The first row is a header if it has no CUI and either its first cell is a word such as `ID`,
    `image` or `... ID`, or its second cell is a word without digits while the second column has
    CUIs further down. So `ID,` is a header, and `x,` and `x` are images without concepts.

    Args:
        path: A text file in UTF-8, or a zip with one csv file.
        preamble: Take lines at the beginning that start with `#` or are Excel's `sep=,` for blank
            ones; otherwise they are rows, as to the official scorers.

    Raises:
        FormatError: The file is missing, empty, binary, too large, not UTF-8, or has an open quote.
    """
    path = Path(path)
    text = read_text(path)
    if preamble and (found := PREAMBLE.match(text)):
        n_lines = len(io.StringIO(found[0], newline=None).readlines())
        text = "\n" * n_lines + text[found.end() :]
    separator = find_separator(text)
    try:
        records = parse_rows(text, separator)
    except csv.Error as error:
        line, message = error.args
        raise FormatError(
            f"{path}, line {line}: {message}", "Check the quotes on that line."
        ) from None
    first = next((i for i, record in enumerate(records) if not record.blank), None)
    if first is None:
        raise FormatError(f"{path} is empty", "Give a file with one row for each image.")
    header = None
    if is_header(records[first].cells, records[first + 1 :]):
        header = tuple(cell.strip() for cell in records[first].cells)
        records = records[first + 1 :]
    return Table(path, separator, header, tuple(records))


def read_text(path: Path | str) -> str:
    """Read the text of a file, or of the only csv in a zip, without byte order mark.

    Raises:
        FormatError: The file is missing, binary, too large or not UTF-8.
    """
    return decode(path, read_source(path)[1])


def decode(path: Path | str, data: bytes, *, utf16: bool = False) -> str:
    """The text of a file's bytes, without byte order mark.

    Args:
        path: The file, for messages.
        data: Its bytes.
        utf16: Take UTF-16 with a byte order mark, too.

    Raises:
        FormatError: They are not text in UTF-8.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", "replace") if utf16 else "\0"
        if "\0" not in text and "\ufffd" not in text:
            return text
        raise FormatError(f"{path} is text in UTF-16", "Save it as UTF-8 (Excel: CSV UTF-8).")
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise FormatError(f"{path} is an Office document", _WORKBOOK_HINT)
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise FormatError(
            f"{path}, line {line}: a null byte, as in a binary file",
            "Give a text table (csv or tsv) in UTF-8.",
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, message = explain_decoding(error)
        raise FormatError(f"{path}, line {line}: {message}", "Save the file as UTF-8.") from None
    return text.removeprefix("\ufeff")


def explain_decoding(error: UnicodeDecodeError) -> tuple[int, str]:
    """Line (from 1) of the first byte that is not UTF-8, and a message that names it."""
    line = error.object.count(b"\n", 0, error.start) + 1
    byte = error.object[error.start]
    return line, f"byte 0x{byte:02x} at offset {error.start} is not UTF-8"


def read_source(path: Path | str) -> tuple[str, bytes]:
    """Read the bytes of a file, or of the only csv in a zip, with the name of the csv.

    Raises:
        FormatError: The file is missing, a folder, unreadable, too large, or a zip without exactly
            one csv.
    """
    path = Path(path)
    data = read_bytes(path)
    name = path.name
    if path.suffix.lower() == ".zip" or data.startswith(b"PK\x03\x04"):
        name, data = inflate(path, data)
    check_size(path, data)
    return name, data


def check_size(path: Path, data: bytes) -> None:
    """Check that bytes are no more than `MAX_BYTES`.

    Raises:
        FormatError: They are.
    """
    if len(data) > MAX_BYTES:
        raise FormatError(f"{path} holds more than {MAX_BYTES >> 20} MiB", "Give one table of it.")


def read_bytes(path: Path) -> bytes:
    """Read a file, of which `MAX_BYTES` and one more at most.

    Raises:
        FormatError: The file is missing, a folder or unreadable.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise FormatError(f"{path} does not exist", "Check the path.") from None
    except IsADirectoryError:
        raise FormatError(f"{path} is a folder", "Give the table in it, not the folder.") from None
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror})") from None


def inflate(path: Path, data: bytes) -> tuple[str, bytes]:
    """Name and bytes (`MAX_BYTES` and one more at most) of the only csv in a zip.

    Raises:
        FormatError: Not exactly one csv, or no readable zip.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if "xl/workbook.xml" in archive.namelist():
                raise FormatError(f"{path} is an Excel workbook", _WORKBOOK_HINT)
            tables = [name for name in archive.namelist() if _is_csv_member(name)]
            if len(tables) != 1:
                found = ", ".join(sorted(archive.namelist())[:5]) or "nothing"
                raise FormatError(
                    f"{path} holds {len(tables)} csv files (found: {found})",
                    "Put exactly one csv, submission.csv, in the zip.",
                )
            with archive.open(tables[0]) as member:
                return tables[0], member.read(MAX_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        hint = f"Zip it again. {_WORKBOOK_HINT}"
        raise FormatError(f"{path} is not a readable zip ({error})", hint) from None


def _is_csv_member(name: str) -> bool:
    member = PurePosixPath(name)
    hidden = member.name.startswith(".") or "__MACOSX" in member.parts
    return member.suffix.lower() == ".csv" and not hidden


def parse_csv(
    text: str, separator: str = ",", *, quoted: bool = True, strict: bool = False
) -> list[Record]:
    """Parse all rows of a text, including blank lines.

    Args:
        text: The whole text.
        separator: Separator of the cells.
        quoted: Apply csv quoting; otherwise quotes are plain characters.
        strict: Raise if a quote closes before the end of its cell.

    Raises:
        csv.Error: A quote is never closed, or a cell is too long; the arguments are the line and a
            message.
    """
    # An unclosed quote would swallow this sentinel line.
    lines = chain(io.StringIO(text, newline=""), ("end",))
    reader = csv.reader(
        lines,
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=strict,
    )
    records: list[Record] = []
    line = 1
    try:
        for cells in reader:
            records.append(Record(line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise csv.Error(line, str(error)) from None
    last = records.pop()
    if last.line != reader.line_num:
        raise csv.Error(last.line, "a quote is opened and never closed")
    return records


def find_separator(text: str, among: str = SEPARATORS) -> str:
    """First of some separators in the first line with one; comma if there is none."""
    pattern = re.compile(f"[{re.escape(among)}]")
    for line in io.StringIO(text, newline=""):
        quoted = _QUOTED_CELL.match(line)
        if found := pattern.search(line, quoted.end() if quoted else 0):
            return found[0]
    return ","


def parse_rows(text: str, separator: str) -> list[Record]:
    """Parse all rows of a text, as `read_table` describes.

    Raises:
        csv.Error: As `parse_csv`.
    """
    if separator in ",;":
        return parse_csv(text, separator)
    try:
        return parse_csv(text, separator, strict=True)
    except csv.Error:
        return parse_csv(text, separator, quoted=False)


def is_header(cells: Sequence[str], rest: Sequence[Record]) -> bool:
    """Return whether the cells of a first row are a header, as `read_table` describes."""
    if any(holds_cui(cell) for cell in cells):
        return False
    if _HEADER_WORD.fullmatch(cells[0].strip()):
        return True
    second = cells[1].strip() if len(cells) > 1 else ""
    if not second or any(character.isdigit() for character in second):
        return False
    return any(len(record.cells) > 1 and holds_cui(record.cells[1]) for record in rest)


def holds_cui(cell: str) -> bool:
    """Return whether one of the parts of a cell is a CUI."""
    return any(is_cui(part) for part in CUI_DELIMITERS.split(cell))
