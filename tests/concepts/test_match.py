from __future__ import annotations

import itertools
import string
from collections.abc import Callable, Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.concepts.mapping import Suggestion, read_mapping, render_suggestions
from annotator.concepts.match import Candidate, match_words, normalise, suggest
from annotator.concepts.names import Term

TERMS: list[Term] = [
    ("C01", "Pneumonia", 0),
    ("C01", "Lung inflammation", 4),
    ("C02", "Pleural Effusion", 0),
    ("C02", "Effusion, pleural", 4),
    ("C03", "X-Ray Computed Tomography", 0),
    ("C03", "CT", 4),
    ("C03", "ct", 4),
    ("C03", "Computed tomography", 4),
    ("C04", "Connecticut", 0),
    ("C04", "CT", 4),
    ("C05", "Lymphoblastic Leukemia", 0),
    ("C05", "ALL", 4),
    ("C06", "All", 0),
    ("C07", "Crohn's disease of the ileum", 0),
    ("C08", "Cyst", 0),
    ("C09", "Café au lait spots", 0),
    ("C10", "Stage II lesion", 0),
    ("C11", "T1 weighted image", 0),
    ("C12", "Cold", 0),
    ("C13", "Cold", 0),
    ("C13", "cold", 4),
    ("C13", "COLD", 4),
    ("C14", "Metastases", 0),
]


def best(word: str, *others: str, terms: Sequence[Term] = TERMS) -> Candidate | None:
    found = match_words([word, *others, "Aa"], lambda: terms)[0]
    return found[0] if found else None


@pytest.mark.parametrize(
    ("word", "cui", "kind", "sure"),
    [
        ("Pneumonia", "C01", "exact", 1.0),
        ("  pneumonIA ", "C01", "exact", 1.0),
        ("lung inflammation", "C01", "exact", 0.98),
        ("effusions of the pleural", "C02", "normalised", 0.95),
        ("computed tomography, X-ray", "C03", "normalised", 0.95),
        ("tomography (computed)", "C03", "normalised", 0.93),
        ("ileum: Crohn disease", "C07", "normalised", 0.95),
        ("cyst(s)", "C08", "normalised", 0.95),
        ("CYSTS", "C08", None, None),  # looks like an abbreviation
        ("cafe-au-lait spot", "C09", "normalised", 0.95),
        ("pneumona", "C01", "fuzzy", 0.8),
        ("Effussion, Pleural", "C02", "fuzzy", 0.85),
        ("Effusion, plaural", "C02", "fuzzy", 0.84),
        ("stage II leison", "C10", "fuzzy", 0.84),
        ("stage III lesion", "C10", None, None),
        ("T2 weighted image", "C11", None, None),
        ("metastasis", "C14", "normalised", 0.95),
        ("cyts", "C08", None, None),  # too short
    ],
)
def test_kinds(word: str, cui: str, kind: str | None, sure: float | None) -> None:
    found = best(word)
    assert found == (Candidate(cui, kind, sure) if kind and sure else None)


def test_abbreviations_have_their_case() -> None:
    assert best("ALL") == Candidate("C05", "exact", 0.98)
    assert best("all") == Candidate("C06", "exact", 1.0)
    assert best("All") == Candidate("C06", "exact", 1.0)
    assert best("Ct", terms=[("C04", "CT", 4)]) == Candidate("C04", "exact", 0.48)
    # Words that are all in one case do not tell an abbreviation from another word.
    (found,) = match_words(["CYSTS"], lambda: TERMS)
    assert found == (Candidate("C08", "normalised", 0.95),)
    (found,) = match_words(["ct"], lambda: TERMS)
    assert found[0] == Candidate("C03", "exact", 0.65)


def test_concepts_that_match_equally_share_it_by_their_names() -> None:
    (found, cold) = match_words(["CT", "Cold"], lambda: TERMS)
    assert found == (Candidate("C03", "exact", 0.49), Candidate("C04", "exact", 0.49))
    assert cold == (Candidate("C13", "exact", 0.75), Candidate("C12", "exact", 0.25))


names = st.text("abcdeABC 1-,'éß", min_size=1, max_size=12).filter(lambda s: normalise(s))
terms = st.lists(
    st.tuples(st.integers(1, 6).map("C{:07d}".format), names, st.sampled_from([0, 4])), max_size=25
)


@given(terms=terms, words=st.lists(names, unique=True, max_size=8), data=st.data())
def test_the_order_of_names_does_not_matter(terms, words, data) -> None:
    order = data.draw(st.permutations(terms))
    found = match_words(words, lambda: terms)
    assert match_words(words, lambda: order) == found
    for candidates in found:
        assert all(0 < c.sure <= 1 for c in candidates)
        assert [c.sure for c in candidates] == sorted((c.sure for c in candidates), reverse=True)
        assert len({c.cui for c in candidates}) == len(candidates)


@given(terms=terms, words=st.lists(names, max_size=4))
def test_a_preferred_name_means_its_concept(terms, words) -> None:
    preferred: dict[str, set[str]] = {}
    for cui, name, rank in terms:
        if rank == 0:
            preferred.setdefault(" ".join(name.casefold().split()), set()).add(cui)
    own = [(name, cui) for cui, name, rank in terms if rank == 0]
    own = [pair for pair in own if len(preferred[" ".join(pair[0].casefold().split())]) == 1]
    searched = list(dict.fromkeys([name for name, _ in own] + words))
    found = dict(zip(searched, match_words(searched, lambda: terms), strict=True))
    for name, cui in own:
        assert found[name][0] == Candidate(cui, "exact", 1.0)


@given(st.text("aehisuxyz", min_size=1, max_size=6))
def test_plurals(word: str) -> None:
    from annotator.concepts.match import _inflections, _singular

    assert word in _inflections(_singular(word))
    assert normalise(f"The {word}") == normalise(f"{word.upper()}, NOS")


def edited(word: str) -> set[str]:
    """Everything that is one edit from a word."""
    cuts = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    letters = string.ascii_lowercase[:5]
    return (
        {a + b[1:] for a, b in cuts if b}
        | {a + c + b for a, b in cuts for c in letters}
        | {a + c + b[1:] for a, b in cuts if b for c in letters}
        | {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    )


def test_one_edit_is_always_found_whatever_is_compared_at_once(monkeypatch) -> None:
    from annotator.concepts import match

    wanted = sorted(edited("tuberculosis"))
    noise = [
        (f"C{i:07d}", "".join(letters), 0)
        for i, letters in enumerate(itertools.product("xyz", repeat=5), 1)
    ]
    terms = [*noise[:100], ("C9999999", "Tuberculosis", 0), *noise[100:]]
    found = match_words(wanted, lambda: terms)
    assert {candidates[0].cui for candidates in found} == {"C9999999"}
    assert {candidates[0].sure for candidates in found} == {0.82, 0.83, 0.95, 1.0}
    monkeypatch.setattr(match, "_NAMES", 7)
    monkeypatch.setattr(match, "_QUERIES", 3)
    assert match_words(wanted, lambda: terms) == found


def test_only_the_best_concepts_of_a_word_are_kept(monkeypatch) -> None:
    from annotator.concepts import match

    monkeypatch.setattr(match, "_KEPT", 3)
    many: list[Term] = [(f"C{i}", "Lungs", 0) for i in range(1, 9)]
    (found,) = match_words(["lung"], lambda: [*many, ("C9", "Lung", 0), *many])
    assert found[0] == Candidate("C9", "exact", 1.0) and len(found) <= 7


Write = Callable[..., object]


def test_suppressed_and_foreign_terms_never_match(write, conso) -> None:
    path = write(
        conso("C1", "Pneumonie", lat="FRE")
        + conso("C2", "Pneumonia", suppress="O")
        + conso("C3", "Pneumonia", suppress="Y")
        + conso("C4", "pneumonia", suppress="E")
    )
    for word in ("pneumonia", "pneumonias", "pneumonie", "pneumoni"):
        assert suggest({word: 1}, path) == [Suggestion(word, 1)]


def test_the_review_table_is_read_as_a_mapping(write, conso) -> None:
    row = partial(conso, ts="S")
    path = write(
        conso("C0000001", 'Shadow, "coin"')
        + row("C0000001", "coin; lesion")
        + conso("C0000002", "Night")
        + row("C0000001", "twilight")
        + row("C0000002", "twilight")
    )
    words = {'shadow, "coin"': 3, "coin; lesion": 5, "twilight": 3, "nightt": 1, "dew": 9}
    suggestions = suggest(words, path)
    text = render_suggestions(suggestions)
    assert text == (
        "word,count,CUI,name,match,sure,alternatives\n"
        "dew,9,,,,0.00,\n"
        'coin; lesion,5,C0000001,"Shadow, ""coin""",exact,0.98,\n'
        '"shadow, ""coin""",3,C0000001,"Shadow, ""coin""",exact,1.00,\n'
        'twilight,3,,,exact,0.49,"C0000001 Shadow, ""coin"" (0.49); C0000002 Night (0.49)"\n'
        "nightt,1,C0000002,Night,fuzzy,0.75,\n"
    )
    assert list(read_mapping(write(text, "review.csv")).values()) == [
        (),
        ("C0000001",),
        ("C0000001",),
        (),
        ("C0000002",),
    ]
    strict = suggest(words, path, threshold=0.99)
    assert [s.cui for s in strict] == ["", "", "C0000001", "", ""]
    assert strict[-1].alternatives == (("C0000002", "Night", 0.75),)
    assert [s.kind for s in suggest(words, path, fuzzy=False)][-1] == ""
