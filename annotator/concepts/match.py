"""Matching of words to concepts by their English names: exact, normalised and fuzzy.

Normalisation follows `norm` of the SPECIALIST lexical tools (McCray, Srinivasan and Browne 1994):
case, diacritics, possessives, punctuation, stop words and word order do not count, nor do simple
plurals. Fuzzy similarity, from 0 to 1, is by optimal string alignment (insertions, deletions,
substitutions and swaps of neighbours) of the text without punctuation and stop words.

The names are streamed, as often as is needed, and only what may match is kept: memory depends on
the words alone, and the result not on the order of the names.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Literal, NamedTuple

from annotator.concepts.mapping import Suggestion
from annotator.concepts.names import Term, read_names, read_terms
from annotator.errors import AnnotatorError
from index.distribution import pip_install

Kind = Literal["exact", "normalised", "fuzzy"]

# How sure a match is, before it is shared among the concepts that match as well.
EXACT, NORMALISED, FUZZY, OTHER_CASE = 1.0, 0.95, 0.9, 0.5
SYNONYM = 0.02  # less sure where the name is not the concept's preferred one
LEAST_SIMILAR = 0.75  # of candidates by fuzzy matching

# An indel ratio below this means an optimal string alignment below `LEAST_SIMILAR`: each of its
# edits is at most two insertions and deletions, and the shorter text has that share of the longer.
_LEAST_RATIO = 100 * (1 - 2 * (1 - LEAST_SIMILAR) / (1 + LEAST_SIMILAR))
_SHORTEST = 5  # letters of a word that is matched fuzzily
_NAMES, _QUERIES = 10_000, 32  # compared at once, those of similar length
_ALTERNATIVES = 5
_KEPT = 500  # concepts of a word; there are that many for none of a real vocabulary

# Those of `norm`.
_STOP_WORDS = frozenset(["of", "and", "with", "for", "nos", "to", "in", "by", "on", "the"])
_PUNCTUATION = {ord(c): " " for c in map(chr, range(128)) if not c.isalnum()}
_POSSESSIVE = re.compile(r"['’]s\b|\(e?s\)", re.IGNORECASE)
_ABBREVIATION = re.compile(r"(?=.*[A-Z])[A-Z0-9][A-Z0-9&/+.-]{0,4}")
_SHORT_ABBREVIATION = re.compile(r"[A-Z0-9]{1,3}")


class Candidate(NamedTuple):
    """A concept that a word may mean.

    Attributes:
        cui: The concept.
        kind: How its name matches.
        sure: How sure that is, 0..1.
    """

    cui: str
    kind: Kind
    sure: float


@dataclass
class _Found:
    """How a concept matches a word so far: its best level, and the number of names that have it."""

    level: float
    preferred: bool
    names: int = 1

    @property
    def sure(self) -> float:
        return round(self.level - (0 if self.preferred else SYNONYM), 2)

    @property
    def kind(self) -> Kind:
        if self.level in (EXACT, OTHER_CASE):
            return "exact"
        return "normalised" if self.level == NORMALISED else "fuzzy"


class _Candidates:
    """The best concepts of one word, whatever the order in which they are offered."""

    def __init__(self) -> None:
        self._found: dict[str, _Found] = {}

    def offer(self, cui: str, level: float, preferred: bool) -> None:
        found = self._found.get(cui)
        if found is None or level > found.level:
            self._found[cui] = _Found(level, preferred)
            if len(self._found) > 2 * _KEPT:
                best = sorted(self._found.items(), key=_goodness)[:_KEPT]
                self._found = dict(best)
        elif level == found.level:
            found.preferred |= preferred
            found.names += 1

    @property
    def best(self) -> float:
        """How sure the best one is; 0 without any."""
        return max((found.sure for found in self._found.values()), default=0.0)

    def ranked(self) -> tuple[Candidate, ...]:
        """All, the surest first; those that match equally well share it by their names."""
        top = self.best
        tied = [found.names for found in self._found.values() if found.sure == top]
        least = round(top * min(tied, default=0) / max(sum(tied), 1), 2)
        candidates = [
            Candidate(
                cui,
                found.kind,
                round(top * found.names / sum(tied), 2)
                if found.sure == top
                else min(found.sure, least),
            )
            for cui, found in sorted(self._found.items(), key=_goodness)
        ]
        return tuple(sorted(candidates, key=lambda candidate: -candidate.sure))


def _goodness(item: tuple[str, _Found]) -> tuple[float, str]:
    return -item[1].sure, item[0]


def suggest(
    words: Mapping[str, int], path: Path | str, *, threshold: float = 0.75, fuzzy: bool = True
) -> list[Suggestion]:
    """Suggest the concept that each word means, for review.

    Args:
        words: How often each word occurs.
        path: MRCONSO.RRF, or a table of names.
        threshold: How sure a concept must be, 0..1; less sure ones are only alternatives.
        fuzzy: Also match fuzzily (see `match_words`).

    Returns:
        A suggestion for each word, the most frequent words first.

    Raises:
        FormatError: As `read_terms`.
        AnnotatorError: As `match_words`.
    """
    ordered = sorted(words, key=lambda word: (-words[word], word))
    found = match_words(ordered, lambda: read_terms(path), fuzzy=fuzzy)
    shown = [candidates[: _ALTERNATIVES + 1] for candidates in found]
    cuis = {candidate.cui for candidates in shown for candidate in candidates}
    names = read_names(path, only=cuis) if cuis else {}
    return [
        _suggestion(word, words[word], candidates, names, threshold)
        for word, candidates in zip(ordered, shown, strict=True)
    ]


def _suggestion(
    word: str,
    count: int,
    candidates: Sequence[Candidate],
    names: Mapping[str, str],
    threshold: float,
) -> Suggestion:
    if not candidates:
        return Suggestion(word, count)
    best = candidates[0]
    sure = best.sure >= threshold
    return Suggestion(
        word,
        count,
        best.cui if sure else "",
        names[best.cui] if sure else "",
        best.kind,
        best.sure,
        tuple((c.cui, names[c.cui], c.sure) for c in candidates[sure:][:_ALTERNATIVES]),
    )


def match_words(
    words: Sequence[str], terms: Callable[[], Iterable[Term]], *, fuzzy: bool = True
) -> list[tuple[Candidate, ...]]:
    """Find the concepts that each word may mean, the surest first.

    - `exact`: the same letters, in either case. An abbreviation (CT, US) must have the same case,
      unless the words have no lower or no upper case at all; otherwise it is half as sure.
    - `normalised`: the same words after normalisation. Abbreviations are not normalised.
    - `fuzzy`: similar, for words without a match of the other kinds. Parts of
      up to three letters and parts with digits (T1, ii, no) must be the same.

    A match with a preferred name is a little surer than one with a synonym. Concepts that match
    equally well share how sure the match is, in proportion to the number of their names that match.

    Args:
        words: The words, all different.
        terms: Streams the names; called once, or twice for fuzzy matching.
        fuzzy: Also match fuzzily, which needs rapidfuzz.

    Raises:
        AnnotatorError: rapidfuzz is not installed.
    """
    if fuzzy:
        _require_rapidfuzz()
    candidates = [_Candidates() for _ in words]
    text = "".join(words)
    has_case = text != text.lower() and text != text.upper()
    abbreviated = [has_case and _ABBREVIATION.fullmatch(word) is not None for word in words]
    _match_exactly(words, abbreviated, has_case, terms(), candidates)
    left = [
        (words[i], found)
        for i, found in enumerate(candidates)
        if found.best <= OTHER_CASE and not abbreviated[i] and len(words[i]) >= _SHORTEST
    ]
    if fuzzy and left:
        _match_fuzzily(left, terms())
    return [found.ranked() for found in candidates]


def _require_rapidfuzz() -> None:
    try:
        import rapidfuzz  # noqa: F401
    except ImportError as error:
        raise AnnotatorError(
            "Fuzzy matching needs rapidfuzz, which is not installed.",
            f"Run {pip_install('umls')}, or use --no-fuzzy.",
        ) from error


def _match_exactly(
    words: Sequence[str],
    abbreviated: Sequence[bool],
    has_case: bool,
    terms: Iterable[Term],
    candidates: Sequence[_Candidates],
) -> None:
    exact: dict[str, list[int]] = {}
    normal: dict[str, list[int]] = {}
    parts: set[str] = set()
    for i, word in enumerate(words):
        exact.setdefault(_plain(word), []).append(i)
        if not abbreviated[i] and (own := normalise(word)):
            normal.setdefault(" ".join(sorted(own)), []).append(i)
            parts.update(own)
    # Most names are left out by one look-up of their parts, before they are normalised.
    known = _STOP_WORDS | parts.union(*map(_inflections, parts))
    for cui, name, rank in terms:
        plain = _plain(name)
        for i in exact.get(plain, ()):
            same_case = not has_case or not (abbreviated[i] or _SHORT_ABBREVIATION.fullmatch(name))
            level = EXACT if same_case or name == words[i] else OTHER_CASE
            candidates[i].offer(cui, level, rank == 0)
        if known.issuperset(_split(name)):
            key = " ".join(sorted(normalise(name)))
            for i in normal.get(key, ()):
                if plain != _plain(words[i]):
                    candidates[i].offer(cui, NORMALISED, rank == 0)


def _match_fuzzily(wanted: Sequence[tuple[str, _Candidates]], terms: Iterable[Term]) -> None:
    queries = sorted(
        {
            (len(text), text, i)
            for i, (word, _) in enumerate(wanted)
            for text in _orders(word)
            if text
        }
    )
    shortest = LEAST_SIMILAR * queries[0][0]
    longest = queries[-1][0] / LEAST_SIMILAR
    names = (
        (len(text), text, cui, rank)
        for cui, name, rank in terms
        if len(name) >= shortest and shortest <= len(text := " ".join(_parts(name))) <= longest
    )
    while block := sorted(islice(names, _NAMES), key=itemgetter(0)):
        for q, n, similarity in _similar(queries, block):
            _, query, i = queries[q]
            _, text, cui, rank = block[n]
            if _firm(query) == _firm(text):
                wanted[i][1].offer(cui, FUZZY * similarity, rank == 0)


def _similar(
    queries: Sequence[tuple[int, str, int]], block: Sequence[tuple[int, str, str, int]]
) -> Iterator[tuple[int, int, float]]:
    """Positions of similar queries and names, both sorted by length, and their similarity."""
    import numpy as np
    from rapidfuzz import fuzz
    from rapidfuzz.distance import OSA
    from rapidfuzz.process import cdist

    lengths, texts = zip(*((length, text) for length, text, *_ in block), strict=True)
    for start in range(0, len(queries), _QUERIES):
        some = queries[start : start + _QUERIES]
        first = bisect_left(lengths, LEAST_SIMILAR * some[0][0])
        last = bisect_right(lengths, some[-1][0] / LEAST_SIMILAR)
        if first == last:
            continue
        ratios = cdist(
            [text for _, text, _ in some],
            texts[first:last],
            scorer=fuzz.ratio,
            score_cutoff=_LEAST_RATIO,
            dtype=np.uint8,
            workers=-1,
        )
        for q, n in np.argwhere(ratios).tolist():
            similarity = OSA.normalized_similarity(
                some[q][1], texts[first + n], score_cutoff=LEAST_SIMILAR
            )
            if similarity:
                yield start + q, first + n, similarity


def normalise(text: str) -> list[str]:
    """The parts of a text that count, in the singular, in their order."""
    return [_singular(part) for part in _parts(text)]


def _parts(text: str) -> list[str]:
    """The parts of a text without stop words, unless there are no others."""
    parts = _split(text)
    if _STOP_WORDS.isdisjoint(parts):
        return parts
    return [part for part in parts if part not in _STOP_WORDS] or parts


def _plain(text: str) -> str:
    """A text in lower case, with single spaces, in NFC."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.casefold().split())


def _split(text: str) -> list[str]:
    """The parts of a text between white space and punctuation, in lower case, without accents."""
    if "'" in text or "(" in text or "’" in text:
        text = _POSSESSIVE.sub("", text)
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        text = "".join(c if c.isalnum() else " " for c in text if not unicodedata.combining(c))
    return text.casefold().translate(_PUNCTUATION).split()


def _singular(part: str) -> str:
    """A part without the ending of a simple plural, in English or of a Greek or Latin word."""
    if len(part) <= 3:
        return part
    if part.endswith(("sis", "ses")):  # metastasis, diseases
        return part[:-2]
    if part.endswith("se"):
        return part[:-1]
    if part.endswith("ies"):
        return part[:-3] + "y"
    if part.endswith(("xes", "ches", "shes", "zes")):
        return part[:-2]
    if part.endswith("ae") or (part.endswith("s") and not part.endswith(("ss", "us", "is"))):
        return part[:-1]
    return part


def _inflections(part: str) -> tuple[str, ...]:
    """Whatever `_singular` may turn into a part."""
    return *(part + ending for ending in ("", "s", "es", "e", "is")), part[:-1] + "ies"


def _orders(word: str) -> set[str]:
    """The parts of a word as one text, also before an inversion ("effusion, pleural")."""
    head, _, rest = word.partition(",")
    return {" ".join(_parts(text)) for text in (word, f"{rest} {head}")}


def _firm(text: str) -> list[str]:
    """Parts of a text in which one letter more or less has another meaning."""
    return sorted(part for part in text.split() if len(part) <= 3 or any(c.isdigit() for c in part))
