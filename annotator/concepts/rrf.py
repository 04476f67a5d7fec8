"""Streaming readers of UMLS Rich Release Format files.

Source: NLM, UMLS Reference Manual, chapter 3, "Metathesaurus - Rich Release Format (RRF)": one row
a line in UTF-8, each column followed by `|`, without quotes or header. The files have gigabytes, so
rows are streamed; gzip files and the zip archives of the NLM are read as they are.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import zipfile
import zlib
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from annotator.errors import FormatError
from index.progress import track

_BLOCK = 1 << 20  # bytes read at once
_START = 256  # bytes that tell which file it is
_LONGEST = 1 << 20  # bytes of a line; the longest of a release has some thousands
_GZIP, _ZIP, _BOM = b"\x1f\x8b", b"PK\x03\x04", b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Layout:
    """A file of the Metathesaurus.

    Attributes:
        name: Name of the file in a release.
        columns: Names of its columns, in order.
        start: What a row begins with.
    """

    name: str
    columns: tuple[str, ...]
    start: re.Pattern[bytes]


def _layout(name: str, columns: str, start: bytes) -> Layout:
    return Layout(name, tuple(columns.split()), re.compile(start))


MRCONSO = _layout(
    "MRCONSO.RRF",
    "CUI LAT TS LUI STT SUI ISPREF AUI SAUI SCUI SDUI SAB TTY CODE STR SRL SUPPRESS CVF",
    rb"C\d+\|[A-Z]{3}\|[A-Za-z]?\|(L\d+)?\|",
)
MRSTY = _layout("MRSTY.RRF", "CUI TUI STN STY ATUI CVF", rb"C\d+\|T\d{3}\|")
MRREL = _layout(
    "MRREL.RRF",
    "CUI1 AUI1 STYPE1 REL CUI2 AUI2 STYPE2 RELA RUI SRUI SAB SL RG DIR SUPPRESS CVF",
    rb"C\d+\|(A\d+)?\|[A-Z]+\|[A-Z]{2,3}\|C\d+\|",
)
MRHIER = _layout(
    "MRHIER.RRF", "CUI AUI CXN PAUI SAB RELA PTR HCD CVF", rb"C\d+\|A\d+\|\d+\|(A\d+)?\|"
)
LAYOUTS = (MRCONSO, MRSTY, MRREL, MRHIER)


def recognise(path: Path | str) -> Layout | None:
    """Tell which file of the Metathesaurus a file is, by its first line; None for another file.

    Raises:
        FormatError: The file cannot be read.
    """
    path = Path(path)
    start = b""
    with contextlib.closing(_blocks(path, LAYOUTS, silent=True)) as blocks:
        try:
            while len(start) < _START and (block := next(blocks, b"")):
                start += block
        except FormatError:
            if zipfile.is_zipfile(path):
                return None  # of another kind, such as a workbook
            raise
    start = start.removeprefix(_BOM).lstrip()
    return next((layout for layout in LAYOUTS if layout.start.match(start)), None)


def read_rows(
    path: Path | str,
    layout: Layout,
    columns: Sequence[str],
    where: Mapping[str, Collection[str]] | None = None,
) -> Iterator[tuple[str, ...]]:
    """Stream rows of a file of the Metathesaurus, in file order, with progress.

    Blank lines are skipped. Memory does not depend on the size of the file.

    Args:
        path: The file, plain, in gzip, or in a zip beside others.
        layout: What it is.
        columns: Columns to yield, at least one.
        where: Allowed values by column; rows with others are left out.

    Yields:
        The values of `columns`.

    Raises:
        FormatError: The file is missing, is another one, is not UTF-8, or a line has another number
            of columns; the message names the line.
    """
    path = Path(path)
    width = len(layout.columns) + 1  # the part after the last `|` is empty
    position = {name: i for i, name in enumerate(layout.columns)}
    wanted = [position[name] for name in columns]
    pick = itemgetter(*wanted) if len(wanted) > 1 else lambda cells: (cells[wanted[0]],)
    tests = [(position[c], {v.encode() for v in values}) for c, values in (where or {}).items()]
    for number, line in _lines(path, layout):
        cells = line.split(b"|")
        if len(cells) != width or (cells[-1] and cells[-1] != b"\r"):
            if not line.strip():
                continue
            raise _misshapen(path, layout, number, line)
        for i, values in tests:
            if cells[i] not in values:
                break
        else:
            try:
                # Decoded as one text, which is faster than one value after the other.
                yield tuple(b"|".join(pick(cells)).decode().split("|"))
            except UnicodeDecodeError as error:
                raise FormatError(
                    f"{path}, line {number}: byte 0x{error.object[error.start]:02x} is not UTF-8",
                    "Take the file as the release has it, in UTF-8.",
                ) from None


def _misshapen(path: Path, layout: Layout, number: int, line: bytes) -> FormatError:
    found = next((other for other in LAYOUTS if other.start.match(line)), None)
    if found is not None and found is not layout:
        return FormatError(
            f"{path}, line {number}: a row of {found.name}, where {layout.name} is wanted",
            f"Give {layout.name} of the same release.",
        )
    return FormatError(
        f"{path}, line {number}: {line.rstrip().removesuffix(b'|').count(b'|') + 1} columns, where "
        f"{layout.name} has {len(layout.columns)}, each followed by `|`",
        "Check that the file was copied whole.",
    )


def _lines(path: Path, layout: Layout) -> Iterator[tuple[int, bytes]]:
    """Lines with their number, from 1, without line end and byte order mark."""
    number, rest = 1, b""
    with contextlib.closing(_blocks(path, (layout,))) as blocks:
        for block in blocks:
            first, *lines = block.split(b"\n")
            rest += first
            if lines:
                *whole, last = rest, *lines
                if number == 1:
                    whole[0] = whole[0].removeprefix(_BOM)
                yield from zip(itertools.count(number), whole, strict=False)
                number, rest = number + len(whole), last
            if len(rest) > _LONGEST:
                raise FormatError(
                    f"{path}, line {number}: longer than {_LONGEST >> 20} MiB",
                    f"Give {layout.name}, with one row a line.",
                )
    if rest:
        yield number, rest


def _blocks(
    path: Path, layouts: Sequence[Layout], *, silent: bool = False
) -> Generator[bytes, None, None]:
    """The bytes of a file, inflated where it is compressed, a block at a time."""
    try:
        with path.open("rb") as file:
            if not file.seekable():
                raise FormatError(
                    f"{path} is a pipe, and is read more than once", "Give a file; .gz will do."
                )
            magic = file.read(len(_ZIP))
            file.seek(0)
            if magic == _ZIP:
                with _zip_member(file, path, layouts) as (member, size):
                    yield from _read(member, size, path, silent)
            elif magic.startswith(_GZIP):
                yield from _gunzip(_read(file, path.stat().st_size, path, silent), path)
            else:
                yield from _read(file, path.stat().st_size, path, silent)
    except FileNotFoundError:
        raise FormatError(f"{path} does not exist", "Check the path.") from None
    except IsADirectoryError:
        raise FormatError(f"{path} is a folder", "Give the file in it.") from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise FormatError(
            f"{path} is damaged ({error})", "Copy it again, or unpack it and give the file."
        ) from None
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror or error})") from None


def _read(file: BinaryIO, size: int, path: Path, silent: bool) -> Iterator[bytes]:
    blocks = iter(lambda: file.read(_BLOCK), b"")
    if silent:
        yield from blocks
    else:
        label = f"Reading {path.name}"
        yield from track(blocks, total=size, label=label, unit="bytes", size=len)


def _gunzip(blocks: Iterator[bytes], path: Path) -> Iterator[bytes]:
    """Inflate gzip members, some of a block at a time so that a small file cannot fill memory."""
    gzip = zlib.MAX_WBITS | 16
    inflater = zlib.decompressobj(gzip)
    for block in blocks:
        while block:
            if inflater.eof:  # another member, or padding
                block = block.lstrip(b"\0")
                if block:
                    inflater = zlib.decompressobj(gzip)
                continue
            if inflated := inflater.decompress(block, _BLOCK):
                yield inflated
            block = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    if not inflater.eof:
        raise FormatError(f"{path} ends in the middle of the file", "Copy it again.")


@contextlib.contextmanager
def _zip_member(
    file: BinaryIO, path: Path, layouts: Sequence[Layout]
) -> Iterator[tuple[BinaryIO, int]]:
    """Open the one file of a zip that is of a layout, by its name, with its size."""
    with zipfile.ZipFile(file) as archive:
        names = {layout.name for layout in layouts}
        found = [i for i in archive.infolist() if PurePosixPath(i.filename).name.upper() in names]
        if len(found) != 1:
            raise FormatError(
                f"{path} holds {len(found)} files called {' or '.join(sorted(names))}",
                "Unpack it and give the file.",
            )
        with archive.open(found[0]) as member:
            yield member, found[0].file_size  # type: ignore[misc]  # IO[bytes] reads as BinaryIO
