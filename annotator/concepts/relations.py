"""Parents of concepts in the UMLS, from MRREL.RRF or MRHIER.RRF.

Source: NLM, UMLS Reference Manual, chapter 3. Either file has tens of millions of rows. Each is
streamed once into pairs of numbers (8 bytes a pair, without repeats), of which the ancestors of the
concepts in question are kept.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annotator.concepts.cycles import cycles
from annotator.concepts.rrf import MRCONSO, MRHIER, MRREL, read_rows
from annotator.errors import FormatError

Parents = dict[str, tuple[str, ...]]

_WIDER, _NARROWER = ("PAR", "RB"), ("CHD", "RN")
_IN_USE = ("N", "")  # SUPPRESS; the others are obsolete or suppressed
_ID = re.compile(r"[CA][0-9]{1,8}")
_ATOM = 1 << 30  # marks the number of an atom; those of concepts are smaller
_MERGED_AT = 1 << 22  # pairs


def read_mrrel(path: Path | str, only: Collection[str] | None) -> tuple[Parents, int]:
    """Read parents from MRREL.RRF: what a source calls parent (PAR, CHD) or broader (RB, RN).

    "REL: Relationship of second concept or atom to first concept or atom" (Reference Manual, table
    of MRREL's columns): in a row with CUI1, PAR and CUI2, the second is the parent of the first; in
    one with CHD, its child. Suppressed rows and relations within a concept are left out.

    Args:
        path: The file.
        only: Concepts of which the ancestors are needed; None for all.

    Returns:
        Parents by concept, and the number of concepts that were ancestors of themselves.
    """
    pairs = _Pairs()
    where = {"REL": (*_WIDER, *_NARROWER), "SUPPRESS": _IN_USE}
    for first, relation, second in read_rows(path, MRREL, ("CUI1", "REL", "CUI2"), where):
        if relation in _WIDER:
            pairs.add(_number(first, path), _number(second, path))
        else:
            pairs.add(_number(second, path), _number(first, path))
    return _parents(*pairs.columns(), only)


def read_mrhier(path: Path | str, only: Collection[str] | None) -> tuple[Parents, int]:
    """Read parents from MRHIER.RRF: the paths of atoms to the tops of their sources.

    "PTR: Path to the top or root of the hierarchical context from this atom, represented as a list
    of AUIs, separated by periods", the immediate parent last. The concept of an atom is that of its
    own row; of those without a row, which in a whole release are the tops alone, it is taken from
    MRCONSO.RRF if that lies in the same folder. An atom whose concept stays unknown is an inner
    concept by its AUI.

    Args:
        path: The file.
        only: Concepts of which the ancestors are needed; None for all.

    Returns:
        As `read_mrrel`.
    """
    path = Path(path)
    pairs, concepts = _Pairs(), _Pairs()
    inner: set[int] = set()  # parents that are no tops
    for cui, atom, above in read_rows(path, MRHIER, ("CUI", "AUI", "PTR")):
        concepts.add(_number(atom, path), _number(cui, path))
        if above:
            pairs.add(_number(atom, path), _number(above.rpartition(".")[2], path))
            if "." in above:
                inner.add(_number(above.rpartition(".")[2], path))
    rowless = inner.difference(concepts.columns()[0].tolist())
    if rowless:  # a part of a release: what is above them is in the rows of their children
        for (above,) in read_rows(path, MRHIER, ("PTR",)):
            atoms = [_number(atom, path) for atom in above.split(".")] if above else []
            if atoms and atoms[-1] in rowless:
                for parent, child in pairwise(atoms):
                    pairs.add(child, parent)
        names = path.with_name(MRCONSO.name)
        if names.exists():
            wanted = set(np.unique(pairs.columns()).tolist())
            for cui, atom in read_rows(names, MRCONSO, ("CUI", "AUI")):
                if _number(atom, names) in wanted:
                    concepts.add(_number(atom, names), _number(cui, names))
    children, parents = (_concept_of(atoms, *concepts.columns()) for atoms in pairs.columns())
    return _parents(children, parents, only)


def _concept_of(
    atoms: NDArray[np.int64], known: NDArray[np.int64], concepts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Concepts of atoms, int64[n]; an atom that is not among the `known` stays one, marked."""
    if len(known) == 0:
        return atoms | _ATOM
    place = np.minimum(np.searchsorted(known, atoms), len(known) - 1)
    return np.where(known[place] == atoms, concepts[place], atoms | _ATOM)


class _Pairs:
    """Pairs of numbers below 2^31, without repeats."""

    def __init__(self) -> None:
        self._merged: NDArray[np.int64] = np.zeros(0, np.int64)
        self._added = array("q")

    def add(self, first: int, second: int) -> None:
        self._added.append(first << 32 | second)
        if len(self._added) >= _MERGED_AT:
            self._merge()

    def _merge(self) -> None:
        added = np.frombuffer(self._added, np.int64)
        self._merged = np.unique(np.concatenate([self._merged, added]))
        self._added = array("q")

    def columns(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Both columns, int64[n], ascending by the first, then the second."""
        self._merge()
        return self._merged >> 32, self._merged & 0xFFFF_FFFF


def _number(id_: str, path: Path | str) -> int:
    """A CUI or AUI as a number that keeps its leading zeros."""
    if _ID.fullmatch(id_) is None:
        raise FormatError(
            f"{path}: {id_!r} is no CUI or AUI", "Take the file as the release has it."
        )
    return int("1" + id_[1:])


def _id(number: int) -> str:
    return f"A{str(number - _ATOM)[1:]}" if number & _ATOM else f"C{str(number)[1:]}"


def _parents(
    below: NDArray[np.int64], above: NDArray[np.int64], only: Collection[str] | None
) -> tuple[Parents, int]:
    """Parents by concept, of all or of `only` some and their ancestors, without cycles.

    Concepts that are ancestors of each other, as some are across sources, become equals: each has
    the parents of all of them that are not among them.
    """
    related = below != above
    order = np.lexsort((above[related], below[related]))
    below, above = below[related][order], above[related][order]
    parents: dict[str, dict[str, None]] = {}
    if only is not None:
        ids = [concept for concept in only if _ID.fullmatch(concept)]
        new = reached = np.unique(np.array([int("1" + id_[1:]) for id_ in ids], np.int64))
        parents = {_id(root): {} for root in new[np.isin(new, above)].tolist()}
        while len(new):
            new = np.setdiff1d(above[np.isin(below, new)], reached)
            reached = np.union1d(reached, new)
        kept = np.isin(below, reached)
        below, above = below[kept], above[kept]
    for child, parent in zip(below.tolist(), above.tolist(), strict=True):
        parents.setdefault(_id(child), {})[_id(parent)] = None
    groups = cycles(parents)
    for group in groups:
        members = set(group)
        outside = dict.fromkeys(p for c in group for p in parents[c] if p not in members)
        parents.update((concept, outside) for concept in group)
    return {c: tuple(sorted(ps)) for c, ps in parents.items()}, sum(map(len, groups))
