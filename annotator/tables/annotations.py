"""Annotations in JSON lines, as `annotator annotate --format jsonl` writes them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotator.errors import FormatError
from annotator.tables.table import Record, Table, read_text

_START = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"')  # no id of a run begins so
_HINT = "Give what `annotator annotate --format jsonl` wrote."


@dataclass(frozen=True)
class Annotated:
    """What a line says of an image.

    Attributes:
        line: Line of the file, from 1.
        id: Image id.
        cuis: Its concepts.
        scores: Share of the vote of each.
        probabilities: Probability of each; None where the file has none.
        expected_f1: Expected F1 of the set; None for an image that could not be used.
        names: Name of each concept, "" where the file has none.
        familiarity: Familiarity of the image; None where the file has none.
        group: Its patient or study; "" where the file has none.
        hierarchical: Whether its concepts were chosen over a hierarchy.
    """

    line: int
    id: str
    cuis: tuple[str, ...]
    scores: tuple[float, ...]
    probabilities: tuple[float, ...] | None
    expected_f1: float | None
    names: tuple[str, ...] = ()
    familiarity: float | None = None
    group: str = ""
    hierarchical: bool = False


def is_annotations(path: Path | str) -> bool:
    """Whether a file holds JSON lines rather than a table; False if it cannot be opened."""
    try:
        with Path(path).open("rb") as file:
            return _START.match(file.read(64)) is not None
    except OSError:
        return False


def read_annotations(path: Path | str) -> list[Annotated]:
    """Read annotations, in file order; blank lines are skipped.

    Raises:
        FormatError: The file cannot be read, or a line is not an annotation.
    """
    lines = enumerate(read_text(path).split("\n"), 1)
    return [_annotated(path, line, text) for line, text in lines if text.strip()]


def run_of(path: Path | str) -> Table:
    """Annotations as the table of the run that `annotate` would have written of them.

    Raises:
        FormatError: As `read_annotations`.
    """
    rows = [Record(a.line, [a.id, ";".join(a.cuis)]) for a in read_annotations(path)]
    return Table(Path(path), ",", None, tuple(rows))


def _annotated(path: Path | str, line: int, text: str) -> Annotated:
    try:
        found = json.loads(text)
        concepts = found["concepts"]
        given = [concept.get("probability") for concept in concepts]
        failed = found.get("error") is not None
        annotated = Annotated(
            line=line,
            id=_text(found["id"]),
            cuis=tuple(_text(concept["cui"]) for concept in concepts),
            scores=tuple(_share(concept["score"]) for concept in concepts),
            probabilities=None if None in given else tuple(map(_share, given)),
            expected_f1=None if failed else _share(found["expected_f1"]),
            names=tuple(str(concept.get("name") or "") for concept in concepts),
            familiarity=None if (share := found.get("familiarity")) is None else _share(share),
            group=_group(found.get("group", "")),
            hierarchical=found.get("hierarchical") is True,
        )
    except json.JSONDecodeError as error:
        raise FormatError(f"{path}, line {line}: no JSON ({error.msg})", _HINT) from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise FormatError(f"{path}, line {line}: not an annotation ({what})", _HINT) from None
    return annotated


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no id")
    return value


def _group(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no group")
    return value


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{value!r} is not a number from 0 to 1")
    return float(value)
