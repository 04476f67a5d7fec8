from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from annotator.map.colouring import MARKS
from annotator.map.make import draw_map, make_map
from index import StoredIndex


def pixels(png: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def near(png: bytes, colour: str) -> int:
    """How many pixels have about a colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int(np.sum(np.abs(pixels(png).astype(int) - wanted).max(axis=2) < 45))


def test_the_same_map_gives_the_same_bytes(stored: StoredIndex) -> None:
    first, again = (draw_map(make_map(stored, "an index")) for _ in range(2))
    assert first == again and first.startswith(b"\x89PNG")
    assert Image.open(io.BytesIO(first)).info.keys() <= {"dpi"}


def test_each_category_is_drawn_in_its_colour(stored: StoredIndex) -> None:
    drawn = make_map(stored, "an index")
    assert [c.cui for c in drawn.colouring.categories] == ["C1", "C2", "C3"]
    png = draw_map(drawn)
    assert all(near(png, mark.colour) > 100 for mark in MARKS[:3])
    assert near(png, MARKS[4].colour) < 20
    one = draw_map(make_map(stored, "an index", concepts=["Chest"]))
    assert near(one, MARKS[0].colour) > 100 and near(one, MARKS[1].colour) < 20


@pytest.mark.parametrize("title", ["from $5_{ to $9", "_hidden", ""])
def test_names_are_no_formulas(stored: StoredIndex, title: str) -> None:
    drawn = make_map(stored, title, concepts=["C3", "C4"])  # C3 is named like a broken formula
    assert draw_map(drawn)


def test_a_single_point(stored: StoredIndex) -> None:
    assert draw_map(make_map(stored, "one", limit=1))
