"""Hierarchies of concepts: what is above what, from the tables that people have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest

from annotator.concepts.hierarchy import Hierarchy, read_hierarchy
from annotator.errors import AnnotatorError, FormatError

LUNG = {
    "NODULE": ("LUNG_FINDING", "MASS"),
    "EFFUSION": ("CHEST_FINDING",),
    "LUNG_FINDING": ("CHEST_FINDING",),
    "CHEST_FINDING": ("FINDING",),
    "MASS": ("FINDING",),
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_table(text: str, name: str = "hierarchy.csv") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_table


def test_ancestors_without_the_root() -> None:
    hierarchy = Hierarchy(LUNG)
    assert hierarchy.ancestors("NODULE") == {"LUNG_FINDING", "MASS", "CHEST_FINDING"}
    assert hierarchy.ancestors("CHEST_FINDING") == hierarchy.ancestors("FINDING") == frozenset()
    assert hierarchy.roots == ("FINDING",)
    assert hierarchy.closure(["EFFUSION", "C0000001"]) == {"EFFUSION", "CHEST_FINDING", "C0000001"}
    assert "FINDING" in hierarchy and "MASS" in hierarchy and "C0000001" not in hierarchy


def test_a_description_names_what_is_known_and_what_is_left_out() -> None:
    described = Hierarchy(LUNG).describe(["NODULE", "EFFUSION", "C0000001"])
    assert "2 of 3 concepts" in described and "3 broader ones" in described
    assert "roots, left out: FINDING" in described


def test_a_cycle_is_refused() -> None:
    with pytest.raises(AnnotatorError, match="A, B are ancestors of each other"):
        Hierarchy({"A": ("B",), "B": ("A", "C")})


def test_a_deep_hierarchy() -> None:
    chain = {f"C{i}": (f"C{i + 1}",) for i in range(50_000)}
    assert len(Hierarchy(chain).ancestors("C0")) == 49_999


@pytest.mark.parametrize(
    "text",
    [
        "concept,parent\nLung nodule,Lung finding\nLung finding,Finding\n",
        "Lung nodule,Lung finding\nLung finding,Finding\n",
        "child\tparent\nlung nodule\tLUNG FINDING\nLung Finding\tFinding\n",
        "parent,child\nLung finding,Lung nodule\nFinding,Lung finding\n",
        ",Parent,Concept\n0,Lung finding,Lung nodule\n1,Finding,Lung finding\n",  # pandas
        "Konzept;Parent\nLung nodule;Lung finding\nLung finding;Finding\n",  # Excel, German
        "CUI,Name,Parent\nLung nodule,a nodule,Lung finding\nLung finding,,Finding\nFinding,,\n",
        "\ufeffconcept,is_a\n\nLung nodule,Lung finding\nLung finding,Finding\nFinding,\n",
        "item,parents\nLung nodule,Lung finding;\nLung finding,Finding\nlung Nodule,Lung finding\n",
    ],
)
def test_tables(text: str, write: Callable[..., Path]) -> None:
    hierarchy = read_hierarchy(write(text))
    assert {c: p for c, p in hierarchy.parents.items() if p} == {
        "LUNG_NODULE": ("LUNG_FINDING",),
        "LUNG_FINDING": ("FINDING",),
    }
    assert hierarchy.names["LUNG_NODULE"].lower() == "lung nodule"
    assert hierarchy.ancestors("LUNG_NODULE") == {"LUNG_FINDING"}


def test_other_encodings_and_workbooks(tmp_path: Path) -> None:
    (tmp_path / "utf16.csv").write_text("concept\tparent\nÖdem\tBefund\n", encoding="utf-16")
    book = openpyxl.Workbook()
    for row in (("concept", "parent"), ("Ödem", "Befund")):
        book.active.append(row)
    book.save(tmp_path / "book.xlsx")
    for name in ("utf16.csv", "book.xlsx"):
        assert read_hierarchy(tmp_path / name).parents == {"ÖDEM": ("BEFUND",)}


def test_cuis_and_several_parents(write: Callable[..., Path]) -> None:
    rows = "CUI1,CUI2\nC0034079,c0024109\nC0034079,C0577916\nC0024109,Chest;Organ\n"
    hierarchy = read_hierarchy(write(rows))
    assert hierarchy.parents["C0034079"] == ("C0024109", "C0577916")
    assert hierarchy.parents["C0024109"] == ("CHEST", "ORGAN")
    assert hierarchy.names == {"CHEST": "Chest", "ORGAN": "Organ"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("concept,parent\nA,B\nB,C\nC,A\n", "A, B, C are ancestors of each other"),
        ("concept,parent\nA,B\nC1,C1\n", "line 3: C1 is its own parent"),
        ("concept,parent\nA,B\n,B\n", "line 3: the row has no concept"),
        ("concept,parent\nA,\u200b\n", "line 2: a cell has no word"),
        ("A\nB\nC\n", "only one column"),
        ("C0000005|T116|A1.4.1.2.1.7|Amino Acid|AT17648347|256|\n", "is MRSTY.RRF"),
        ("", "is empty"),
    ],
)
def test_refusals_say_what_is_wrong(text: str, words: str, write: Callable[..., Path]) -> None:
    with pytest.raises(FormatError, match=words):
        read_hierarchy(write(text))
