"""Thumbnails: in order, small, and never in the way of anything."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from annotator.errors import ImageError
from annotator.images.ref import ImageRef
from annotator.images.thumbnails import (
    SIDE,
    grey_thumbnail,
    grey_thumbnail_of,
    grey_thumbnails,
    make_thumbnails,
)


def ref(name: str, width: int, height: int, level: int) -> ImageRef:
    file = io.BytesIO()
    Image.fromarray(np.full((height, width), level, np.uint8)).save(file, "PNG")
    return ImageRef(name, name, lambda: file.getvalue())


def gone() -> bytes:
    raise ImageError("there is no such file")


def test_pictures_come_in_order_and_keep_their_proportions() -> None:
    refs = [ref(str(i), 400 + i, 200, i * 3) for i in range(80)]
    refs[40] = ImageRef("gone", "gone", gone)
    made = list(make_thumbnails(refs, workers=3))
    assert made[40] == b""
    for i, data in enumerate(made):
        if i != 40:
            picture = Image.open(io.BytesIO(data))
            assert picture.format == "JPEG" and picture.size == (
                SIDE,
                round(SIDE * 200 / (400 + i)),
            )
            assert abs(int(np.asarray(picture)[5, 5]) - i * 3) <= 2


def test_closing_early_stops_the_work_and_small_images_are_not_enlarged() -> None:
    read: list[int] = []

    def counted(i: int) -> ImageRef:
        small = ref(str(i), 30, 20, 0)
        return ImageRef(small.id, small.where, lambda: (read.append(i), small.read())[1])

    pictures = make_thumbnails([counted(i) for i in range(200)], workers=2)
    assert Image.open(io.BytesIO(next(pictures))).size == (30, 20)
    pictures.close()
    assert len(read) <= 64  # that many are begun ahead


def test_grey_thumbnails_fill_a_square_and_are_black_where_there_is_no_image() -> None:
    refs = [ref("wide", 300, 100, 90), ImageRef("gone", "gone", gone), ref("small", 20, 40, 7)]
    thumbnails = grey_thumbnails(refs, 64, workers=2)
    assert thumbnails.shape == (3, 64, 64) and thumbnails.dtype == np.uint8
    assert [sorted(set(t.ravel().tolist())) for t in thumbnails] == [[90], [0], [7]]


def test_a_grey_thumbnail_of_what_is_no_image() -> None:
    with pytest.raises(ImageError):
        grey_thumbnail(b"no image", 64)
    assert not grey_thumbnail_of(ImageRef("x", "x", lambda: b"no image"), 64).any()
