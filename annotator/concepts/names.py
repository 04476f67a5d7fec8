"""Names of concepts, from a table or from the UMLS Metathesaurus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from annotator.concept_ids import concept_id, is_cui
from annotator.concepts.rrf import MRCONSO, read_rows, recognise
from annotator.errors import FormatError
from annotator.tables.sheet import read_sheet

Term = tuple[str, str, int]  # CUI, name, and rank among the CUI's names: 0 for the preferred one


def read_names(path: Path | str, *, only: Collection[str] | None = None) -> dict[str, str]:
    """Read the preferred English name of each CUI from a names table or from MRCONSO.RRF.

    Args:
        path: MRCONSO.RRF (recognised by content, whatever its name; also compressed), or a table.
        only: CUIs whose names are wanted; None for all. Of MRCONSO.RRF no others are kept in
            memory, where all those of a release need about a gigabyte.

    Raises:
        FormatError: As `read_terms`.
    """
    names: dict[str, str] = {}
    ranks: dict[str, int] = {}  # of those that are not the preferred ones
    for cui, name, rank in read_terms(path, only=only):
        if (rank, name) < (ranks.get(cui, 0), names[cui]) if cui in names else True:
            names[cui] = name
            if rank:
                ranks[cui] = rank
            else:
                ranks.pop(cui, None)
    return names


def read_terms(path: Path | str, *, only: Collection[str] | None = None) -> Iterator[Term]:
    """Stream the English names of concepts, in file order.

    Of MRCONSO.RRF those are yielded that are English and not suppressed. The preferred one of a
    concept is the preferred form (STT=PF, ISPREF=Y) of its preferred term (TS=P); where that is
    suppressed or not English, the one that lacks the fewest of these, in this order.

    In a table the column of CUIs is detected by content. Names are in the column with `name` in its
    header, or else in the first other column. Rows without CUI or name are skipped, and the first
    of several names is the concept's only one.

    Args:
        path: The file.
        only: CUIs whose names are wanted; None for all.

    Raises:
        FormatError: The file cannot be read, is another file of the UMLS, or has no column of CUIs
            beside another.
    """
    layout = recognise(path)
    if layout is MRCONSO:
        return _metathesaurus(path, only)
    if layout is not None:
        raise FormatError(
            f"{path} is {layout.name}, which has no names", "Give MRCONSO.RRF of the same release."
        )
    names = _table(path)
    return ((cui, name, 0) for cui, name in names.items() if only is None or cui in only)


def cuis_of_names(words: Collection[str], terms: Iterable[Term]) -> dict[str, tuple[str, ...]]:
    """The concept of each label that is the name of just one, as a mapping of `read_labels`.

    Args:
        words: Local ids of labels.
        terms: Names of concepts; of several concepts with a name, those count for which it ranks
            highest.
    """
    ranked: dict[str, dict[str, int]] = {}
    for cui, name, rank in terms:
        id_ = concept_id(name)
        if id_ in words:
            ranks = ranked.setdefault(id_, {})
            ranks[cui] = min(rank, ranks.get(cui, rank))
    found: dict[str, tuple[str, ...]] = {}
    for id_, ranks in ranked.items():
        best = [cui for cui, rank in ranks.items() if rank == min(ranks.values())]
        if len(best) == 1:
            found[id_] = (best[0],)
    return found


def _metathesaurus(path: Path | str, only: Collection[str] | None) -> Iterator[Term]:
    wanted: dict[str, Collection[str]] = {} if only is None else {"CUI": only}
    rows = read_rows(
        path,
        MRCONSO,
        ("CUI", "STR", "TS", "STT", "ISPREF"),
        {**wanted, "LAT": ("ENG",), "SUPPRESS": ("N",)},
    )
    for cui, name, ts, stt, ispref in rows:
        yield cui, name, 4 * (ts != "P") + 2 * (stt != "PF") + (ispref != "Y")


def _table(path: Path | str) -> dict[str, str]:
    sheet = read_sheet(path)
    header, *rest = (cells for _, cells in sheet.records)
    hits = Counter(i for cells in (header, *rest) for i, cell in enumerate(cells) if is_cui(cell))
    width = max(map(len, (header, *rest)))
    if not hits or width < 2:
        raise FormatError(
            f"{path} has no column of CUIs beside a column of names",
            "Give a table with two columns, such as `CUI,Name`.",
        )
    cui_column = min(hits, key=lambda column: (-hits[column], column))
    if any(map(is_cui, header)):
        header, rest = [], [header, *rest]
    others = [column for column in range(width) if column != cui_column]
    named = [c for c in others if c < len(header) and "name" in header[c].lower()]
    name_column = (named or others)[0]
    # The last column takes the rest of the row: names have commas, and quotes may be missing.
    end = None if name_column == max(len(header), 2) - 1 else name_column + 1
    joint = ", " if sheet.separator == "," else sheet.separator
    names: dict[str, str] = {}
    for cells in rest:
        cui = cells[cui_column] if cui_column < len(cells) else ""
        name = joint.join(cells[name_column:end])
        if name and is_cui(cui):
            names.setdefault(cui.upper(), name)
    return names
