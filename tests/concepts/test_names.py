from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.concepts.names import cuis_of_names, read_names
from annotator.errors import FormatError


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('CUI,Name\nC1,Chest\nC2,"Lung, left"\n', {"C1": "Chest", "C2": "Lung, left"}),
        ("CUI,Canonical name\nC1,Chest\n", {"C1": "Chest"}),
        ("C1\tChest\nC2\tLung, left\n", {"C1": "Chest", "C2": "Lung, left"}),
        ("concept\tconcept_name\nC1\tChest\n", {"C1": "Chest"}),
        ("concept\nC1\n", None),
        ("number,concept,name\n1,C1,Chest\n", {"C1": "Chest"}),
        ("Name,CUI\nChest,c1\n", {"C1": "Chest"}),
        ("CUI,Name\nC1,Chest\nC1,Thorax\nC2,\nwhat,ever\n", {"C1": "Chest"}),
        ("CUI,Name\nC2,Lung, left\n", {"C2": "Lung, left"}),
        ("CUI;Name\nC1;Chest\nC2;Lung, left\n", {"C1": "Chest", "C2": "Lung, left"}),
        ("ID,Caption\nx,a chest\n", None),
    ],
)
def test_names(write, text, names):
    path = write(text)
    if names is None:
        with pytest.raises(FormatError, match="no column of CUIs"):
            read_names(path)
    else:
        assert read_names(path) == names


def rows(conso) -> list[str]:
    return [
        conso("C1", "Lungs", ts="S"),
        conso("C1", "Lung, NOS", stt="VO"),
        conso("C1", "Lung"),
        conso("C1", "Aardvark lung", ispref="N"),
        conso("C1", "Airbag", suppress="O"),
        conso("C1", "Lunge", lat="GER"),
        conso("C2", "Heart", suppress="E"),
        conso("C2", "Cardiac structure", ts="S", stt="VO", ispref="N"),
        conso("C2", "Cor", ts="S", stt="VO", ispref="N"),
        conso("C3", "Mano", lat="SPA"),
        conso("C4", "Old hand", suppress="Y"),
        conso("C5", "Foot"),
    ]


NAMES = {"C1": "Lung", "C2": "Cardiac structure", "C5": "Foot"}


@given(order=st.permutations(range(12)))
def test_preferred_names_whatever_the_order(tmp_path_factory, conso, order: list[int]) -> None:
    lines = rows(conso)
    path = tmp_path_factory.mktemp("names") / "names.txt"
    path.write_text("".join(lines[i] for i in order))
    assert read_names(path) == NAMES
    assert read_names(path, only={"C1", "C3", "C9"}) == {"C1": "Lung"}


def test_only_some_names_of_a_table(write) -> None:
    assert read_names(write("CUI,Name\nC1,Lung\nC2,Heart\n"), only={"C2"}) == {"C2": "Heart"}


def test_another_file_of_the_umls_is_named(write) -> None:
    path = write("C0032285|T047|B2.2.1.2.1|Disease or Syndrome|AT17648347|256|\n")
    with pytest.raises(FormatError, match=r"is MRSTY\.RRF, which has no names"):
        read_names(path)


def test_names_in_a_workbook(tmp_path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["CUI", "Name"], ["C1", "Lung, left"]):
        book.active.append(row)
    book.save(tmp_path / "names.xlsx")
    assert read_names(tmp_path / "names.xlsx") == {"C1": "Lung, left"}


def test_the_concept_of_a_name() -> None:
    terms = [
        ("C1", "Pneumonia", 0), ("C2", "pneumonia ", 3), ("C3", "Mass", 1), ("C4", "Mass", 1),
        ("C5", "Effusion", 2), ("C5", "effusion", 0), ("C6", "Other", 0),
    ]  # fmt: skip
    found = cuis_of_names({"PNEUMONIA", "MASS", "EFFUSION", "NOBODY"}, terms)
    assert found == {"PNEUMONIA": ("C1",), "EFFUSION": ("C5",)}
