"""Plain-text tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

Row = Sequence[str | int | float]

MAX_WIDTH = 48  # characters of a cell


def columns(
    header: Sequence[str],
    rows: Sequence[Row],
    *,
    decimals: int = 4,
    max_width: int | None = MAX_WIDTH,
) -> list[str]:
    """Lay out a table: text flush left, numbers flush right.

    Args:
        header: Column names.
        rows: Cells of each row, with one type per column.
        decimals: Decimals of floats.
        max_width: Maximum width of a cell, which is cut; None for no limit.

    Returns:
        Lines of the header and the rows, without trailing white space.
    """
    cells = [list(header), *([_format(value, decimals) for value in row] for row in rows)]
    if max_width is not None:
        cells = [[_cut(cell, max_width) for cell in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    is_text = [isinstance(value, str) for value in rows[0]] if rows else [True] * len(header)
    return [
        "  ".join(
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(row, widths, is_text, strict=True)
        ).rstrip()
        for row in cells
    ]


def section(title: str, lines: Sequence[str]) -> list[str]:
    """Render a titled, indented block after an empty line."""
    return ["", title, *(f"  {line}" for line in lines)]


def _format(value: str | int | float, decimals: int) -> str:
    if isinstance(value, float):
        return f"{value:.{decimals}f}"
    return f"{value:,}" if isinstance(value, int) else value


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
