"""Semantic types of concepts, from MRSTY.RRF or a table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from annotator.concept_ids import is_cui
from annotator.concepts.rrf import MRSTY, read_rows, recognise
from annotator.errors import AnnotatorError, FormatError
from annotator.tables.sheet import read_sheet
from annotator.tables.table import Record

_TUI = re.compile(r"T\d{3}", re.IGNORECASE)  # type unique identifier
_TUIS = re.compile(r"T\d{3}(?:\s*[;,\s]\s*T\d{3})*", re.IGNORECASE)
_NAMES = ("sty", "semantic type", "type", "name", "type name")
_LISTED = 10


@dataclass(frozen=True)
class SemanticTypes:
    """Semantic types of concepts: a concept has one or more, or is not known.

    Attributes:
        path: Where they were read.
        of: Types (TUI, such as T047) by CUI, ascending.
        names: Name by TUI, where known, of all types of the file.
    """

    path: Path
    of: Mapping[str, tuple[str, ...]]
    names: Mapping[str, str]

    def parse(self, texts: Iterable[str]) -> tuple[str, ...]:
        """The types that texts name: TUIs or names in either case, several joined by commas.

        Raises:
            AnnotatorError: The file has no such type.
        """
        known = {tui.casefold(): tui for tui in self.names}
        known |= {name.casefold(): tui for tui, name in self.names.items() if name}
        tuis: dict[str, None] = {}
        for text in texts:
            parts = [part.strip() for part in text.split(",")]
            while parts:  # names have commas, too: the longest first
                for n in range(len(parts), 0, -1):
                    found = known.get(", ".join(parts[:n]).casefold())
                    if found is not None:
                        tuis[found] = None
                        break
                else:
                    if parts[0]:
                        raise self._unknown(parts[0], known)
                    n = 1
                del parts[:n]
        return tuple(tuis)

    def only(self, tuis: Iterable[str]) -> SemanticTypes:
        """These types alone, and the concepts that have one of them."""
        wanted = frozenset(tuis)
        kept = {cui: tuple(t for t in types if t in wanted) for cui, types in self.of.items()}
        return replace(self, of={cui: types for cui, types in kept.items() if types})

    def by_type(self, cuis: Iterable[str]) -> dict[str, frozenset[str]]:
        """Those of some concepts that have each type, by TUI, ascending."""
        members: dict[str, set[str]] = {}
        for cui in cuis:
            for tui in self.of.get(cui, ()):
                members.setdefault(tui, set()).add(cui)
        return {tui: frozenset(found) for tui, found in sorted(members.items())}

    def _unknown(self, text: str, known: Mapping[str, str]) -> AnnotatorError:
        near = dict.fromkeys(known[k] for k in get_close_matches(text.casefold(), known, 3))
        counts = Counter(tui for types in self.of.values() for tui in types)
        some = list(near) or [tui for tui, _ in counts.most_common(_LISTED)]
        return AnnotatorError(
            f"{self.path} has no semantic type {text!r}.",
            f"{'Similar' if near else 'It has'}: "
            f"{'; '.join(f'{tui} {self.names[tui]}'.strip() for tui in some)}.",
        )


def read_types(path: Path | str, *, only: Collection[str] | None = None) -> SemanticTypes:
    """Read the semantic types of concepts.

    Args:
        path: MRSTY.RRF (recognised by content, whatever its name; also compressed), or a table with
            a column of CUIs and one of TUIs (several joined by `;`, or a row each). Names of types
            are in the column called `STY`, `semantic type`, `type` or `name`, if there is one.
        only: CUIs whose types are wanted; None for all.

    Raises:
        FormatError: The file cannot be read, is another file of the UMLS, or has no such columns.
    """
    layout = recognise(path)
    if layout is MRSTY:
        rows = read_rows(path, MRSTY, ("CUI", "TUI", "STY"))
    elif layout is None:
        rows = _table(path)
    else:
        raise FormatError(
            f"{path} is {layout.name}, which has no semantic types",
            "Give MRSTY.RRF of the same release.",
        )
    of: dict[str, set[str]] = {}
    names: dict[str, str] = {}
    for cui, tui, name in rows:
        names[tui] = names.get(tui) or name
        if only is None or cui in only:
            of.setdefault(cui, set()).add(tui)
    return SemanticTypes(Path(path), {c: tuple(sorted(t)) for c, t in sorted(of.items())}, names)


def _table(path: Path | str) -> Iterator[tuple[str, ...]]:
    sheet = read_sheet(path)
    records = sheet.records
    cui_column = _column(records, is_cui)
    tui_column = _column(records, lambda cell: _TUIS.fullmatch(cell) is not None)
    if cui_column is None or tui_column is None:
        raise FormatError(
            f"{path} has no column of CUIs beside one of semantic types (TUIs)",
            "Give MRSTY.RRF, or a table such as `CUI,TUI` with rows such as `C0032285,T047`.",
        )
    header = [] if any(map(is_cui, records[0].cells)) else records[0].cells
    records = records[len(header) > 0 :]
    header = [cell.casefold() for cell in header]
    name_column = next((header.index(name) for name in _NAMES if name in header), -1)
    for record in records:
        cui, cell = record.cell(cui_column).upper(), record.cell(tui_column).upper()
        if not cell and is_cui(cui):
            continue
        if not is_cui(cui) or not _TUIS.fullmatch(cell):
            raise sheet.error(
                record.line,
                f"{cui!r} has the semantic type {cell!r}",
                "Give a CUI, and T with three digits; several are joined by `;`.",
            )
        tuis = _TUI.findall(cell)
        for tui in tuis:
            named = name_column not in (-1, cui_column, tui_column) and len(tuis) == 1
            yield cui, tui, record.cell(name_column) if named else ""


def _column(records: Sequence[Record], fits: Callable[[str], bool]) -> int | None:
    """The column with the most cells that fit."""
    hits = Counter(
        i for record in records for i, cell in enumerate(record.cells) if fits(cell.strip())
    )
    return min(hits, key=lambda i: (-hits[i], i)) if hits else None
