from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from annotator.map.pictures import default_side, read_pictures
from annotator.map.points import Points, read_points
from index import StoredIndex, open_index


@pytest.fixture
def points(stored: StoredIndex) -> Points:
    return read_points(stored, limit=20)


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_pictures_of_the_index_are_made_smaller(points: Points) -> None:
    pictures = read_pictures(points, 64)
    assert [bool(picture) for picture in pictures] == [id_ != "i007" for id_ in points.ids]
    picture = opened(next(filter(None, pictures)))
    assert (picture.format, picture.size) == ("JPEG", (64, 40))


def test_pictures_that_are_small_enough_stay_as_they_are(
    points: Points, stored: StoredIndex
) -> None:
    pictures = read_pictures(points, 192)
    for row, picture in zip(points.rows.tolist(), pictures, strict=True):
        assert base64.b64decode(picture) == (stored.thumbnail(row) or b"")


def test_a_picture_that_cannot_be_read_costs_no_other(
    points: Points, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = points.pictures() or []
    broken = [sound[0][:150], b"no JPEG", b"", *sound[3:]]
    monkeypatch.setattr(Points, "pictures", lambda self: broken)
    pictures = read_pictures(points, 64)
    assert pictures[:3] == ["", "", ""] and pictures[3]


def test_pictures_made_of_the_images(tmp_path: Path, plain_index: Path) -> None:
    for i in (0, 2):
        Image.new("L", (300, 150), 90 + i).save(tmp_path / f"i{i:03d}.png")
    points = read_points(open_index(plain_index), limit=5)
    assert read_pictures(points, 64) == []
    pictures = read_pictures(points, 64, str(tmp_path))
    assert [bool(picture) for picture in pictures] == [
        id_ in ("i000", "i002") for id_ in points.ids
    ]
    assert {opened(picture).size for picture in filter(None, pictures)} <= {(64, 32)}


def test_more_points_have_smaller_pictures() -> None:
    sides = [default_side(n) for n in (1, 1000, 1001, 2501, 6001, 10**6)]
    assert sides == [192, 192, 128, 96, 64, 64]
