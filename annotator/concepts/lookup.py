"""Lookup of concepts by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from urllib.parse import unquote

from annotator.concept_ids import concept_id, is_cui
from annotator.errors import AnnotatorError

_LISTED = 8


class NoSuchConcept(AnnotatorError):
    """No concept of the index matches a text."""


class SeveralConcepts(AnnotatorError):
    """A text matches several concepts.

    Args:
        text: The text.
        cuis: Matching concepts, most frequent first.
        shown: Their display names.
    """

    def __init__(self, text: str, cuis: Sequence[str], shown: Sequence[str]) -> None:
        more = f" and {len(cuis) - _LISTED} more" if len(cuis) > _LISTED else ""
        super().__init__(
            f"{text!r} may mean {len(cuis)} concepts: {'; '.join(shown[:_LISTED])}{more}.",
            "Give the id of one.",
        )
        self.cuis = tuple(cuis)


def find_concept(
    text: str, concepts: Mapping[str, int], names: Mapping[str, str], *, suggest: bool = True
) -> str:
    """Find the concept for a text: its id, its name, or the beginning or a part of its name.

    These are tried in this order, ignoring case; the first kind with a match decides. The words of
    a label are its id, so that they always mean the label itself.

    Args:
        text: A CUI, a label in words, or a name.
        concepts: Number of images by concept of the index.
        names: Name by concept, where known; a label in words is its own name.
        suggest: Suggest similar names in the error, which is slower.

    Raises:
        NoSuchConcept: Nothing matches.
        SeveralConcepts: Several match equally well.
    """
    wanted = _plain(text)
    for meant in _readings(text, concepts, names) if wanted else ():
        if len(meant) == 1:
            return meant[0]
        if meant:
            meant.sort(key=lambda cui: (-concepts[cui], cui))
            raise SeveralConcepts(text, meant, [_shown(cui, names) for cui in meant])
    similar = _similar(wanted, concepts, names) if suggest else []
    raise NoSuchConcept(
        f"None of the {len(concepts):,} concepts of the index is called {text!r}.",
        f"Similar: {'; '.join(_shown(cui, names) for cui in similar)}."
        if similar
        else "`annotator info` shows the most frequent ones.",
    )


def _similar(wanted: str, concepts: Mapping[str, int], names: Mapping[str, str]) -> list[str]:
    known: dict[str, str] = {}
    for cui in sorted(concepts, key=lambda cui: concepts[cui]):
        known |= dict.fromkeys((cui.casefold(), _plain(_name(cui, names))), cui)  # frequent last
    return list(dict.fromkeys(known[near] for near in get_close_matches(wanted, known, 3, 0.5)))


def _name(concept: str, names: Mapping[str, str]) -> str:
    """The name of a concept, or the words of a label that has no other; empty if unknown."""
    name = names.get(concept, "")
    return name if name or is_cui(concept) else unquote(concept).replace("_", " ").lower()


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()


def _shown(cui: str, names: Mapping[str, str]) -> str:
    return f"{cui} {names.get(cui, '')}".strip()


def _readings(
    text: str, concepts: Mapping[str, int], names: Mapping[str, str]
) -> Iterator[list[str]]:
    with contextlib.suppress(ValueError):  # nothing but invisible characters
        own = concept_id(text)
        yield [own] if own in concepts else []
    wanted = _plain(text)
    plain = {cui: name for cui in concepts if (name := _plain(_name(cui, names)))}
    yield [cui for cui, name in plain.items() if name == wanted]
    yield [cui for cui, name in plain.items() if name.startswith(wanted)]
    yield [cui for cui, name in plain.items() if wanted in name]
