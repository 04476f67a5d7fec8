"""Annotations in JSON lines: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotator.errors import FormatError
from annotator.tables.annotations import is_annotations, read_annotations, run_of

GOOD = '{"id": "a", "concepts": [{"cui": "C1", "score": 1}], "expected_f1": 0.5}'


def test_lines_are_told_from_a_run(tmp_path: Path) -> None:
    for text, lines in ((GOOD, True), (f"\ufeff\n {GOOD}", True), ("{a},C1", False), ("", False)):
        (tmp_path / "run").write_text(text)
        assert is_annotations(tmp_path / "run") == lines
    assert not is_annotations(tmp_path / "nowhere")


def test_an_older_file_has_no_probabilities(tmp_path: Path) -> None:
    (tmp_path / "run").write_text(f"{GOOD}\n\n")
    (found,) = read_annotations(tmp_path / "run")
    assert (found.id, found.cuis, found.scores) == ("a", ("C1",), (1.0,))
    assert (found.probabilities, found.expected_f1, found.line) == (None, 0.5, 1)
    (record,) = run_of(tmp_path / "run").records
    assert record == (1, ["a", "C1"])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "no JSON"),
        ("[]", "not an annotation"),
        ('{"concepts": []}', "no 'id'"),
        ('{"id": 3, "concepts": [], "expected_f1": 1}', "3 is no id"),
        (GOOD.replace("1}", "1.5}"), "1.5 is not a number from 0 to 1"),
        (GOOD.replace("1}", "NaN}"), "nan is not a number"),
        (GOOD.replace("1}", '1, "probability": true}'), "True is not a number"),
        (GOOD.replace("0.5", "null"), "None is not a number"),
        (GOOD.replace('"C1"', "null"), "None is no id"),
    ],
)
def test_what_is_refused(line: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "run").write_text(f"{GOOD}\n{line}\n")
    with pytest.raises(FormatError, match="line 2: ") as error:
        read_annotations(tmp_path / "run")
    assert why in error.value.message
