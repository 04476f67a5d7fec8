"""The words of a labelled table or of a list, counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from annotator.concept_ids import concept_id, is_cui
from annotator.errors import FormatError
from annotator.tables.table import read_table

_HEADER = ("word", "label", "finding", "term", "concept")


def count_words(path: Path | str) -> tuple[dict[str, int], str]:
    """Count the labels that are words, not CUIs, in a labelled table or in a list of words.

    A file is a list if most of its rows have one cell: each row is then a word, even with commas.
    Words that have one local id (`annotator.concept_ids`) are one word, as it is written first.

    Returns:
        How often each word occurs, and a line that says what was read.

    Raises:
        FormatError: The file cannot be read, or has no words.
    """
    table = read_table(path)
    rows = [record.cells for record in table.rows]
    if not rows or sum(len(cells) > 1 for cells in rows) * 2 >= len(rows):
        raise FormatError(f"{path} is no list of words", "Give one word a line.")
    labels = [" ".join(table.separator.join(cells).split()) for cells in rows]
    if table.header is None and labels[0].casefold().removesuffix("s") in _HEADER:
        del labels[0]
    counts, understood = Counter(labels), f"{path}: a list of {len(labels):,} words"
    words: dict[str, str] = {}
    found: Counter[str] = Counter()
    for label, count in counts.items():
        if not is_cui(label):
            found[words.setdefault(concept_id(label), label)] += count
    if not found:
        raise FormatError(f"{path} has no labels in words", "CUIs need no matching.")
    return dict(found), f"{understood}, {len(found):,} different"
