"""Progress: what loops report, and the line of a terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import sys
import termios

import pytest

from index import progress
from index.progress import Work, progress_line, reported_by, track, track_rows


def read_all(screen: int) -> str:
    """What was written to a terminal that is closed on the other side."""
    written = b""
    try:
        while part := os.read(screen, 65536):
            written += part
    except OSError:  # EIO: there is no more
        os.close(screen)
    return written.decode()


def left(shown: str) -> str:
    """What is left to be read of a line on which more than once was written."""
    line = ""
    for part in shown.split("\r"):
        line = part + line[len(part) :]
    return line.rstrip()


class Screen:
    """Takes the place of stderr by a terminal, on which progress is shown at once."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch

    def __enter__(self) -> Screen:
        self.screen, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.terminal = os.fdopen(inside, "w")
        self.patch.setattr(sys, "stderr", self.terminal)
        self.patch.setattr(progress, "_DELAY", 0)
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()
        self.terminal.close()
        self.shown = read_all(self.screen)


def test_blocks_of_rows_count_their_rows() -> None:
    reported: list[tuple[Work, list[int]]] = []

    def remember(items, work):
        items = list(items)
        reported.append((work, [work.size(item) for item in items]))
        return items

    with reported_by(remember):
        assert list(track("ab", total=2, label="Spelling")) == ["a", "b"]
        parts = list(track_rows(10, 4, label="Adding", unit="vectors"))
    assert parts == [slice(0, 4), slice(4, 8), slice(8, 10)]
    (first, ones), (second, sizes) = reported
    assert (first.label, first.total, first.unit, ones) == ("Spelling", 2, "images", [1, 1])
    assert (second.total, second.unit, sizes) == (10, "vectors", [4, 4, 2])


def test_the_line_names_its_units_and_is_erased(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[tuple[str, int]] = []
    with (
        Screen(monkeypatch) as screen,
        progress_line(lambda work, seconds: ended.append((work.label, work.total))),
    ):
        for _ in track([b"12345", b"678"], total=8, label="Reading", unit="letters", size=len):
            pass
        for _ in track(range(3), total=3, label="Folding", unit="folds"):
            pass
    assert ended == [("Reading", 8), ("Folding", 3)]
    shown = screen.shown
    assert "Reading   0% |" in shown and " 0 of 8 letters, " in shown and "0 of 3 folds, " in shown
    assert left(shown) == ""


def test_an_error_erases_the_line_before_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        Screen(monkeypatch) as screen,
        pytest.raises(ValueError, match="wrong") as caught,
        progress_line(),
    ):
        for item in track(range(3), total=3, label="Working"):
            if item == 1:
                raise ValueError("wrong")
    assert caught.traceback  # the loop is still held by it
    assert "Working" in screen.shown and left(screen.shown) == ""


def test_without_a_terminal_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(progress, "_DELAY", 0)
    with progress_line():
        assert list(track(range(3), total=3, label="Working")) == [0, 1, 2]
    assert sys.stderr.getvalue() == ""
