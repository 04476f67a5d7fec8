"""Runs of captions, written and read."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.errors import FormatError
from annotator.tables.captions import read_caption_run, render_captions

words = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), include_characters='\n\r\t\x0b\x1c",;|'),
    max_size=40,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(words, max_size=5))
def test_what_is_written_is_read_and_passes_the_check(captions: list[str]) -> None:
    text = render_captions((f"i{i}", caption) for i, caption in enumerate(captions))
    rows = list(csv.reader(io.StringIO(text, newline="")))
    wanted = [" ".join(caption.split()) for caption in captions]
    assert rows == [["ID", "Caption"], *([f"i{i}", caption] for i, caption in enumerate(wanted))]
    # What the check of 2026 asks: a row is a line, no outer white space, quotes round commas.
    lines = text.splitlines()
    assert len(lines) == len(rows) and all(line.strip() for line in lines)
    for line, (_, caption) in zip(lines[1:], rows[1:], strict=True):
        cell = line.split(",", 1)[1]
        assert caption == caption.strip()
        assert "," not in cell or (cell.startswith('"') and cell.endswith('"'))


def test_a_run(tmp_path: Path) -> None:
    text = render_captions([("b", 'A "mass",\n 2 cm'), ("a", ""), ("c", "plain")])
    assert text == 'ID,Caption\nb,"A ""mass"", 2 cm"\na,\nc,plain\n'
    (tmp_path / "run.csv").write_text(text)
    read = read_caption_run(tmp_path / "run.csv")
    assert read == {"b": 'A "mass", 2 cm', "a": "", "c": "plain"}
    assert list(read) == ["b", "a", "c"]


@pytest.mark.parametrize("ids", [("a", "a"), ("",), ("a,b",), ("a\nb",), (" a",), ('"a',)])
def test_ids_that_no_run_may_hold(ids: tuple[str, ...]) -> None:
    with pytest.raises(FormatError, match="image id"):
        render_captions((id_, "x") for id_ in ids)


def test_a_row_without_caption_column(tmp_path: Path) -> None:
    (tmp_path / "run.csv").write_text("ID,Caption\na,x\nb\n")
    with pytest.raises(FormatError, match="line 3: the row of 'b' has no second column"):
        read_caption_run(tmp_path / "run.csv")
