"""Corrections of labels as tables: new labels of images, or what to add to and take from them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from annotator.errors import FormatError
from annotator.tables.label_studio import read_export
from annotator.tables.labels import Labels, labels_of, read_labels
from annotator.tables.sheet import Sheet, read_sheet
from annotator.tables.table import Record

_ADD, _REMOVE, _REASON = "add", "remove", "reason"


@dataclass(frozen=True)
class WantedLabels:
    """What the concepts of an image are to be.

    Attributes:
        concepts: All of them; None for the present ones, with `add` and without `remove`.
        add: Concepts that the image has.
        remove: Concepts that it does not have.
        reason: Why; "" if nobody says so.
    """

    concepts: tuple[str, ...] | None = None
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    reason: str = ""

    def of(self, present: Collection[str]) -> tuple[str, ...]:
        """The concepts of an image that has the present ones, ascending."""
        if self.concepts is not None:
            return tuple(sorted(set(self.concepts)))
        return tuple(sorted({*present, *self.add} - set(self.remove)))


@dataclass(frozen=True)
class CorrectionTable:
    """A table of corrections.

    Attributes:
        wanted: By image id, in file order.
        names: The words, by the local id of each label that is no CUI.
        understood: How the table was read, in one line.
        shown: As `Labels.shown`.
    """

    wanted: Mapping[str, WantedLabels]
    names: Mapping[str, str]
    understood: str
    shown: bool = False


def read_corrections(
    path: Path | str,
    *,
    column: Sequence[str] = (),
    mapping: Mapping[str, Sequence[str]] | None = None,
) -> CorrectionTable:
    """Read a table of corrections.

    A table of labels (`read_labels`), or an export of Label Studio, has all concepts of each image;
    one with the columns `add` or
    `remove` has what changes. Either may have a column `reason`.

    Args:
        path: The table.
        column: As for `read_labels`.
        mapping: As for `read_labels`.

    Raises:
        FormatError: As `read_labels`; a concept is to be added to an image and removed from it.
    """
    if read_export(path, column) is not None:
        return _whole(read_labels(path, column=column, mapping=mapping), {})
    sheet = read_sheet(path)
    header = [cell.casefold() for cell in sheet.records[0].cells]
    places = {name: header.index(name) for name in (_ADD, _REMOVE, _REASON) if name in header}
    reasons: dict[int, str] = {}
    if _REASON in places:
        reasons = {row.line: row.cell(places[_REASON]) for row in sheet.records[1:]}
    if column or not {_ADD, _REMOVE} & places.keys():
        return _whole(labels_of(_without(sheet, places, _REASON), column, mapping), reasons)
    return _changes(sheet, places, mapping, reasons)


def _whole(labels: Labels, reasons: Mapping[int, str]) -> CorrectionTable:
    """A table of all concepts of each image."""
    wanted = {
        id_: WantedLabels(concepts, reason=reasons.get(labels.lines.get(id_, 0), ""))
        for id_, concepts in labels.concepts.items()
    }
    return CorrectionTable(wanted, labels.names, labels.understood, labels.shown)


def _changes(
    sheet: Sheet,
    places: Mapping[str, int],
    mapping: Mapping[str, Sequence[str]] | None,
    reasons: Mapping[int, str],
) -> CorrectionTable:
    """The table of a sheet with a column of what is added, one of what is removed, or both."""
    both: dict[str, dict[str, tuple[str, ...]]] = {_ADD: {}, _REMOVE: {}}
    names: dict[str, str] = {}
    lines: dict[str, int] = {}
    for name, other in ((_ADD, _REMOVE), (_REMOVE, _ADD)):
        if name not in places or not any(row.cell(places[name]) for row in sheet.records[1:]):
            continue
        labels = labels_of(_without(sheet, places, other, _REASON), [name], mapping)
        both[name] = dict(labels.concepts)
        names = {**labels.names, **names}
        lines |= labels.lines
    if not lines:
        raise FormatError(
            f"{sheet.path} has nothing in its columns of what to add and to remove",
            "Give the concepts that change in columns called `add` and `remove`.",
        )
    wanted = {}
    for id_, line in lines.items():
        add, remove = (both[name].get(id_, ()) for name in (_ADD, _REMOVE))
        if contradiction := set(add) & set(remove):
            raise sheet.error(
                line,
                f"{min(contradiction)} is to be added to {id_!r} and removed from it",
                "Keep one of the two.",
            )
        wanted[id_] = WantedLabels(None, add, remove, reasons.get(line, ""))
    n = len(wanted)
    understood = f"{sheet.path}: {n:,} image{'s' * (n != 1)}, concepts to add and to remove"
    return CorrectionTable(wanted, names, understood)


def _without(sheet: Sheet, places: Mapping[str, int], *names: str) -> Sheet:
    """A sheet without some of its columns."""
    dropped = {places[name] for name in names if name in places}
    width = max(len(row.cells) for row in sheet.records)
    kept = [column for column in range(width) if column not in dropped]
    return Sheet(
        sheet.path,
        tuple(
            Record(line, [cells[column] for column in kept if column < len(cells)])
            for line, cells in sheet.records
        ),
        sheet.separator,
        {
            (line, kept.index(column)): doubt
            for (line, column), doubt in sheet.doubts.items()
            if column in kept
        },
        sheet.notes,
    )
