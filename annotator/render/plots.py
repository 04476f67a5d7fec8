"""Plots in files: the same data give the same bytes with the same version of matplotlib."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from annotator.errors import FormatError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What a file of each kind would say of when and by what it was written.
_UNDATED = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def check_plot(path: Path | str) -> str:
    """The kind of file that a plot is written to: png, svg or pdf.

    Raises:
        FormatError: It has another extension.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in _UNDATED:
        raise FormatError(f"{path}: no plot of that kind", f"Choose one of {', '.join(_UNDATED)}.")
    return kind


@contextlib.contextmanager
def plotted(path: Path | str, size: tuple[float, float]) -> Iterator[Figure]:
    """An empty figure, which is written to `path` after the `with` block.

    Args:
        path: Output file: `.png`, `.svg` or `.pdf`.
        size: Width and height in inches.

    Raises:
        FormatError: As `check_plot`.
    """
    kind = check_plot(path)
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "annotator", "font.size": 10}):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        figure.savefig(path, format=kind, dpi=150, metadata=_UNDATED[kind])
