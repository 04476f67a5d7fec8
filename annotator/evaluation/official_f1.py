"""The official scorers of the task, reproduced exactly: one F1 per image.

ImageCLEFmedical Caption (concept detection) has had two: `legacy`, the script of 2017 to 2020, and
`current`, the evaluator of 2022 to 2026. They differ in the treatment of empty cells, white space,
repeats and ids that contain the letters `ID`; the tests list each difference.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from annotator.concept_ids import is_cui
from annotator.errors import FormatError
from annotator.ids import by_image, unknown_hint
from annotator.tables.annotations import is_annotations, run_of
from annotator.tables.labels import Labels, read_labels
from annotator.tables.run import MAX_CUIS
from annotator.tables.sheet import read_sheet
from annotator.tables.table import Record, Table, read_table

Scorer = Literal["current", "legacy"]
ConceptSets = dict[str, frozenset[str]]

SCORERS: tuple[Scorer, ...] = ("current", "legacy")
_JOINTS: dict[Scorer, str] = {"current": ";", "legacy": "[;,]"}  # files of 2017 have commas
# fmt: off
SECONDARY_CUIS = frozenset((
    "C0002978", "C0040405", "C0024485", "C0032743", "C0041618",
    "C1306645", "C1140618", "C0037949", "C0030797", "C0023216",
    "C0037303", "C0817096", "C0006141", "C0000726", "C0920367",
))
# fmt: on


@dataclass(frozen=True)
class Scored:
    """Scored images, in the order of the run.

    Attributes:
        ids: Image ids.
        truth: Ground-truth concepts by image id as seen by the scorer: to the current scorer an
            empty cell is one empty concept, `""`.
        run: Concepts of the run, likewise.
        scores: F1 of each image, in [0, 1].
        f1: Mean F1, summed in this order.
        skipped: Ids left out because the current scorer takes their rows for headers.
        left_out: Number of images left out because their ground truth is empty.
    """

    ids: tuple[str, ...]
    truth: tuple[frozenset[str], ...]
    run: tuple[frozenset[str], ...]
    scores: tuple[float, ...]
    f1: float
    skipped: tuple[str, ...] = ()
    left_out: int = 0

    @property
    def concepts(self) -> list[str]:
        """All concepts of truth or run, ascending, without the empty one."""
        return sorted(frozenset[str]().union(*self.truth, *self.run) - {""})


def image_f1(truth: Collection[str], run: Collection[str]) -> float:
    """Compute the F1 of two sets, 2TP / (2TP + FP + FN); 0 if they are disjoint."""
    shared = len(set(truth) & set(run))
    return 2 * shared / (len(truth) + len(run)) if shared else 0.0


def image_score(truth: Collection[str], run: Collection[str]) -> float:
    """Score of one image in the task: its F1, or 1 if both sets are empty."""
    return image_f1(truth, run) if truth or run else 1.0


def mean(scores: Sequence[float]) -> float:
    """Average from left to right like the evaluators (`sum` is compensated since Python 3.12).

    Raises:
        ZeroDivisionError: There are no scores.
    """
    total = 0.0
    for score in scores:
        total += score
    return total / len(scores)


def score(
    run: Path | str,
    truth: Path | str | Labels,
    scorer: Scorer = "current",
    ids: Collection[str] | None = None,
) -> Scored:
    """Score a run like the official evaluator.

    The current scorer skips rows of comma-separated files whose id contains `ID`, as headers; with
    other separators, or if the two files differ in theirs, no id is skipped.

    A truth that is not in a format of the task, such as words in a spreadsheet, is read as labels
    (`read_truth`), and scored as if it were in the format of the run.

    Args:
        run: Run, as text or in a zip, or annotations in JSON lines, which count as the run with
            their concepts.
        truth: Ground truth, or what `read_truth` has read of it.
        scorer: `current` (2022 to 2026) or `legacy` (2017 to 2020).
        ids: Subset of images to score; the run may lack the others.

    Raises:
        FormatError: A file cannot be read, or the official evaluator would reject the run; the
            message names the line.
    """
    if scorer not in SCORERS:
        raise FormatError(f"no scorer {scorer!r}", f"Choose one of {', '.join(SCORERS)}.")
    labels = truth if isinstance(truth, Labels) else read_truth(truth, run, scorer)
    run_table = _read_run_table(run)
    if labels is not None:  # scored as if it were written like the run
        truth = labels.path
        skipping = scorer == "current" and run_table.separator == ","
        truth_skipped = [id_ for id_ in labels.concepts if skipping and "ID" in id_]
        wanted = _labelled(labels, scorer)
        for id_ in truth_skipped:
            del wanted[id_]
    else:
        assert not isinstance(truth, Labels)
        truth_table = read_table(truth)
        skipping = scorer == "current" and truth_table.separator == run_table.separator == ","
        truth_rows, truth_skipped = _split_headers(truth_table.rows, skipping)
        wanted = _read_truth(truth_table, truth_rows, scorer)
    records = run_table.records
    if run_table.header and run_table.header[0] in wanted:  # words, which look like a header's
        records = (Record(1, list(run_table.header)), *records)
    run_rows, run_skipped = _split_headers(records, skipping)
    found = _read_run(run_table, run_rows, scorer, wanted)
    skipped = dict.fromkeys(truth_skipped + run_skipped)
    if ids is not None:
        chosen = set(ids)
        skipped = {image_id: None for image_id in skipped if image_id in chosen}
        wanted = {image_id: cuis for image_id, cuis in wanted.items() if image_id in chosen}
        found = {image_id: cuis for image_id, cuis in found.items() if image_id in chosen}
    if not wanted:
        raise FormatError(f"{truth} has none of the images to score", "Check the ids.")
    missing = [image_id for image_id in wanted if image_id not in found]
    if missing:
        raise FormatError(
            f"{run} lacks {len(missing)} of {len(wanted)} images, such as {missing[0]!r}",
            "A run has one row for each image; an image without CUIs has its id and the separator.",
        )
    if scorer == "legacy":
        return _compare({i: cuis for i, cuis in wanted.items() if cuis}, found, truth)
    return _compare(wanted, found, truth, tuple(skipped))


def score_secondary(
    primary: Scored, manual: Path | str, ids: Collection[str] | None = None
) -> Scored:
    """Compute the secondary score of 2025 and 2026: 15 CUIs of modality and anatomy.

    Run and manual ground truth are restricted to these CUIs; images with an empty restricted ground
    truth are skipped.

    Args:
        primary: Result of the current scorer.
        manual: Manual ground truth (`concepts_manual.csv`).
        ids: Subset of images to score; None for all.

    Raises:
        FormatError: The file cannot be read, has none of the 15 CUIs, or has images that the run
            lacks.
    """
    if _is_of_the_task(manual, "current"):
        table = read_table(manual)
        concepts = _read_truth(table, table.rows, "current")
    else:
        concepts = by_image(
            _labelled(read_labels(manual), "current"), dict.fromkeys(primary.ids), manual, []
        )
    chosen = None if ids is None else set(ids)
    truth = {
        image_id: cuis & SECONDARY_CUIS
        for image_id, cuis in concepts.items()
        if cuis & SECONDARY_CUIS
        and image_id not in primary.skipped
        and (chosen is None or image_id in chosen)
    }
    run = {i: cuis & SECONDARY_CUIS for i, cuis in zip(primary.ids, primary.run, strict=True)}
    missing = [image_id for image_id in truth if image_id not in run]
    if missing:
        raise FormatError(
            f"{manual} has {len(missing)} images that the run lacks, such as {missing[0]!r}",
            "Give the manual ground truth of the same images.",
        )
    return _compare(truth, run, manual)


def read_truth(
    path: Path | str,
    run: Path | str,
    scorer: Scorer = "current",
    *,
    column: Sequence[str] = (),
    mapping: Mapping[str, Sequence[str]] | None = None,
) -> Labels | None:
    """The labels of a truth that is in no format of the task; None for one that is.

    A format of the task has a row for each image, with its id and CUIs alone, which are joined as
    the scorer splits them.

    Args:
        path: Ground truth.
        run: Run, whose ids the labels get where they are file names.
        scorer: As for `score`.
        column: As for `read_labels`.
        mapping: As for `read_labels`.

    Raises:
        FormatError: As `read_labels`, or the run cannot be read.
    """
    if not (column or mapping) and _is_of_the_task(path, scorer):
        return None
    labels = read_labels(path, column=column, mapping=mapping)
    notes: list[str] = []
    table = _read_run_table(run)
    of_run = dict.fromkeys([*(table.header or ())[:1], *(row.cells[0] for row in table.rows)])
    concepts = by_image(labels.concepts, of_run, path, notes)
    return replace(labels, concepts=concepts, understood="; ".join([labels.understood, *notes]))


def _read_run_table(path: Path | str) -> Table:
    return run_of(path) if is_annotations(path) else read_table(path, preamble=False)


def _is_of_the_task(path: Path | str, scorer: Scorer) -> bool:
    try:
        table = read_table(path)
        if read_sheet(path).separator != table.separator:  # a semicolon
            return False
    except FormatError:
        return False
    rows = [record.cells for record in table.rows]
    cells = [cell for row in rows if (cell := _truth_cell(table, row)) is not None]
    return (
        bool(cells)
        and len({row[0] for row in rows}) == len(rows)
        and all(
            is_cui(part.strip()) or not part.strip()
            for cell in cells
            for part in re.split(_JOINTS[scorer], cell)
        )
    )


def _labelled(labels: Labels, scorer: Scorer) -> ConceptSets:
    """Labels as the scorer sees those of a truth."""
    nothing = frozenset({""} if scorer == "current" else ())
    return {id_: frozenset(ids) or nothing for id_, ids in labels.concepts.items()}


def _compare(
    truth: Mapping[str, frozenset[str]],
    run: Mapping[str, frozenset[str]],
    path: Path | str,
    skipped: tuple[str, ...] = (),
) -> Scored:
    ids = tuple(image_id for image_id in run if image_id in truth)
    if not ids:
        raise FormatError(f"{path} has no image with concepts to score", "Check the file.")
    wanted = tuple(truth[image_id] for image_id in ids)
    found = tuple(run[image_id] for image_id in ids)
    scores = tuple(image_f1(*pair) for pair in zip(wanted, found, strict=True))
    return Scored(ids, wanted, found, scores, mean(scores), skipped, len(run) - len(ids))


def _split_headers(records: Sequence[Record], skipping: bool) -> tuple[list[Record], list[str]]:
    rows, skipped = [], []
    for record in records:
        if skipping and record.cells and "ID" in record.cells[0]:
            skipped.append(record.cells[0])
        else:
            rows.append(record)
    return rows, skipped


def _read_truth(table: Table, records: Sequence[Record], scorer: Scorer) -> ConceptSets:
    truth: ConceptSets = {}
    lines: dict[str, int] = {}
    for line, cells in records:
        image_id = cells[0]
        if image_id in truth:
            raise table.error(
                line,
                f"the id {image_id!r} is on line {lines[image_id]} already",
                "A ground truth has one row for each image.",
            )
        cell = _truth_cell(table, cells)
        if scorer == "legacy":
            truth[image_id] = _legacy_concepts(cell)
        elif cell is None:
            raise table.error(
                line,
                f"the row of {image_id!r} has no second column",
                "Write the separator after the id, even where there are no CUIs.",
            )
        else:
            truth[image_id] = frozenset(part.strip().upper() for part in cell.split(";"))
        lines[image_id] = line
    return truth


def _read_run(
    table: Table, records: Sequence[Record], scorer: Scorer, truth: Mapping[str, object]
) -> ConceptSets:
    run: ConceptSets = {}
    lines: dict[str, int] = {}
    for record in records:
        line, cells = record
        if record.blank:
            if scorer == "legacy":
                continue
            raise table.error(line, "the line is blank", "Remove it.")
        image_id = cells[0]
        if len(cells) > 2:
            raise table.error(
                line, f"{len(cells)} columns where 2 are wanted", "Join the CUIs by `;`."
            )
        if image_id not in truth:
            raise table.error(
                line,
                f"the id {image_id!r} is not in the ground truth",
                unknown_hint(image_id, truth),
            )
        if image_id in run:
            raise table.error(
                line,
                f"the id {image_id!r} is on line {lines[image_id]} already",
                "A run has one row for each image.",
            )
        lines[image_id] = line
        cell = cells[1] if len(cells) > 1 else None
        run[image_id] = (
            _legacy_concepts(cell) if scorer == "legacy" else _current_run(table, line, cell)
        )
    return run


def _current_run(table: Table, line: int, cell: str | None) -> frozenset[str]:
    # Without separator there are no concepts; with it, an empty cell is one empty concept.
    parts = [] if cell is None else [part.strip() for part in cell.split(";")]
    if len(parts) > MAX_CUIS:
        raise table.error(line, f"{len(parts)} CUIs", f"The task allows {MAX_CUIS} for one image.")
    if len(set(parts)) < len(parts):
        repeated = next(part for i, part in enumerate(parts) if part in parts[:i])
        raise table.error(line, f"{repeated!r} is there more than once", "Give each CUI once.")
    return frozenset(part.upper() for part in parts)  # not before: `c1;C1` passes and merges


def _truth_cell(table: Table, cells: Sequence[str]) -> str | None:
    """Raw second column, or None. In ROCO v1 it is empty, with a tab before each CUI."""
    if len(cells) < 2:
        return None
    if table.separator == "\t" and table.header is None and not cells[1].strip():
        return ";".join(cell for cell in cells[2:] if cell.strip())
    return cells[1]


def _legacy_concepts(cell: str | None) -> frozenset[str]:
    """Parts of a cell, unstripped; none if it is blank."""
    if cell is None or not cell.strip():
        return frozenset()
    return frozenset(re.split(_JOINTS["legacy"], cell.upper()))
