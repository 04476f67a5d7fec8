"""Plain-text tables, fitted to the width of the terminal where there is one."""

from __future__ import annotations

import contextlib
import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

Row = Sequence[str | int | float]

INDENT = 2  # of a section
_LEAST = 10  # characters that are left of a text

_limit: ContextVar[int | None] = ContextVar("limit", default=None)


@contextlib.contextmanager
def fitted_to(width: int | None) -> Iterator[None]:
    """Fit the tables made inside the `with` block to a width in characters; None for no limit."""
    token = _limit.set(width)
    try:
        yield
    finally:
        _limit.reset(token)


def columns(
    header: Sequence[str], rows: Sequence[Row], *, decimals: int = 4, whole: str | None = None
) -> list[str]:
    """Lay out a table: text flush left, numbers flush right.

    To fit the terminal (`fitted_to`), long texts are cut and columns brought closer together, but
    numbers and the texts that name the rows stay whole.

    Args:
        header: Column names.
        rows: Cells of each row, with one type per column.
        decimals: Decimals of floats.
        whole: Name of the column that names the rows; None for the first one of text.

    Returns:
        Lines of the header and the rows, without trailing white space.
    """
    cells = [list(header), *([_format(value, decimals) for value in row] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    is_text = [isinstance(value, str) for value in rows[0]] if rows else [True] * len(header)
    gap = 2
    if (limit := _limit.get()) is not None:
        texts = [column for column, text in enumerate(is_text) if text]
        named = texts[:1] if whole is None else [header.index(whole)]
        widths, gap = _fit(widths, [t for t in texts if t not in named], limit - INDENT)
    return [
        (" " * gap)
        .join(
            _pad(_cut(cell, width), width, left=text)
            for cell, width, text in zip(row, widths, is_text, strict=True)
        )
        .rstrip()
        for row in cells
    ]


def section(title: str, lines: Sequence[str]) -> list[str]:
    """Render a titled, indented block after an empty line."""
    return ["", title, *(f"{'':{INDENT}}{line}" for line in lines)]


def _fit(widths: Sequence[int], texts: Sequence[int], limit: int) -> tuple[list[int], int]:
    """Widths of the columns, and the gap between them, that fit `limit` as far as possible.

    Args:
        widths: Wanted widths.
        texts: The columns that may be cut; the widest are cut first.
        limit: Characters of a line.
    """
    most = max([_LEAST, *(widths[column] for column in texts)])
    for gap, cap in itertools.product((2, 1), range(most, _LEAST - 1, -1)):
        fitted = [min(w, cap) if column in texts else w for column, w in enumerate(widths)]
        if sum(fitted) + gap * (len(widths) - 1) <= limit:
            break
    return fitted, gap


def _format(value: str | int | float, decimals: int) -> str:
    if isinstance(value, float):
        return f"{value:.{decimals}f}"
    return f"{value:,}" if isinstance(value, int) else value


def _width(text: str) -> int:
    """Columns of a terminal that a text takes: East Asian letters take two."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _pad(text: str, width: int, *, left: bool) -> str:
    blanks = " " * (width - _width(text))
    return text + blanks if left else blanks + text


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    kept = text[:width]
    while _width(kept) >= width:
        kept = kept[:-1]
    return f"{kept.rstrip()}…"
