from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.render.text_table import columns, fitted_to, section

LONG = "Structure of the left lower lobe of the lung"


def test_text_is_flush_left_and_numbers_flush_right() -> None:
    assert columns(("name", "n", "F1"), [("a", 1234, 0.25), ("longer", 5, 1.0)]) == [
        "name        n      F1",
        "a       1,234  0.2500",
        "longer      5  1.0000",
    ]


def test_a_table_without_rows_and_without_trailing_blanks() -> None:
    for width in (None, 40):
        with fitted_to(width):
            assert columns(("a", "b"), []) == ["a  b"]
            assert columns(("a", "b"), [("x", "")]) == ["a  b", "x"]


def test_without_a_terminal_nothing_is_cut() -> None:
    assert columns(("a", "b", "c"), [(LONG, LONG, 0.5)], decimals=1)[1] == f"{LONG}  {LONG}  0.5"


def test_texts_are_cut_to_fit_but_names_of_rows_and_numbers_are_not() -> None:
    rows = [("C1261077", LONG, 12, 0.5), ("C0817096", "Chest", 7, 0.25)]
    with fitted_to(42):
        assert columns(("CUI", "name", "n", "F1"), rows) == [
            "CUI       name                 n      F1",
            "C1261077  Structure of the…   12  0.5000",
            "C0817096  Chest                7  0.2500",
        ]
    with fitted_to(30):
        assert columns(("CUI", "name", "n", "F1"), rows)[1] == "C1261077 Structure… 12 0.5000"


def test_the_widest_texts_are_cut_first() -> None:
    with fitted_to(40):
        assert columns(("id", "a", "b"), [("x", "short", LONG)])[1] == (
            "x   short  Structure of the left lowe…"
        )


def test_east_asian_letters_take_two_columns() -> None:
    assert columns(("id", "n"), [("胸部X線", 1), ("Chest", 22)]) == [
        "id        n",
        "胸部X線   1",
        "Chest    22",
    ]
    with fitted_to(16):
        assert columns(("id", "name"), [("a", "胸部X線写真像")])[1] == "a   胸部X線写…"


texts = st.text(st.characters(categories=("Lu", "Ll", "Lo", "Zs")), min_size=1, max_size=60)


@given(st.lists(st.tuples(texts, texts, st.integers(0, 10**6)), min_size=1), st.integers(50, 200))
def test_lines_fit_where_the_names_of_rows_leave_room(rows, width: int) -> None:
    rows = [(key[:20], text, n) for key, text, n in rows]
    with fitted_to(width):
        lines = columns(("id", "text", "n"), rows)
    shown = [
        sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line) for line in lines
    ]
    longest = max(2 * len(key) for key, _, _ in rows)
    assert max(shown) <= max(width - 2, longest + 21)


@pytest.mark.parametrize("width", [None, 20])
def test_a_section_is_titled_and_indented(width: int | None) -> None:
    with fitted_to(width):
        assert section("Title", ["one", "two"]) == ["", "Title", "  one", "  two"]
