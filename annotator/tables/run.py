"""Run files (submissions to the task): rendering, zipping and validation."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from annotator.concept_ids import CUI, is_concept_id, is_cui
from annotator.errors import FormatError
from annotator.ids import match_ids
from annotator.tables.table import (
    SEPARATORS,
    Record,
    explain_decoding,
    find_separator,
    holds_cui,
    parse_csv,
    read_source,
)

MAX_CUIS = 100  # per image, by the rules of the task
MEMBER = "submission.csv"


class RunFormat(NamedTuple):
    """Format of runs of a year, and what its scorer refuses.

    Attributes:
        separator: Between id and CUIs.
        header: First line, if there is one.
        legacy: Scored by the script of 2017 to 2020, which takes blank lines, rows without
            separator, repeated CUIs and any number of them, but no white space round CUIs.
        strict: Checked before it is scored: order of ids, white space, name in the zip.
    """

    separator: str
    header: str | None = None
    legacy: bool = False
    strict: bool = False


FORMATS = {
    "2019": RunFormat("\t", legacy=True),  # and 2017, 2018, 2020
    "2021": RunFormat("|"),  # and 2022, 2023
    "2024": RunFormat(","),
    "2025": RunFormat(",", "ID,CUIs", strict=True),
    "2026": RunFormat(",", "ID,CUIs", strict=True),
}


@dataclass(frozen=True, order=True)
class Problem:
    """Violation of the submission rules; line 0 means the whole file."""

    line: int
    message: str


def render_run(rows: Iterable[tuple[str, Sequence[str]]], year: str) -> str:
    r"""Render a run in the format of a year, with `\n` line ends.

    Args:
        rows: Image ids with their concept ids, in the order of the ground truth. Local ids
            (`annotator.concept_ids`) are written as they are; the task's checker refuses them.
        year: A key of `FORMATS`.

    Raises:
        FormatError: The year is unknown; an id is repeated, empty, or contains a quote, a separator
            of any year, outer white space or an unprintable character; a concept id is malformed
            or repeated; or an image has more than 100 of them.
    """
    form = _format(year)
    lines = [] if form.header is None else [form.header]
    seen: set[str] = set()
    for image_id, cuis in rows:
        check_id(image_id, seen)
        _check_cuis(image_id, cuis)
        lines.append(f"{image_id}{form.separator}{';'.join(cuis)}")
    return "".join(f"{line}\n" for line in lines)


def local_ids_note(rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Say how many concepts of a run are no CUIs, which the task's checker refuses; "" if none."""
    concepts = {concept for _, concepts in rows for concept in concepts}
    local = sorted(concept for concept in concepts if not is_cui(concept))
    if not local:
        return ""
    examples = ", ".join(local[:3]) + (", …" if len(local) > 3 else "")
    return (
        f"{len(local)} of the {len(concepts)} concepts of the run are no CUIs ({examples}), and "
        "the task's checker refuses these. To have CUIs: annotator concepts match, then "
        "build-index --mapping."
    )


def _format(year: str) -> RunFormat:
    form = FORMATS.get(year)
    if form is None:
        raise FormatError(f"no run format for {year!r}", f"Choose one of {', '.join(FORMATS)}.")
    return form


def zip_run(text: str, target: Path | str | None = None) -> bytes:
    """Zip a run as `submission.csv`, reproducibly.

    Args:
        text: Run, from `render_run`.
        target: File to write the zip to as well, or None.
    """
    buffer = io.BytesIO()
    member = zipfile.ZipInfo(MEMBER, date_time=(1980, 1, 1, 0, 0, 0))
    member.compress_type = zipfile.ZIP_DEFLATED
    member.create_system = 3  # Unix, on any platform
    member.external_attr = 0o644 << 16
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, text.encode("utf-8"))
    data = buffer.getvalue()
    if target is not None:
        Path(target).write_bytes(data)
    return data


def validate_run(path: Path | str, ids: Sequence[str], year: str = "2026") -> list[Problem]:
    """Check a run against the submission rules of a year, and report all problems.

    Wrong order, where it matters, is one problem, at the first row out of place. Only ids common to
    run and ground truth are compared, so that one missing image does not displace all later ones.

    Args:
        path: Run, or a zip with it as `submission.csv`.
        ids: Unique ids of the ground truth, in order.
        year: A key of `FORMATS`; see `recognise_year`.

    Returns:
        Problems by line, those of the whole file last; empty for a valid run.

    Raises:
        FormatError: The file is missing, unreadable, or a zip without exactly one csv; or the year
            is unknown.
    """
    form = _format(year)
    name, data = read_source(path)
    problems: list[Problem] = []
    if form.strict and Path(path).name != name and name != MEMBER:
        problems.append(Problem(0, f"the zip holds {name!r}; it must hold {MEMBER!r}"))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return [*problems, Problem(*explain_decoding(error))]
    if text.startswith("\ufeff"):
        problems.append(Problem(1, "the file starts with a byte order mark; save it without"))
        text = text.removeprefix("\ufeff")
    try:
        records = parse_csv(text, form.separator, quoted=form.separator == ",")
    except csv.Error as error:
        return [*problems, Problem(*error.args)]
    problems += _check_rows(records, ids, form)
    return sorted(problems, key=lambda problem: (problem.line == 0, problem.line))


def recognise_year(path: Path | str, ids: Sequence[str]) -> str:
    """Recognise the format of a run by its separator and header: a key of `FORMATS`.

    Of the years with the same format the last one is returned. A first row whose id is none of
    `ids` and which has no CUIs is a header.

    Raises:
        FormatError: The file is missing, unreadable, or a zip without exactly one csv.
    """
    _, data = read_source(path)
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    separator = find_separator(text)
    if separator != ",":
        return next(year for year, form in FORMATS.items() if form.separator == separator)
    first = next((line.split(",") for line in text.splitlines() if line.strip()), ["ID"])
    is_row = first[0].strip().strip('"') in set(ids) or any(map(holds_cui, first))
    return "2024" if is_row else "2026"


def check_id(image_id: str, seen: set[str]) -> None:
    """Check that an id is valid and not in `seen`, and add it there.

    Raises:
        FormatError: The id is repeated, or as `id_fault` says.
    """
    fault = "is repeated" if image_id in seen else id_fault(image_id)
    if fault:
        raise FormatError(f"the image id {image_id!r} {fault}", "Rename the image.")
    seen.add(image_id)


def id_fault(image_id: str) -> str:
    """Why a run cannot hold an id, as a predicate; "" if it can."""
    if not image_id:
        return "is empty"
    if image_id != image_id.strip():
        return "has outer white space"
    if any(character in image_id for character in SEPARATORS + '"'):
        return "holds a tab, `|`, comma or quote"
    if not image_id.isprintable():
        return "holds a line end or an unprintable character"
    if image_id.endswith("/"):
        return "is a folder's"
    return ""


def _check_cuis(image_id: str, cuis: Sequence[str]) -> None:
    bad = next((cui for cui in cuis if not is_concept_id(cui)), None)
    if bad is not None:
        raise FormatError(
            f"image {image_id!r}: {bad!r} is not a concept id",
            "It is a CUI, or words in upper case joined by `_` (annotator.concept_ids).",
        )
    if len(set(cuis)) < len(cuis):
        raise FormatError(f"image {image_id!r} has a CUI twice", "Give each CUI once.")
    if len(cuis) > MAX_CUIS:
        raise FormatError(
            f"image {image_id!r} has {len(cuis)} CUIs", f"The task allows {MAX_CUIS} an image."
        )


def _check_rows(records: Iterable[Record], ids: Sequence[str], form: RunFormat) -> list[Problem]:
    problems: list[Problem] = []
    known = set(ids)
    unknown: list[tuple[int, str]] = []
    lines: dict[str, int] = {}  # of each known id, in run order
    wanted = f"the header `{form.header}` is wanted here" if form.header else ""
    header_due = True
    for line, cells in records:
        if not "".join(cells).strip() and len(cells) < 2:
            if not form.legacy:
                problems.append(Problem(line, "the line is blank"))
            continue
        image_id = cells[0].strip()
        if header_due:
            header_due = False
            if form.header and cells != form.header.split(","):
                problems.append(Problem(line, wanted))
            if image_id not in known and not any(map(holds_cui, cells)):
                if not wanted:
                    problems.append(Problem(line, "a header, which runs of this year do not have"))
                continue  # a header, if a wrong one; otherwise the first image
        if len(cells) > 2 or (len(cells) < 2 and not form.legacy):
            problems.append(Problem(line, f"{len(cells)} columns where 2 are wanted"))
        if cells[0] != image_id or (
            (form.strict or form.legacy) and any(_has_outer_space(cell, form) for cell in cells[1:])
        ):
            problems.append(Problem(line, "white space round the id or the CUIs"))
        if image_id not in known:
            unknown.append((line, image_id))
        elif image_id in lines:
            problems.append(
                Problem(line, f"the id {image_id!r} is on line {lines[image_id]} already")
            )
        else:
            lines[image_id] = line
        if len(cells) == 2:
            problems += [Problem(line, message) for message in _faults(cells[1], form)]
    if header_due and wanted:
        problems.append(Problem(1, wanted))
    problems += _explain_unknown(unknown, ids)
    return problems + _check_order(lines, ids, form)


def _has_outer_space(cell: str, form: RunFormat) -> bool:
    parts = cell.split(";") if form.legacy else [cell]
    return any(part != part.strip() for part in parts)


def _explain_unknown(unknown: Sequence[tuple[int, str]], ids: Sequence[str]) -> list[Problem]:
    image_of = match_ids({image_id for _, image_id in unknown}, ids).image_of if unknown else {}
    return [
        Problem(
            line,
            f"the id {image_id!r} is not in the ground truth"
            + (f", which has {image_of[image_id]!r}" if image_id in image_of else ""),
        )
        for line, image_id in unknown
    ]


def _faults(cell: str, form: RunFormat) -> list[str]:
    if not cell.strip():
        return []
    parts = [part.strip() for part in cell.split(";")]
    faults = []
    if "" in parts:
        faults.append("an empty part among the CUIs (a `;` too many)")
    for part in parts:
        if part and not CUI.fullmatch(part if form.strict else part.upper()):
            faults.append(f"{part!r} is not a CUI")
    if form.legacy:
        return faults
    counts = Counter(part for part in parts if part)
    faults += [f"{part!r} is there {count} times" for part, count in counts.items() if count > 1]
    if len(parts) > MAX_CUIS:
        faults.append(f"{len(parts)} CUIs where {MAX_CUIS} are allowed")
    return faults


def _check_order(lines: dict[str, int], ids: Sequence[str], form: RunFormat) -> list[Problem]:
    problems = []
    wanted = [image_id for image_id in ids if image_id in lines]
    astray = [(found, due) for found, due in zip(lines, wanted, strict=True) if found != due]
    if astray and form.strict:
        found, due = astray[0]
        problems.append(
            Problem(
                lines[found],
                f"the id {found!r} stands where the ground truth has {due!r} "
                f"({len(astray)} rows are out of place)",
            )
        )
    missing = [image_id for image_id in ids if image_id not in lines]
    if missing:
        examples = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        problems.append(Problem(0, f"{len(missing)} images are missing: {examples}"))
    return problems
