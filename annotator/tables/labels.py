"""Labels of images, in whatever layout a table has them.

`read_labels` is the one reader of labelled tables. It takes what it understands for certain, says
in one line how (`Labels.understood`), and refuses the rest with the cause and the way out.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from annotator.concept_ids import concept_id, is_cui
from annotator.errors import FormatError
from annotator.tables.cells import (
    MISSING,
    NO,
    SEPARATORS,
    UNSURE,
    YES,
    cuis_in,
    fault_of,
    list_of,
    separator_of,
    split_labels,
    unquoted,
)
from annotator.tables.label_studio import Export, export_of_sheet, read_export
from annotator.tables.layout import COLUMN_HINT, Layout
from annotator.tables.sheet import Sheet, read_sheet
from annotator.tables.table import Record

_MADE_A_NUMBER = re.compile(r"[0-9]+\.0+|[0-9]+(?:[.,][0-9]+)?E\+?[0-9]+", re.IGNORECASE)
_SHOWN = 5  # names of columns in a message


@dataclass(frozen=True)
class Labels:
    """Labels of images, as concepts.

    Attributes:
        concepts: Concept ids by image id, in file order; an image without labels has ().
        names: The words, as first spelt, by the local id of each label that is no CUI.
        understood: How the table was read, in one line.
        path: The table.
        lines: The last line of each image, by its id; empty where there are no lines.
        shown: Whether labels are what a program has shown to people, who chose: names of concepts
            rather than words of their own (`annotator.concepts.names.resolved`).
    """

    concepts: Mapping[str, tuple[str, ...]]
    names: Mapping[str, str] = field(default_factory=dict)
    understood: str = ""
    path: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)
    shown: bool = False


def read_labels(
    path: Path | str,
    *,
    column: str | Sequence[str] | None = None,
    mapping: Mapping[str, Sequence[str]] | None = None,
) -> Labels:
    """Read the labels of each image: CUIs, words, or both.

    A row is an image with a list of labels (joined by `;`, `|` or `,`, or as Python or JSON write
    it), an image with a cell for each label (0 and 1, yes and no, x and blank), or an image with
    one label, of which it has several rows. Columns are found by their names and by what is in
    them; without a header, the first is the id. The exports of Label Studio are read, too.

    Args:
        path: A table of any kind that `annotator.tables.sheet.read_sheet` reads, or an export.
        column: Name of the column of labels, or of several, if it is not to be found.
        mapping: Concept ids by the local id of a label in words, as
            `annotator.concepts.mapping.read_mapping` reads them. A label that is mapped to nothing
            keeps its local id.

    Raises:
        FormatError: The file is no table, its layout is not certain, an image is there twice, or a
            cell holds something else than labels.
    """
    chosen = [column] if isinstance(column, str) else column or ()
    if (export := read_export(path, chosen)) is not None:
        return _of_export(str(path), export, mapping)
    return labels_of(read_sheet(path), chosen, mapping)


def labels_of(
    sheet: Sheet,
    column: Sequence[str] = (),
    mapping: Mapping[str, Sequence[str]] | None = None,
) -> Labels:
    """The labels in a table that is read already; as `read_labels`."""
    if (export := export_of_sheet(sheet, column)) is not None:
        return _of_export(str(sheet.path), export, mapping)
    return _Reader(Layout(sheet, column), mapping or {}).read()


def _of_export(path: str, export: Export, mapping: Mapping[str, Sequence[str]] | None) -> Labels:
    labels = labels_of_lists(path, export.labels, mapping)
    amounts = _amounts(labels.concepts, labels.names)
    understood = f"{path}: {amounts}, an export of Label Studio ({export.kind})"
    return replace(labels, understood="; ".join([understood, *export.notes]), shown=True)


def labels_of_lists(
    where: str,
    lists: Mapping[str, Sequence[str]],
    mapping: Mapping[str, Sequence[str]] | None = None,
) -> Labels:
    """The labels in lists, as a Parquet file with images has them.

    Args:
        where: The file, for messages.
        lists: Labels by image id.
        mapping: As for `read_labels`.

    Raises:
        FormatError: A text is no label.
    """
    found: dict[str, tuple[str, ...]] = {}
    names: dict[str, str] = {}
    for image, labels in lists.items():
        ids: list[str] = []
        for label in (label for text in labels for label in split_labels(text.strip(), "")):
            fault, hint = fault_of(label, among_cuis=True)
            if fault:
                raise FormatError(f"{where}, image {image!r}: {_short(label)} {fault}", hint)
            id_ = concept_id(label)
            mapped = (mapping or {}).get(id_)
            ids += mapped or [id_]
            if not (mapped or is_cui(id_)):
                names.setdefault(id_, label)
        found[image] = tuple(dict.fromkeys(ids))
    return Labels(found, names, f"{where}: {_amounts(found, names)}, in lists", where)


def _amounts(concepts: Mapping[str, Sequence[str]], names: Mapping[str, str]) -> str:
    """How many images and labels there are, and how many of these are no CUIs."""
    n = len({id_ for ids in concepts.values() for id_ in ids})
    words = f" ({len(names):,} of them in words)" if names else ""
    if len(names) == n:
        words = " in words"
    return (
        f"{len(concepts):,} image{'s' * (len(concepts) != 1)}, {n:,} label{'s' * (n != 1)}{words}"
    )


class _Reader:
    """Reads the cells of one table."""

    def __init__(self, layout: Layout, mapping: Mapping[str, Sequence[str]]) -> None:
        self.layout, self.mapping = layout, mapping
        self.sheet, self.columns = layout.sheet, layout.columns
        self.notes: list[str] = []
        self.names: dict[str, str] = {}
        self.ids: dict[str, str] = {}  # concept id by label
        self.images = [self._id(row) for row in layout.rows]

    def read(self) -> Labels:
        kinds = {self.layout.kinds[column] for column in self.columns}
        if "binary" in kinds and len(kinds) > 1:
            raise FormatError(
                f"{self.sheet.path} has yes and no in one column of labels, lists in another",
                "Name columns of one kind.",
            )
        found, how = self._one_hot() if "binary" in kinds else self._lists()
        if not any(found.values()):
            raise FormatError(
                f"{self.sheet.path} has no labels in {self.layout.called(self.columns)}",
                COLUMN_HINT.format("NAME"),
            )
        concepts = self._mapped(found)
        known = {id_ for ids in concepts.values() for id_ in ids}
        names = {id_: name for id_, name in self.names.items() if id_ in known}
        text = f"{self.sheet.path}: {_amounts(concepts, names)}, {how}{self._where()}"
        understood = "; ".join([text, *self.sheet.notes, *self.notes])
        rows = zip(self.images, self.layout.rows, strict=True)
        lines = {image: row.line for image, row in rows}
        return Labels(concepts, names, understood, str(self.sheet.path), lines)

    def _where(self) -> str:
        """Where labels, and ids, were found."""
        layout = self.layout
        if layout.id_column != 0:
            self.notes.append(f"ids in {layout.called([layout.id_column])}")
        if unread := layout.unread():
            more = ", …" if len(unread) > _SHOWN else ""
            self.notes.append(f"not read: {', '.join(unread[:_SHOWN])}{more}")
        of_lists = layout.kinds[self.columns[0]] != "binary"
        return f", in {layout.called(self.columns)}" if layout.header and of_lists else ""

    def _mapped(self, found: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        mapped = {id_ for ids in found.values() for id_ in ids if self.mapping.get(id_)}
        if mapped:
            self.notes.append(f"{len(mapped):,} labels by their mapping")
        return {
            image: tuple(dict.fromkeys(m for id_ in ids for m in self.mapping.get(id_) or (id_,)))
            for image, ids in found.items()
        }

    # A column for each label

    def _one_hot(self) -> tuple[dict[str, list[str]], str]:
        headings = [self.layout.name(column) for column in self.columns]
        among_cuis = 2 * sum(map(is_cui, headings)) >= len(headings)
        line = self.sheet.records[0].line
        ids = [self._label(line, heading, among_cuis=among_cuis) for heading in headings]
        if repeated := [id_ for id_, n in Counter(ids).items() if n > 1]:
            raise FormatError(
                f"{self.sheet.path} has several columns of the label {repeated[0]!r}",
                "Keep one column for each label.",
            )
        found: dict[str, list[str]] = {}
        unsure: Counter[str] = Counter()
        self._check_unique()
        for image, row in zip(self.images, self.layout.rows, strict=True):
            cells = [self._cell(row, column).lower() for column in self.columns]
            unsure.update(cell for cell in cells if cell in UNSURE)
            found[image] = [id_ for id_, cell in zip(ids, cells, strict=True) if cell in YES]
        if unsure:
            shown = ", ".join(sorted(unsure))
            self.notes.append(f"{unsure.total():,} uncertain cells ({shown}) read as no")
        signs: Counter[str] = Counter()
        for column in self.columns:
            signs.update(self.layout.counts(column))
        shown = ", ".join([sign for sign, _ in signs.most_common() if sign in YES | NO][:4])
        return found, f"a column for each label ({shown})"

    # Lists, and a row for each label

    def _lists(self) -> tuple[dict[str, list[str]], str]:
        separators = {column: self._separator(column) for column in self.columns}
        cells = [
            [label for column in self.columns for label in self._split(row, column, separators)]
            for row in self.layout.rows
        ]
        counts = Counter(label for labels in cells for label in labels)
        self._note_missing()
        self._check_separators(counts, separators)
        n_cuis = sum(n for label, n in counts.items() if is_cui(label))
        among_cuis = 2 * n_cuis >= counts.total()
        concepts = [
            [self._label(row.line, label, among_cuis=among_cuis) for label in labels]
            for row, labels in zip(self.layout.rows, cells, strict=True)
        ]
        is_long = len(self.columns) == 1 and self._is_long(concepts)
        if not is_long:
            self._check_unique()
        found: dict[str, list[str]] = {}
        for image, ids in zip(self.images, concepts, strict=True):
            found.setdefault(image, []).extend(ids)
        return found, "one row a label" if is_long else self._how(separators)

    def _split(self, row: Record, column: int, separators: Mapping[int, str]) -> list[str]:
        cell = self._cell(row, column)
        try:
            return split_labels(cell, separators[column])
        except ValueError as error:
            message = f"{_short(cell)}: {error}"
            raise self.sheet.error(row.line, message, "Join labels by `;`.") from None

    def _separator(self, column: int) -> str:
        try:
            return separator_of(filter(None, self._cells(column)))
        except ValueError:
            return ";"  # the cell that is no list is named when it is split

    def _cells(self, column: int) -> Iterable[str]:
        return (row.cell(column) for row in self.layout.rows)

    def _how(self, separators: Mapping[int, str]) -> str:
        """How labels are joined in a cell."""
        for column, separator in separators.items():
            cells = [cell for cell in self._cells(column) if cell]
            if any(list_of(cell) for cell in cells):
                return "in lists"
            joined = [cell for cell in cells if cuis_in(cell)]
            signs = separator or SEPARATORS + " "
            if sign := next((s for s in signs if separator or any(s in c for c in joined)), ""):
                return f"separated by {sign!r}"
        return "one label each"

    def _note_missing(self) -> None:
        missing = Counter(
            cell
            for column in self.columns
            for cell in self._cells(column)
            if cell and cell.casefold() in MISSING
        )
        if missing:
            shown = ", ".join(repr(cell) for cell, _ in missing.most_common(2))
            self.notes.append(f"{missing.total():,} cells such as {shown} read as no label")

    def _check_separators(self, counts: Mapping[str, int], separators: Mapping[int, str]) -> None:
        """Refuse two separators in a column: a label whose parts by another are labels, too."""
        known = {label.casefold() for label in counts}
        for label in counts:
            for sign in filter(label.__contains__, SEPARATORS):
                if not known.issuperset(part.strip().casefold() for part in label.split(sign)):
                    continue
                line, own = next(
                    (row.line, own)
                    for row in self.layout.rows
                    for column, own in separators.items()
                    if label in split_labels(row.cell(column), own)
                )
                raise self.sheet.error(
                    line,
                    f"{_short(label)} holds {sign!r} between labels, {own!r} separates others",
                    "Use one separator.",
                )

    def _is_long(self, concepts: Sequence[Sequence[str]]) -> bool:
        """Whether each row is one label of an image, rather than an image.

        A file of images may have one twice by mistake, which is not to be taken for two labels. So
        each row must have one label, no pair may be there twice (unless other columns differ), and
        rows that repeat an id must be many, unless the column's name is in the singular.
        """
        rows, ids = self.layout.rows, self.images
        times = Counter(ids)
        if len(times) == len(ids):
            return False
        pairs = [(id_, *labels) for id_, labels in zip(ids, concepts, strict=True)]
        if any(len(pair) > 2 or (len(pair) < 2 and times[pair[0]] > 1) for pair in pairs):
            return False
        whole = {(pair, *row.cells) for pair, row in zip(pairs, rows, strict=True)}
        if len(whole) < len(rows):
            return False
        blocks = 1 + sum(a != b for a, b in pairwise(ids))
        often = 1.2 if blocks == len(times) else 2.0
        if not self.layout.is_singular(self.columns[0]) and len(ids) < often * len(times):
            return False
        if flags := self.layout.flags():
            raise FormatError(
                f"{self.sheet.path} has a row for each label, and yes and no in the column "
                f"{self.layout.name(flags[0])!r}",
                "Keep the rows of labels that are there, and leave that column out.",
            )
        return True

    # Ids and labels

    def _label(self, line: int, label: str, *, among_cuis: bool) -> str:
        """The concept id of a label."""
        if label not in self.ids:
            fault, hint = fault_of(label, among_cuis=among_cuis)
            if fault:
                raise self.sheet.error(line, f"{_short(label)} {fault}", hint)
            self.ids[label] = concept_id(label)
            if not is_cui(label):
                self.names.setdefault(self.ids[label], " ".join(label.split()))
        return self.ids[label]

    def _check_unique(self) -> None:
        """Check that each row is another image."""
        lines: dict[str, int] = {}
        for image, row in zip(self.images, self.layout.rows, strict=True):
            first = lines.setdefault(image, row.line)
            if first != row.line:
                raise self.sheet.error(
                    row.line,
                    f"the id {image!r} is on line {first} already",
                    "Keep one row for each image, with its labels joined by `;`.",
                )

    def _id(self, row: Record) -> str:
        id_ = self._cell(row, self.layout.id_column)
        if not id_.isascii():
            id_ = "".join(c for c in id_ if unicodedata.category(c) != "Cf").strip()
        id_ = unquoted(id_)
        if not id_:
            where = self.layout.called([self.layout.id_column])
            hint = f"Give the id of its image in {where}, in every row."
            raise self.sheet.error(row.line, "the row has no image id", hint)
        if _MADE_A_NUMBER.fullmatch(id_):
            raise self.sheet.error(
                row.line,
                f"{id_!r} is a number that a program made of the id",
                "Keep ids as text (pandas: read_csv(..., dtype=str); Excel: a column of text).",
            )
        # Its own separator can only be in an id on purpose, in quotes; another joins a label to it.
        others = "\t|;,".replace(self.sheet.separator, "") if self.sheet.separator else ""
        if any(sign in id_ for sign in others):
            raise self.sheet.error(
                row.line,
                f"{_short(id_)}, an id, holds a separator other than {self.sheet.separator!r}",
                "Separate all rows alike, and leave separators out of ids.",
            )
        return id_

    def _cell(self, row: Record, column: int) -> str:
        """A cell that is needed.

        Raises:
            FormatError: What is in it is in doubt.
        """
        if doubt := self.sheet.doubts.get((row.line, column)):
            raise self.sheet.error(row.line, f"{_short(row.cell(column))} is {doubt}")
        return row.cell(column)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}…")
