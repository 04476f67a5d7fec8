"""The words of a labelled table or of a list, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from annotator.concept_ids import concept_id, is_cui
from annotator.errors import FormatError
from annotator.tables.labels import Labels, labels_of
from annotator.tables.sheet import Sheet, read_sheet

_HEADER = ("word", "label", "finding", "term", "concept")


def count_words(path: Path | str, *, column: Sequence[str] = ()) -> tuple[dict[str, int], str]:
    """Count the labels that are words, not CUIs, in a labelled table or in a list of words.

    A file is a list if most of its rows have one cell: each row is then a word, even with commas.
    Words that have one local id (`annotator.concept_ids`) are one word, as it is written first.

    Args:
        path: A labelled table of any layout (`annotator.tables.labels`), or a list.
        column: Names of the columns of labels of a table, if they are not to be found.

    Returns:
        How often each word occurs, and a line that says what was read.

    Raises:
        FormatError: The file cannot be read, or has no words.
    """
    sheet = read_sheet(path)
    several = sum(len(cells) > 1 for _, cells in sheet.records)
    if not column and several * 2 < len(sheet.records):
        words, understood = _count_list(sheet)
    else:
        labels = labels_of(sheet, column)
        words, understood = _count_labels(labels), labels.understood
    if not words:
        raise FormatError(f"{path} has no labels in words", "CUIs need no matching.")
    return words, understood


def _count_labels(labels: Labels) -> dict[str, int]:
    counts = Counter(id_ for ids in labels.concepts.values() for id_ in ids)
    return {word: counts[id_] for id_, word in labels.names.items()}


def _count_list(sheet: Sheet) -> tuple[dict[str, int], str]:
    rows = [f"{sheet.separator} ".join(cells) for _, cells in sheet.records]
    if rows[0].casefold().removesuffix("s") in _HEADER:
        del rows[0]
    spelt: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for row in rows:
        word = " ".join(row.split())
        if not is_cui(word):
            counts[spelt.setdefault(concept_id(word), word)] += 1
    return dict(counts), f"{sheet.path}: a list of {len(rows):,} words, {len(counts):,} different"
