"""Concept ids: CUIs of the UMLS, and local ids of labels that are words.

Any label is a concept. One that is no CUI has a local id, which is a function of its words alone:
tables, indexes and runs that name the same label agree without knowing of each other.
"""

from __future__ import annotations

import re
import unicodedata

CUI = re.compile(r"C[0-9]+")  # as in the official checker; UMLS has seven digits

# What a cell of a run, or of a table of earlier years, cannot hold within a concept.
_RESERVED = re.compile(r"[%;,|\"]")
_ENCODED = re.compile(r"%[0-9A-F]{2}")


def is_cui(text: str) -> bool:
    """Return whether a text is a CUI, in upper or lower case."""
    return CUI.fullmatch(text.upper()) is not None


def concept_id(label: str) -> str:
    """The id of a label: a CUI in upper case, or the local id of its words.

    A local id has the words in upper case, since scorers ignore case, with `_` between them; signs
    that separate concepts in tables are percent-encoded (RFC 3986). Labels that differ only in
    case, white space, Unicode form (NFC) or invisible characters are one concept. An id is its own
    id.

    Raises:
        ValueError: Nothing is left of the label.
    """
    text = unicodedata.normalize("NFC", label)
    if not text.isascii():
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    text = "_".join("".join(c if c.isprintable() else " " for c in text).split())
    text = text.casefold().upper()
    if not text:
        raise ValueError(f"{label!r} is no label")
    if is_concept_id(text):
        return text
    return _RESERVED.sub(lambda found: f"%{ord(found[0]):02X}", text)


def is_concept_id(text: str) -> bool:
    """Return whether a text is a concept's id: in upper case, without what separates concepts."""
    rest = _ENCODED.sub("", text)
    return (
        text != ""
        and text == text.upper()
        and text.isprintable()
        and not (_RESERVED.search(rest) or " " in rest)
    )
