"""Pandas tables as rows of cells, for the reader of labelled tables."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from annotator.errors import FormatError
from annotator.tables.sheet import Sheet
from annotator.tables.table import Record
from annotator.tables.workbook import plain_text

if TYPE_CHECKING:
    import pandas as pd


def sheet_of_frame(frame: pd.DataFrame) -> Sheet:
    """The rows of a table of pandas, the names of its columns first; for `labels_of`.

    The index is the first column if it has a name or is of texts. Cells may hold lists or sets.

    Raises:
        FormatError: There are no rows.
    """
    if not len(frame):
        raise FormatError("The DataFrame is empty", "Give one row for each image.")
    header = [str(name) for name in frame.columns]
    cells = [list(map(_text, row)) for row in frame.astype(object).itertuples(False, None)]
    index = frame.index
    if index.name is not None or index.inferred_type == "string":
        header.insert(0, "ID" if index.name is None else str(index.name))
        for row, value in zip(cells, index.tolist(), strict=True):
            row.insert(0, _text(value))
    records = [Record(line, row) for line, row in enumerate([header, *cells], start=1)]
    return Sheet(Path("the DataFrame"), tuple(records), "")


def _text(value: Any) -> str:
    if isinstance(value, Set):
        return plain_text(sorted(value, key=str))
    if isinstance(value, (list, tuple, np.ndarray)):
        return plain_text(list(value))
    is_missing = value is None or value != value  # NaN and NaT differ from themselves
    return "" if is_missing is True else plain_text(value)
