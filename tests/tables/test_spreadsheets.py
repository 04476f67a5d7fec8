from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.audit.findings import Finding, to_csv
from annotator.concepts.mapping import Suggestion, read_mapping, render_suggestions
from annotator.tables.captions import render_captions
from annotator.tables.spreadsheets import as_it_was, harmless

FORMULAS = ["=HYPERLINK(1)", "+1+1", "-2", "@SUM(A1)", "\t=1", "\r=1"]


@given(st.text())
def test_nothing_is_lost(text: str) -> None:
    assert as_it_was(harmless(text)) == text or text.startswith("'")
    assert not harmless(text).startswith(("=", "+", "-", "@"))


@pytest.mark.parametrize("text", ["", "pneumonia", "'quoted'", "a=b", "1-2"])
def test_most_texts_stay(text: str) -> None:
    assert harmless(text) == as_it_was(text) == text


def test_tables_for_people_and_runs(tmp_path: Path) -> None:
    for formula in FORMULAS[:4]:
        table = to_csv([Finding("exact", formula, formula, 1.0, formula)])
        assert list(csv.reader(io.StringIO(table)))[1][1:3] == [f"'{formula}"] * 2
        review = render_suggestions([Suggestion(formula, 3, "C0000001", formula)])
        assert "'" + formula in review
        (tmp_path / "review.csv").write_text(review)
        assert list(read_mapping(tmp_path / "review.csv").values()) == [("C0000001",)]
        run = render_captions([("image", formula)])
        assert f",{formula}\n" in run  # a program's
