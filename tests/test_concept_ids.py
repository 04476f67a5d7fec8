"""Ids of concepts: functions of the label alone, and safe in every table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.concept_ids import concept_id, is_concept_id, is_cui


@pytest.mark.parametrize(
    ("label", "id_"),
    [
        ("c0817096", "C0817096"),
        (" Chest  X-ray\n", "CHEST_X-RAY"),
        ("\u200bpneumonia\xa0", "PNEUMONIA"),
        ("HER2+", "HER2+"),
        ("HER2-", "HER2-"),
        ("Effusion, pleural", "EFFUSION%2C_PLEURAL"),
        ("50%", "50%25"),
        ("e\u0301panchement", "ÉPANCHEMENT"),
        ("肺 炎", "肺_炎"),
    ],
)
def test_the_id_of_a_label(label: str, id_: str) -> None:
    assert concept_id(label) == id_


@pytest.mark.parametrize("label", ["", "  ", "\u200b", "\n\t"])
def test_nothing_is_no_label(label: str) -> None:
    with pytest.raises(ValueError, match="no label"):
        concept_id(label)


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_an_id_is_its_own_id_and_stands_in_any_table(label: str) -> None:
    try:
        id_ = concept_id(label)
    except ValueError:
        return
    assert concept_id(id_) == id_ == concept_id(f" {label} ")
    assert is_concept_id(id_)
    assert not set(id_) & set(' ;,|"\t\n')


def test_what_is_a_cui() -> None:
    assert is_cui("C0817096")
    assert is_cui("c1")
    assert not is_cui("CHEST")
    assert not is_concept_id("chest")
    assert not is_concept_id("A B")
