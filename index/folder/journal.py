"""The journal of corrections that were accepted and are not published yet.

    DIR/journal.jsonl    "<crc32> <JSON list of corrections>", a line for all that came together

A line is synced before anybody is told that its corrections were accepted. So only the last one can
be incomplete, of corrections that nobody was told of.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from index.corrections import Correction
from index.errors import IndexProblem
from index.sync import sync

JOURNAL = "journal.jsonl"


class Journal:
    """The journal beside an index, for its only writer. Use as a context manager.

    What an interrupted writer has left of a last line is cut off when it is opened.

    Args:
        folder: The index.

    Attributes:
        left: What it held when it was opened, oldest first.

    Raises:
        IndexProblem: It is damaged before its last line.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self.left, self._size = _read(self._path)
            os.ftruncate(self._file, self._size)
            os.fsync(self._file)
            sync(folder)
        except BaseException:
            os.close(self._file)
            raise
        self._waiting = list(self.left)

    @staticmethod
    def is_empty(folder: Path) -> bool:
        """Whether nothing waits in the journal of an index; without opening it."""
        path = folder / JOURNAL
        return not path.exists() or path.stat().st_size == 0

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def append(self, corrections: Sequence[Correction]) -> None:
        """Write corrections with a single sync; when it returns they outlive this process.

        Raises:
            OSError: They were not written, and the journal is as before.
        """
        line = _line(corrections)
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(line)
        self._waiting += corrections

    def drop(self, through: int) -> None:
        """Forget the corrections up to a number, which are published."""
        self._waiting = [one for one in self._waiting if one.number > through]
        line = _line(self._waiting) if self._waiting else b""
        temporary = self._path.with_name(f".{JOURNAL}.new")
        temporary.unlink(missing_ok=True)
        file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            written = 0
            while written < len(line):
                written += os.write(file, line[written:])
            os.fsync(file)
            temporary.replace(self._path)
        except BaseException:
            os.close(file)
            raise
        os.close(self._file)
        self._file, self._size = file, len(line)
        sync(self._path.parent)


def _line(corrections: Iterable[Correction]) -> bytes:
    """A line of the journal; nothing in it but ASCII."""
    raw = json.dumps([one.to_dict(with_row=True) for one in corrections]).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(raw), raw)


def _read(path: Path) -> tuple[list[Correction], int]:
    """The corrections in a journal, and the bytes of its complete lines."""
    found: list[Correction] = []
    size = 0
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        digest, _, raw = line.rstrip(b"\n").partition(b" ")
        if not line.endswith(b"\n") or digest != b"%08x" % zlib.crc32(raw):
            if number == len(lines):
                break
            raise IndexProblem(
                f"{path}, line {number} has changed since it was written.",
                "Restore the file from a copy, or delete that line: its corrections are lost.",
            )
        found += [Correction.from_dict(fields) for fields in json.loads(raw)]
        size += len(line)
    return found, size
