"""Runs of caption prediction, `ID,Caption`, by the rules of the task."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from annotator.errors import FormatError
from annotator.tables.formats import read_captions, read_rows
from annotator.tables.run import check_id

HEADER = ("ID", "Caption")


def render_captions(rows: Iterable[tuple[str, str]]) -> str:
    r"""Render a run, with `\n` line ends, one line per image.

    White space in a caption, including line ends, is collapsed, since the submission check reads
    line by line and rejects outer white space.

    Raises:
        FormatError: Invalid id (`annotator.tables.run.check_id`).
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    seen: set[str] = set()
    for image_id, caption in rows:
        check_id(image_id, seen)
        writer.writerow((image_id, " ".join(caption.split())))
    return text.getvalue()


def read_caption_run(path: Path | str) -> dict[str, str]:
    """Read the caption of each image of a run, stripped, in file order; the header is optional.

    Raises:
        FormatError: The file cannot be read as a table, an id is repeated, or a row has no caption
            column (an empty caption has its separator).
    """
    for row in read_rows(path):
        if row.cell is None:
            raise FormatError(
                f"{path}, line {row.line}: the row of {row.id!r} has no second column",
                "Write a comma after the id, even where there is no caption.",
            )
    return read_captions(path)
