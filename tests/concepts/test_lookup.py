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


@pytest.mark.parametrize("text", ["", "   ", "\u200b", "liver", "C99", "Absent from the index"])
def test_none(text: str) -> None:
    with pytest.raises(NoSuchConcept, match="None of the 6 concepts"):
        find_concept(text, CONCEPTS, NAMES)


LABELS = {"CHEST_X-RAY": 4, "EFFUSION%2C_LEFT": 2, "PNEUMONIA": 3, "C0032285": 9, "CHEST": 1}
WORDS = {"CHEST_X-RAY": "Chest X-ray", "C0032285": "Pneumonia", "PNEUMONIA": "pneumonia"}


@pytest.mark.parametrize(
    ("text", "concept"),
    [
        ("chest x-ray", "CHEST_X-RAY"),
        ("CHEST_X-RAY", "CHEST_X-RAY"),
        ("chest", "CHEST"),
        ("x-ray", "CHEST_X-RAY"),
        ("effusion,  left", "EFFUSION%2C_LEFT"),
        ("Effusion", "EFFUSION%2C_LEFT"),  # its words, where it has no name
        ("pneumonia", "PNEUMONIA"),  # the label itself, though a CUI has that name
        ("c0032285", "C0032285"),
    ],
)
def test_labels_in_words(text: str, concept: str) -> None:
    assert find_concept(text, LABELS, WORDS) == concept


def test_labels_in_words_are_suggested() -> None:
    with pytest.raises(NoSuchConcept) as error:
        find_concept("chest xray", LABELS, WORDS)
    assert error.value.hint.startswith("Similar: CHEST_X-RAY Chest X-ray")
    with pytest.raises(SeveralConcepts) as several:
        find_concept("che", LABELS, WORDS)
    assert several.value.cuis == ("CHEST_X-RAY", "CHEST")
