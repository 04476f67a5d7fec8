"""Plain-text tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

Row = Sequence[str | int | float]

MAX_WIDTH = 48  # of a cell; longer ones are cut


def columns(header: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Lines of a table: texts to the left, numbers to the right, floats with four digits.

    Args:
        header: The columns' names.
        rows: Cells, as many in each row as the header has; a column holds one type.

    Returns:
        The header's line and one for each row, without trailing white space.
    """
    cells = [[_shorten(name) for name in header]]
    cells += [[_shorten(_show(value)) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [bool(rows) and not isinstance(value, str) for value in rows[0]] if rows else []
    right += [False] * (len(header) - len(right))
    return [
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]


def section(title: str, lines: Sequence[str]) -> list[str]:
    """A titled, indented block after an empty line."""
    return ["", title, *(f"  {line}" for line in lines)]


def _show(value: str | int | float) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else value


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_WIDTH else f"{text[: MAX_WIDTH - 1]}…"
