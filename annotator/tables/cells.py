"""Cells of labels: lists in any notation, yes and no, and what is no label."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable

from annotator.concept_ids import is_cui

#: Cells that say that there is nothing, in lower case.
MISSING = frozenset(
    {"", "-", "--", "\u2013", "\u2014", ".", "nan", "na", "n/a", "#n/a", "<na>", "nat", "nil"}
    | {"none", "null", "[]", "{}", "()", "set()"}
)
YES = frozenset(  # the last line as spreadsheets in German, French and Spanish write it
    {"1", "1.0", "true", "t", "yes", "y", "x", "+", "\u2713", "\u2714", "\u2611", "\u00d7"}
    | {"ja", "wahr", "oui", "vrai", "s\u00ed", "verdadero"}
)
NO = frozenset(
    {"0", "0.0", "false", "f", "no", "n", "\u2717", "\u2718", "\u2610"}
    | {"nein", "falsch", "non", "faux", "falso"}
)
UNSURE = frozenset({"-1", "-1.0", "u", "uncertain", "unsure", "?"})

#: Separators of the labels in a cell, some as East Asian keyboards have them; the first that a
#: column has is its own.
SEPARATORS = ";\uff1b|\t\n\u3001,\uff0c"

LONGEST_LABEL = 100  # characters; longer is a text
_MOST_WORDS = 12

_QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_QUOTED_LIST = re.compile(rf"[\[({{]\s*(?:{_QUOTED})(?:[\s,]+(?:{_QUOTED}))*[\s,]*[\])}}]")
_PLAIN_LIST = re.compile(r"\[[^\[\](){}:'\"]*\]|\{[^\[\](){}:'\"]*\}")
_NUMBER = re.compile(r"[-+]?[0-9]+(?:[.,][0-9]+)?(?:[eE][-+]?[0-9]+)?%?")
_QUOTES = '"\u201c\u201d\u201e\u201f\u00ab\u00bb'
_SINGLE_QUOTES = re.compile("['\u2018\u2019\u201a]([^'\u2018\u2019\u201a]*)['\u2018\u2019]")
_SLIP = re.compile(r"[cC](?=[oOilI]*[0-9])[0-9oOilI]+")  # a letter for a digit
_CUIS = re.compile(r"[;,|\s]*[cC][0-9]+(?:[;,|\s]+[cC][0-9]+)*[;,|\s]*")
_CUI_WITHIN = re.compile(r"(?<![A-Za-z0-9])[cC][-_ ]?[0-9]{7}(?![0-9])")


def is_number(text: str) -> bool:
    """Return whether a text is a number, such as an age or a probability."""
    return _NUMBER.fullmatch(text) is not None


def list_of(cell: str) -> list[str] | None:
    """The texts in a list as Python, JSON or NumPy write it; None if a cell is no list.

    Raises:
        ValueError: It begins like a list, and is none of texts alone.
    """
    if _QUOTED_LIST.fullmatch(cell):
        try:
            return [str(ast.literal_eval(text)) for text in re.findall(_QUOTED, cell)]
        except SyntaxError as error:
            raise ValueError(f"a text in its list is malformed: {error.msg}") from None
    if _PLAIN_LIST.fullmatch(cell):
        return re.split(r"[;,|]", cell[1:-1])
    if cell[0] in "[{" and cell[-1] in "]}":
        raise ValueError("it begins like a list, but is none of labels")
    return None


def separator_of(cells: Iterable[str]) -> str:
    """The separator of the labels in a column: the first of `SEPARATORS` that occurs; "" if none.

    CUIs do not count: they are told apart anyway (`split_labels`).
    """
    found = set[str]()
    for cell in cells:
        if list_of(cell) is None and cuis_in(cell) is None:
            found.update(separator for separator in SEPARATORS if separator in cell)
    return next((separator for separator in SEPARATORS if separator in found), "")


def cuis_in(text: str) -> list[str] | None:
    """The CUIs of a text that has nothing else but what separates them; None of other texts."""
    return re.findall("[cC][0-9]+", text) if _CUIS.fullmatch(text) else None


def split_labels(cell: str, separator: str) -> list[str]:
    """The labels in a cell, less quotes and what is no label; repeats stay.

    Raises:
        ValueError: As `list_of`.
    """
    parts = list_of(cell) if cell else []
    if parts is None:
        cell = unquoted(cell)
        parts = cell.split(separator) if separator else [cell]
    labels = []
    for part in parts:
        label = unquoted(part)
        if label.casefold() not in MISSING:
            labels += cuis_in(label) or [label]
    return labels


def unquoted(text: str) -> str:
    """A text less white space and quotes round it, those of word processors among them."""
    text = text.strip().strip(_QUOTES).strip()
    quoted = _SINGLE_QUOTES.fullmatch(text)
    return quoted[1].strip() if quoted else text


def fault_of(label: str, *, among_cuis: bool) -> tuple[str, str]:
    """Why a text cannot be a label, as a predicate, and what to do; ("", "") if it can.

    Args:
        label: The text.
        among_cuis: Whether most labels are CUIs, so that one which is almost a CUI is a slip.
    """
    if is_cui(label):
        return "", ""
    if is_number(label):
        return "is a number", (
            "A CUI is C and digits, such as C0817096. Write others in words, such as 'grade 2'."
        )
    if _SLIP.fullmatch(label) and (among_cuis or len(label) > 6):
        return "is not a CUI", "Is a letter O or l in it, instead of a digit?"
    if _CUI_WITHIN.search(label):
        return "holds a CUI and something else", "Give the CUI or the words."
    is_sentence = label.endswith(".") and " " in label
    if is_sentence or len(label) > LONGEST_LABEL or len(label.split()) > _MOST_WORDS:
        return "is a text, no label", (
            "Choose the column of labels with --label-column, or match words first: "
            "annotator concepts match."
        )
    if not any(character.isalnum() for character in label):
        return "is no label", "Leave the cell of an image without labels empty."
    return "", ""


def kind_of(cells: Counter[str]) -> str:
    """What a column holds: "binary" (yes and no), "cuis", "numbers", "texts" or "nothing".

    Args:
        cells: Its cells in lower case, and how often each occurs.
    """
    filled = {cell: n for cell, n in cells.items() if cell not in MISSING}
    if not filled:
        return "nothing"
    if filled.keys() <= YES | NO | UNSURE:
        return "binary"
    total = sum(filled.values())
    if 2 * sum(n for cell, n in filled.items() if _holds_cuis(cell)) > total:
        return "cuis"
    return "numbers" if all(map(is_number, filled)) else "texts"


def _holds_cuis(cell: str) -> bool:
    return cuis_in(cell) is not None or any(
        is_cui(part) for part in re.split(r"[;,|\s\[\](){}'\"\u2018-\u201f]+", cell)
    )
