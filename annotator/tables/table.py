"""Tables of text: from a file's bytes to rows of cells with their line numbers.

The files of the ImageCLEFmedical Caption task changed separator and header from year to year, so
both are recognised by content and columns are read by position.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from annotator.errors import FormatError

SEPARATORS = "\t|,"
MAX_BYTES = 256 * 2**20  # of a table as text; bounds what a zip may inflate to

CUI = re.compile(r"C[0-9]+")  # as the task's own checker has it; UMLS writes seven digits
CUI_DELIMITERS = re.compile(r"[;,\s]+")  # `;` today; comma, tab or space in the older files

_HEADER_WORD = re.compile(
    r"(?:.*[ _-])?u?ids?|images?(?:[ _-]?(?:id|name))?|file(?:[ _-]?name)?|path|name|cui|concept",
    re.IGNORECASE,
)
_QUOTED_CELL = re.compile(r'"(?:[^"]|"")*"')
_SEPARATOR = re.compile(f"[{re.escape(SEPARATORS)}]")


class Record(NamedTuple):
    """One row: the line on which it starts (from 1) and its cells; a blank line has no cells."""

    line: int
    cells: list[str]

    @property
    def blank(self) -> bool:
        """Whether it holds nothing but separators and white space."""
        return not any(cell.strip() for cell in self.cells)


@dataclass(frozen=True)
class Table:
    """A table as written, its header apart.

    Attributes:
        path: The file.
        separator: Tab, `|` or comma.
        header: The header's cells, stripped, or None where the file has no header.
        records: All rows but the header, in file order, blank lines among them.
    """

    path: Path
    separator: str
    header: tuple[str, ...] | None
    records: tuple[Record, ...]

    @property
    def rows(self) -> tuple[Record, ...]:
        """The rows that are not blank."""
        return tuple(record for record in self.records if not record.blank)

    def cell(self, record: Record, column: int = 1) -> str | None:
        """The raw cell in a column, or None where the row ends before it.

        The last column takes all that follows, since CUIs (ROCO v1) and captions may hold the
        separator unquoted. Without a header the second column is the last one.
        """
        cells = record.cells
        if column >= len(cells):
            return None
        last = max(len(self.header or ()), 2) - 1
        return self.separator.join(cells[column:]) if column == last else cells[column]

    def error(self, line: int, message: str, hint: str = "") -> FormatError:
        """A FormatError that names this file and a line of it."""
        return FormatError(f"{self.path}, line {line}: {message}", hint)


def is_cui(text: str) -> bool:
    """Whether a text is a CUI, in upper or lower case."""
    return CUI.fullmatch(text.upper()) is not None


def read_table(path: Path | str) -> Table:
    """Read a table whatever its separator and header.

    The separator is the first tab, `|` or comma of the first line that has one (a quoted first cell
    is passed over). Comma files follow csv quoting. Other files do so only if all of their
    quotes are well formed; otherwise quotes are plain characters, as in free-text captions.

    The first row is a header if no CUI is in it and either its first cell is a word such as `ID`,
    `image` or `... ID`, or its second cell is a word without digits while the second column
    holds CUIs further down. So `ID,` is a header, and `x,` and `x` are images without concepts.

    Args:
        path: A text file in UTF-8, or a zip that holds one csv file.

    Raises:
        FormatError: The file is missing, empty, binary, too large, not UTF-8, or has an open quote.
    """
    path = Path(path)
    text = read_text(path)
    separator = _find_separator(text)
    try:
        records = _parse(text, separator)
    except csv.Error as error:
        line, message = error.args
        raise FormatError(
            f"{path}, line {line}: {message}", "Check the quotes on that line."
        ) from None
    first = next((i for i, record in enumerate(records) if not record.blank), None)
    if first is None:
        raise FormatError(f"{path} is empty", "Give a file with one row for each image.")
    header = None
    if _is_header(records[first].cells, records[first + 1 :]):
        header = tuple(cell.strip() for cell in records[first].cells)
        records = records[first + 1 :]
    return Table(path, separator, header, tuple(records))


def read_text(path: Path | str) -> str:
    """The text of a file, or of the one csv in a zip, without byte order mark.

    Raises:
        FormatError: The file is missing, binary, too large or not UTF-8.
    """
    _, data = read_source(path)
    if b"\0" in data:
        raise FormatError(f"{path} is a binary file", "Give a text table (csv or tsv) in UTF-8.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, message = explain_decoding(error)
        raise FormatError(f"{path}, line {line}: {message}", "Save the file as UTF-8.") from None
    return text.removeprefix("\ufeff")


def explain_decoding(error: UnicodeDecodeError) -> tuple[int, str]:
    """The line (from 1) of bytes that are not UTF-8, and a message that names the byte."""
    line = error.object.count(b"\n", 0, error.start) + 1
    byte = error.object[error.start]
    return line, f"byte 0x{byte:02x} at offset {error.start} is not UTF-8"


def read_source(path: Path | str) -> tuple[str, bytes]:
    """The bytes of a file, or of the one csv in a zip, with the name of the file that holds them.

    Raises:
        FormatError: The file is missing, a folder, unreadable, too large, or a zip without exactly
            one csv.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise FormatError(f"{path} does not exist", "Check the path.") from None
    except IsADirectoryError:
        raise FormatError(f"{path} is a folder", "Give the table in it, not the folder.") from None
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror})") from None
    name = path.name
    if path.suffix.lower() == ".zip" or data.startswith(b"PK\x03\x04"):
        name, data = _inflate(path, data)
    if len(data) > MAX_BYTES:
        raise FormatError(f"{path} holds more than {MAX_BYTES >> 20} MiB", "Give one table of it.")
    return name, data


def _inflate(path: Path, data: bytes) -> tuple[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
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
        raise FormatError(f"{path} is not a readable zip ({error})", "Zip it again.") from None


def _is_csv_member(name: str) -> bool:
    member = PurePosixPath(name)
    hidden = member.name.startswith(".") or "__MACOSX" in member.parts
    return member.suffix.lower() == ".csv" and not hidden


def parse_csv(
    text: str, separator: str = ",", *, quoted: bool = True, strict: bool = False
) -> list[Record]:
    """All rows of a text, blank lines among them.

    Args:
        text: The whole text.
        separator: Between the cells.
        quoted: Whether csv quoting applies; otherwise quotes are plain characters.
        strict: Whether a quote that closes before its cell ends is an error.

    Raises:
        csv.Error: A quote is never closed, or a cell is too long; the arguments are the line and a
            message.
    """
    # A line of our own at the end tells an open quote from a closed one: an open quote swallows it.
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


def _find_separator(text: str) -> str:
    """The first of tab, `|` and comma in the first line that has one; comma where none has."""
    for line in io.StringIO(text, newline=""):
        quoted = _QUOTED_CELL.match(line)
        found = _SEPARATOR.search(line, quoted.end() if quoted else 0)
        if found:
            return found[0]
    return ","


def _parse(text: str, separator: str) -> list[Record]:
    if separator == ",":
        return parse_csv(text)
    try:
        return parse_csv(text, separator, strict=True)
    except csv.Error:
        return parse_csv(text, separator, quoted=False)


def _is_header(cells: list[str], rest: list[Record]) -> bool:
    if any(_holds_cui(cell) for cell in cells):
        return False
    if _HEADER_WORD.fullmatch(cells[0].strip()):
        return True
    second = cells[1].strip() if len(cells) > 1 else ""
    if not second or any(character.isdigit() for character in second):
        return False
    return any(len(record.cells) > 1 and _holds_cui(record.cells[1]) for record in rest)


def _holds_cui(cell: str) -> bool:
    return any(is_cui(part) for part in CUI_DELIMITERS.split(cell))
