"""Tables of corrections: whole sets of labels, and what changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotator.errors import FormatError
from annotator.tables.corrections import CorrectionTable, WantedLabels, read_corrections


def read(tmp_path: Path, text: str) -> CorrectionTable:
    path = tmp_path / "corrections.csv"
    path.write_text(text)
    return read_corrections(path)


def test_whole_sets(tmp_path: Path) -> None:
    table = read(tmp_path, "ID,CUIs,reason\na,C0000001;C0000002,second reading\nb,,\n")
    assert table.wanted == {
        "a": WantedLabels(("C0000001", "C0000002"), reason="second reading"),
        "b": WantedLabels(()),
    }
    assert table.wanted["a"].of(["C0000009"]) == ("C0000001", "C0000002")
    assert table.wanted["b"].of(["C0000009"]) == ()


def test_a_row_for_each_label_and_reasons_in_words(tmp_path: Path) -> None:
    table = read(
        tmp_path, "reason,image,finding\nso,a,Effusion\nso,a,Pneumonia\nso,b,Pneumonia\n,b,Mass\n"
    )
    assert {id_: one.concepts for id_, one in table.wanted.items()} == {
        "a": ("EFFUSION", "PNEUMONIA"),
        "b": ("PNEUMONIA", "MASS"),
    }
    assert [one.reason for one in table.wanted.values()] == ["so", ""]
    assert table.names["EFFUSION"] == "Effusion"


def test_what_is_added_and_removed(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        "ID,add,remove,Reason\na,C0000003;C0000001,C0000002,typo\nb,,C0000001,\nc,Mass,,\n",
    )
    assert table.wanted == {
        "a": WantedLabels(None, ("C0000003", "C0000001"), ("C0000002",), "typo"),
        "b": WantedLabels(None, (), ("C0000001",)),
        "c": WantedLabels(None, ("MASS",), ()),
    }
    assert table.names == {"MASS": "Mass"}
    present = ("C0000001", "C0000002")
    assert table.wanted["a"].of(present) == ("C0000001", "C0000003")
    assert table.wanted["b"].of(present) == ("C0000002",)
    assert table.wanted["c"].of(present) == (*present, "MASS")
    assert "3 images, concepts to add and to remove" in table.understood


def test_one_of_the_two_columns_is_enough(tmp_path: Path) -> None:
    for text in ("ID,add\na,C0000001\n", "ID,add,remove\na,C0000001,\n"):
        assert read(tmp_path, text).wanted == {"a": WantedLabels(None, ("C0000001",))}
    table = read(tmp_path, "remove;ID\nC0000001;a\n")
    assert table.wanted == {"a": WantedLabels(None, (), ("C0000001",))}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ID,add,remove\na,C0000001,C0000001\n", "line 2: C0000001 is to be added to 'a' and"),
        ("ID,add,remove\na,,\n", "nothing in its columns"),
        ("ID,add\na,C0000001;C0000003\na,C0000002\n", "already"),
        ("ID,CUIs\na,C0000001\nb,C00O0002\n", "line 3"),
    ],
)
def test_what_is_no_correction_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read(tmp_path, text)
