"""Rankings and judgements as files have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from annotator.errors import FormatError
from annotator.tables.ranking import is_qrels, read_qrels, read_ranking


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        (tmp_path / "file.txt").write_text(text)
        return tmp_path / "file.txt"

    return write


def test_a_table(write: Callable[[str], Path]) -> None:
    text = "ID,Similar\nq1,b; a;c\nq2,\nq3,x\n"
    wanted = {"q1": {"b": -1, "a": -2, "c": -3}, "q2": {}, "q3": {"x": -1}}
    assert read_ranking(write(text)) == wanted
    assert read_ranking(write(text.replace(",", "\t"))) == wanted
    assert read_ranking(write("q1,a\n")) == {"q1": {"a": -1}}


def test_a_trec_run(write: Callable[[str], Path]) -> None:
    run = "q2 Q0 x 1 -2e-1 t\nq1 Q0 a 1 0.5 t\nq1\tQ0\tb\t2\t0.75\tt\n\nq1 Q0 c 3 0.5 t\n"
    assert read_ranking(write(run)) == {"q2": {"x": -0.2}, "q1": {"a": 0.5, "b": 0.75, "c": 0.5}}


def test_judgements(write: Callable[[str], Path]) -> None:
    path = write("q1 0 a 2\nq1 0 b -1\nq2 0 a 0.5\n")
    assert is_qrels(path)
    assert read_qrels(path) == {"q1": {"a": 2.0, "b": -1.0}, "q2": {"a": 0.5}}
    for text in ("ID,CUIs\na,C1;C2\n", "a\tC1 C2 C3\n", "a\tC1;C2\n", "", "q Q0 a 1 0.5 t\n"):
        assert not is_qrels(write(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 a 1 0.5 t\nq Q0 b 2\n", "line 2: no row of a TREC run"),
        ("q Q0 a 1 0.5 t\nq Q0 b 2 nan t\n", "line 2: no row of a TREC run"),
        ("q Q0 a 1 0.5 t\nq Q0 a 2 0.1 t\n", "line 2: the document 'a' is there twice"),
        ("ID,Similar\nq,a;b;a\n", "line 2: a document is there twice"),
        ("ID,Similar\nq,a\nq,b\n", "line 3: the query 'q' is there already"),
    ],
)
def test_broken_rankings(write: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_ranking(write(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q 0 a 1\nq 0 b\n", "line 2: no row of TREC judgements"),
        ("q 0 a 1\nq 0 a 0\n", "line 2: the document 'a' is there twice"),
    ],
)
def test_broken_judgements(write: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_qrels(write(text))
