from __future__ import annotations

import pytest

from annotator.concepts.mapping import read_mapping
from annotator.errors import FormatError


@pytest.mark.parametrize(
    "text",
    [
        "word,count,CUI,name,match,sure,alternatives\n"
        "Chest X-ray,7,C0039985,Plain chest X-ray,exact,1,\n"
        '"Effusion, left",2,C1; c0002,,,,C3 x (0.5)\nthing,1,,,,,C9 Thing (0.6)\n',
        "CUI,word\nC0039985,Chest X-ray\nC1 C0002,\"Effusion, left\"\n,thing\n",
        'Chest X-ray,C0039985\n"Effusion, left",C1;C0002\nthing,\n',
        "chest  x-RAY\tc0039985\nEffusion, left\tC1,C0002\nthing\t\nThing\t\n",
        'label,concept\nChest X-ray,C0039985\n"Effusion, left",C1;C0002;C1\nthing\n',
        'Finding;UMLS CUI\nChest X-ray;C0039985\n"Effusion, left";"C1;C0002"\nthing;\n',
        "concept,finding name\nC0039985,Chest X-ray\nC1;C0002,\"Effusion, left\"\n,thing\n",
    ],
)  # fmt: skip
def test_reading(write, text: str) -> None:
    assert read_mapping(write(text)) == {
        "CHEST_X-RAY": ("C0039985",),
        "EFFUSION%2C_LEFT": ("C1", "C0002"),
        "THING": (),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("word,CUI\nx,C1\n,C2\n", "line 3: the row has no word"),
        ("word,CUI\nx,pneumonia\n", "line 2: 'PNEUMONIA', the concept of 'x', is not a CUI"),
        ("word,CUI\nx,C1\nX,C2\n", "line 3: 'X' is mapped to C2, and on line 2 to C1"),
        ("word,CUI\nx,C1\nx,\n", "line 3: 'x' is mapped to nothing, and on line 2 to C1"),
        ("word,name\nx,y\n", "no column called CUI"),
        ("CUI,name,sure\nC1,x,y\n", "no column called word"),
        ("x\ny\n", "only one column"),
        ("", "is empty"),
    ],
)
def test_what_is_wrong_is_said(write, text: str, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        read_mapping(write(text))


def test_a_workbook(tmp_path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["word", "CUI"], ["Chest X-ray", "C1;C2"], ["thing", None]):
        book.active.append(row)
    book.save(tmp_path / "review.xlsx")
    assert read_mapping(tmp_path / "review.xlsx") == {"CHEST_X-RAY": ("C1", "C2"), "THING": ()}
