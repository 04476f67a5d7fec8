"""The plan as Markdown, and its place in a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.scale.figures import Figure
from benchmarks.scale.plan import FOLDERS, GROUPS, ROWS, Column, Unit, names, render

BEGIN = "<!-- python -m benchmarks.scale --write docs/scale.md: begin -->"
END = "<!-- end -->"


class NoPlace(Exception):
    """A document without the two marks, in this order, each on a line of its own."""


def markdown(figures: Mapping[str, Figure], plan: Sequence[Column]) -> str:
    """Both tables: the figures, and what follows from them."""
    return f"{_figures(figures)}\n\n{_plan(figures, plan)}\n"


def replaced(document: str, tables: str) -> str:
    """The document with the tables between its marks.

    Raises:
        NoPlace: It has none.
    """
    lines = document.split("\n")
    if lines.count(BEGIN) != 1 or lines.count(END) != 1 or lines.index(END) < lines.index(BEGIN):
        raise NoPlace(f"the lines {BEGIN!r} and {END!r} are not there once each, in this order")
    before, after = lines[: lines.index(BEGIN) + 1], lines[lines.index(END) :]
    return "\n".join([*before, "", *tables.strip().split("\n"), "", *after])


def _figures(figures: Mapping[str, Figure]) -> str:
    lines = [
        "M: measured, in benchmarks/results/, unless it says otherwise. A: assumed.",
        "",
        "| | figure | | from |",
        "| --- | --- | ---: | --- |",
    ]
    first: dict[str, str] = {}
    for figure in figures.values():
        key = first.setdefault(figure.source, figure.key)
        source = figure.source if key == figure.key else f"as {key}"
        lines.append(f"| {figure.key} | {figure.what} | {_shown(figure)} | {source} |")
    return "\n".join(lines)


def _plan(figures: Mapping[str, Figure], plan: Sequence[Column]) -> str:
    lines = [
        "| | | = | from | " + " | ".join(f"{column.n:,} images" for column in plan) + " |",
        "| ---: | --- | --- | --- |" + " ---: |" * len(plan),
    ]
    numbers = {row.name: number for number, row in enumerate(ROWS, 1)}
    shown = {name: _shown(figure) for name, figure in figures.items()}
    shown |= {name: f"({number})" for name, number in numbers.items()} | {"n": "n"}
    for title, rows in GROUPS.items():
        kinds = [f"auto: {' / '.join(dict.fromkeys(column.kinds))}" for column in plan]
        notes = kinds if title == FOLDERS else [""] * len(plan)
        lines.append(f"| | **{title}** | | | {' | '.join(notes)} |")
        for row in rows:
            keys = " ".join(figures[name].key for name in names(row.formula) if name in figures)
            cells = " | ".join(_cell(column.values[row.name], row.unit) for column in plan)
            formula = render(row.formula, shown)
            lines.append(f"| {numbers[row.name]} | {row.what} | {formula} | {keys} | {cells} |")
    return "\n".join(lines)


def _shown(figure: Figure) -> str:
    return figure.shown or _short(figure.value)


def _cell(value: float, unit: Unit) -> str:
    if unit == "seconds":
        return _duration(value)
    if unit == "bytes":
        return _size(value)
    if unit == "speed":
        return f"{_size(value)}/s"
    if unit == "nodes" and value > 1:
        return f"{value:,.0f} \\*"
    return _short(value)


def _short(value: float) -> str:
    """Three digits or so."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.2g}"


def _duration(seconds: float) -> str:
    for unit, length, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 259_200)):
        if seconds < most:
            return f"{seconds / length:.{0 if seconds / length >= 10 else 1}f} {unit}"
    return f"{seconds / 86_400:,.{0 if seconds >= 864_000 else 1}f} days"


def _size(size: float) -> str:
    for unit, length in (("MiB", 2**20), ("GiB", 2**30)):
        if size < 1024 * length:
            return f"{size / length:,.{0 if size >= 10 * length else 1}f} {unit}"
    return f"{size / 2**40:,.{0 if size >= 10 * 2**40 else 1}f} TiB"
