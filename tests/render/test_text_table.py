from __future__ import annotations

from annotator.render.text_table import columns, section


def test_text_is_flush_left_and_numbers_flush_right() -> None:
    assert columns(("name", "n", "F1"), [("a", 1234, 0.25), ("longer", 5, 1.0)]) == [
        "name        n      F1",
        "a       1,234  0.2500",
        "longer      5  1.0000",
    ]


def test_a_table_without_rows_and_without_trailing_blanks() -> None:
    assert columns(("a", "b"), []) == ["a  b"]
    assert columns(("a", "b"), [("x", "")]) == ["a  b", "x"]


def test_long_cells_are_cut_and_decimals_chosen() -> None:
    long = "x" * 60
    assert columns(("a",), [(long,)])[1] == "x" * 47 + "…"
    assert columns(("a", "b"), [(long, 0.5)], decimals=1, max_width=None)[1] == f"{long}  0.5"


def test_a_section_is_titled_and_indented() -> None:
    assert section("Title", ["one", "two"]) == ["", "Title", "  one", "  two"]
