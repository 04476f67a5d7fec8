from __future__ import annotations

import pytest

from annotator.concepts.lookup import NoSuchConcept, SeveralConcepts, find_concept

CONCEPTS = {"C1": 5, "C2": 9, "C10": 1, "C3": 9, "C4": 2, "C5": 1}
NAMES = {
    "C1": "Lung",
    "C2": "Lung mass",
    "C10": "Lung  nodule",
    "C3": "Übersicht des Thorax",
    "C4": "C5",
    "C9": "Absent from the index",
}


@pytest.mark.parametrize(
    ("text", "cui"),
    [
        ("C1", "C1"),
        ("c10", "C10"),
        ("lung", "C1"),  # the whole name, though others begin so
        ("LUNG MASS", "C2"),
        ("  lung   nodule ", "C10"),
        ("lung n", "C10"),
        ("nod", "C10"),
        ("übersicht", "C3"),
        ("thorax", "C3"),
        ("C5", "C5"),  # a CUI, though another's name is so
    ],
)
def test_what_is_meant(text: str, cui: str) -> None:
    assert find_concept(text, CONCEPTS, NAMES) == cui


def test_several() -> None:
    with pytest.raises(SeveralConcepts) as error:
        find_concept("lun", CONCEPTS, NAMES)
    assert error.value.cuis == ("C2", "C1", "C10")  # by frequency
    assert error.value.message == (
        "'lun' may mean 3 concepts: C2 Lung mass; C1 Lung; C10 Lung  nodule."
    )
    many = {f"C{i}": i for i in range(20)}
    with pytest.raises(SeveralConcepts, match=r"C19 x19; .* and 12 more"):
        find_concept("x", many, {cui: f"x{n}" for cui, n in many.items()})


@pytest.mark.parametrize("text", ["", "   ", "liver", "C99", "Absent from the index"])
def test_none(text: str) -> None:
    with pytest.raises(NoSuchConcept, match="None of the 6 concepts"):
        find_concept(text, CONCEPTS, NAMES)
