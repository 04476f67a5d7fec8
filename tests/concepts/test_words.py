from __future__ import annotations

import pytest

from annotator.concepts.words import count_words
from annotator.errors import FormatError


@pytest.mark.parametrize(
    "text",
    [
        "Chest X-ray\nchest  x-ray\nEffusion, left\n\nC0032285\n",
        'word\n"Effusion, left"\nChest X-ray\nChest x-ray\n',
        "Findings\nEffusion, left\nChest X-ray\nChest x-ray\n",
        'ID,labels\na,"Chest X-ray;Effusion, left"\nb,chest x-ray\nc,C0032285\nd,\n',
        'ID;labels\na;"Chest X-ray; Effusion, left"\nb;"chest x-ray;C0032285"\nc;C0032285\n',
        'image,Chest X-ray,"Effusion, left",C0032285\na,1,0,0\nb,1,1,0\nc,0,0,1\n',
    ],
)
def test_words_are_counted(write, text: str) -> None:
    words, understood = count_words(write(text))
    assert words == {"Chest X-ray": 2, "Effusion, left": 1}
    assert "list of" in understood or "images" in understood


def test_a_column_is_named(write) -> None:
    path = write("ID,a,b\nx,lung,heart\ny,hand,heart\n")
    assert count_words(path, column=["b"])[0] == {"heart": 2}


def test_nothing_to_match(write) -> None:
    for text in ("C1\nC2\n", "ID,CUIs\na,C1;C2\nb,C3\n"):
        with pytest.raises(FormatError, match="no labels in words"):
            count_words(write(text))
