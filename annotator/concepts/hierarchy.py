"""Hierarchies of concepts: which concepts are broader than which."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from annotator.concept_ids import concept_id, is_cui
from annotator.concepts.cycles import cycles
from annotator.concepts.rrf import MRHIER, MRREL, recognise
from annotator.errors import AnnotatorError, FormatError
from annotator.tables.sheet import read_sheet
from annotator.tables.table import is_header

_PARENT = re.compile(r"(?!.*name)(?:.*[ _-])?(?:parents?|broader|is[ _-]?a)(?:[ _-].*)?", re.I)
_CONCEPT = re.compile(r"(?:.*[ _-])?(?:cui|concept|child|narrower)s?[ _-]?\d?", re.I)
_SHOWN = 5  # concepts named in a message


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Concepts with their parents: a directed graph without cycles, of one tree or several.

    The *roots*, concepts that others descend from and that have no parents themselves, tell
    nothing of an image ("finding"), so they are nobody's ancestors here (Kiritchenko, Matwin,
    Famili 2005). A label that is a root, or that the hierarchy does not know, stands for itself.

    Attributes:
        parents: Parents of each concept; concepts without any may be left out.
        names: Words of concepts with local ids, where known.
        notes: What was made of a file that contradicts itself, one line each.

    Raises:
        AnnotatorError: The parents have a cycle.
    """

    parents: Mapping[str, tuple[str, ...]]
    names: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    _ancestors: dict[str, frozenset[str]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for cycle in cycles(self.parents):
            raise AnnotatorError(
                f"{_listed(cycle)} are ancestors of each other.",
                "Remove the row that makes a concept a descendant of its own descendants.",
            )

    def __contains__(self, concept: str) -> bool:
        return concept in self.parents or concept in self._with_children

    @cached_property
    def _with_children(self) -> frozenset[str]:
        return frozenset(parent for parents in self.parents.values() for parent in parents)

    @cached_property
    def roots(self) -> tuple[str, ...]:
        """Concepts with children and without parents, ascending."""
        return tuple(sorted(c for c in self._with_children if not self.parents.get(c)))

    def ancestors(self, concept: str) -> frozenset[str]:
        """All concepts above one, without the roots."""
        found = self._ancestors.get(concept)
        if found is None:
            above: set[str] = set()
            waiting = [concept]
            while waiting:
                for parent in self.parents.get(waiting.pop(), ()):
                    if parent not in above and self.parents.get(parent):
                        above.add(parent)
                        waiting.append(parent)
            found = self._ancestors[concept] = frozenset(above)
        return found

    def closure(self, concepts: Iterable[str]) -> frozenset[str]:
        """The concepts with all their ancestors."""
        concepts = frozenset(concepts)
        return concepts.union(*(self.ancestors(concept) for concept in concepts))

    def describe(self, concepts: Collection[str]) -> str:
        """One line on how much of some concepts the hierarchy knows."""
        known = sum(concept in self for concept in concepts)
        above = self.closure(concepts).difference(concepts)
        return (
            f"Hierarchy: {known:,} of {len(concepts):,} concepts are in it, with {len(above):,} "
            f"broader ones; roots, left out: {_listed(self.roots) or 'none'}."
        )


def read_hierarchy(path: Path | str, *, only: Collection[str] | None = None) -> Hierarchy:
    """Read a hierarchy of concepts.

    The file is one of

    - a table (text, an Excel workbook, Parquet) with a concept and a parent in each row: CUIs or
      labels in words, in the first two columns, or in any order where the header names the column
      of the parents (`parent`); several parents have a row each or are joined by `;`, and a concept
      without parents needs no row;
    - MRREL.RRF or MRHIER.RRF of the UMLS (`annotator.concepts.relations`).

    Args:
        path: The file.
        only: Concepts of which the ancestors are needed; None for all. Files of the UMLS have
            gigabytes: of them, only these ancestors are kept.

    Raises:
        FormatError: The file cannot be read, or names a concept among its own ancestors.
    """
    layout = recognise(path)
    if layout is None:
        return _read_table(path)
    if layout not in (MRREL, MRHIER):
        raise FormatError(
            f"{path} is {layout.name}, which names no parents",
            "Give MRREL.RRF or MRHIER.RRF of the same release, or a table of concept and parent.",
        )
    from annotator.concepts.relations import read_mrhier, read_mrrel  # loads numpy

    reader = read_mrrel if layout is MRREL else read_mrhier
    parents, in_cycles = reader(path, only)
    notes: tuple[str, ...] = ()
    if in_cycles:
        notes = (
            f"{in_cycles:,} concepts are among their own ancestors in {path}: those that are each "
            "other's ancestors count as equals, below all that is above one of them.",
        )
    return Hierarchy(parents, notes=notes)


def _read_table(path: Path | str) -> Hierarchy:
    table = read_sheet(path)
    header, rows = None, table.records
    if rows and (_is_header(rows[0].cells) or is_header(rows[0].cells, rows[1:])):
        header, rows = rows[0].cells, rows[1:]
    titles = tuple(enumerate(header or ()))
    parent_column = next((i for i, title in titles if _PARENT.fullmatch(title)), 1)
    concept_columns = [i for i, title in titles if i != parent_column and _CONCEPT.fullmatch(title)]
    concept_column = concept_columns[0] if concept_columns else 0 if parent_column else 1
    if all(len(record.cells) < 2 for record in rows):
        raise FormatError(
            f"{path} has only one column", "Give a table of concept and parent, a pair in each row."
        )
    parents: dict[str, dict[str, None]] = {}
    names: dict[str, str] = {}

    def identify(words: str, line: int) -> str:
        try:
            concept = concept_id(words)
        except ValueError:
            raise table.error(line, "a cell has no word", "Give concept and parent.") from None
        if not is_cui(concept):
            names.setdefault(concept, words.strip())
        return concept

    for record in rows:
        child = record.cell(concept_column)
        above = [part for part in record.cell(parent_column).split(";") if part.strip()]
        if not child.strip():
            raise table.error(record.line, "the row has no concept", "Give concept and parent.")
        concept = identify(child, record.line)
        for words in above:
            parent = identify(words, record.line)
            if parent == concept:
                raise table.error(
                    record.line,
                    f"{concept} is its own parent",
                    "Leave the parent of a root empty.",
                )
            parents.setdefault(concept, {})[parent] = None
        parents.setdefault(concept, {})
    try:
        return Hierarchy({concept: tuple(above) for concept, above in parents.items()}, names)
    except AnnotatorError as error:
        raise FormatError(f"{path}: {error.message}", error.hint) from None


def _is_header(cells: Sequence[str]) -> bool:
    return any(map(_PARENT.fullmatch, cells)) or all(map(_CONCEPT.fullmatch, cells))


def _listed(concepts: Collection[str]) -> str:
    some = ", ".join(sorted(concepts)[:_SHOWN])
    return f"{some} and {len(concepts) - _SHOWN:,} more" if len(concepts) > _SHOWN else some
