"""Heatmap overlays, and the figure of an image and its neighbours."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from annotator.annotation import Annotation
from annotator.explain.attribution import AttributionMap
from annotator.explain.figure import (
    OPPOSING,
    SUPPORTING,
    blend,
    draw,
    overlay,
    to_jpeg,
    to_png,
)
from annotator.knn.neighbors import Case

# Overlays


def heatmap(grid: list[list[float]]) -> AttributionMap:
    values = np.array(grid)
    return AttributionMap(values, 0.0, 0.0, 0.0, float(values.sum()))


def test_orange_speaks_for_and_blue_against() -> None:
    pixels = np.asarray(overlay(heatmap([[2.0, 0.0, -1.0]]), (30, 10)))
    assert pixels.shape == (10, 30, 4)
    assert tuple(pixels[5, 1, :3]) == SUPPORTING and tuple(pixels[5, 28, :3]) == OPPOSING
    assert pixels[5, 1, 3] == pytest.approx(2 * pixels[5, 28, 3], abs=1)
    assert pixels[5, 15, 3] == 0  # nothing is laid over what says nothing


def test_rows_are_from_the_top() -> None:
    pixels = np.asarray(blend(Image.new("L", (20, 20), 100), heatmap([[1.0], [0.0]])))
    assert pixels[1, 10, 0] > pixels[1, 10, 2]
    assert tuple(pixels[19, 10]) == (100, 100, 100)


def test_an_empty_map_leaves_the_picture() -> None:
    picture = Image.new("RGB", (8, 6), (10, 20, 30))
    assert blend(picture, heatmap([[0.0, 0.0]])).tobytes() == picture.tobytes()


def test_files_are_what_they_say() -> None:
    picture = overlay(heatmap([[1.0, -1.0]]))
    with Image.open(io.BytesIO(to_png(picture))) as read:
        assert read.format == "PNG" and read.size == picture.size
    with Image.open(io.BytesIO(to_jpeg(Image.new("L", (5, 4))))) as read:
        assert read.format == "JPEG" and read.size == (5, 4)


# The figure

FORMULA = "costs $5_{ or $9"  # no formula, though matplotlib would take it for one


def figure(file_format: str = "png", neighbors: int = 2) -> bytes:
    voters = tuple(Case(f"case{i}{FORMULA}", 0.5, ("C1", FORMULA), weight=0.25) for i in range(3))
    annotation = Annotation(FORMULA, ("C1", FORMULA), (0.75, 0.5), 0.5, voters)
    small = to_jpeg(Image.new("L", (60, 40), 250))
    return draw(
        annotation, Image.new("L", (80, 60), 30), lambda id_: small if "1" in id_ else b"",
        {"C1": f"name {FORMULA}"}, neighbors=neighbors, file_format=file_format,  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_picture_in_proportion_to_its_neighbours() -> None:
    with (
        Image.open(io.BytesIO(figure())) as two,
        Image.open(io.BytesIO(figure(neighbors=1))) as one,
    ):
        assert two.format == "PNG" and two.width > one.width > 200


@pytest.mark.parametrize("file_format", ["png", "svg"])
def test_the_same_bytes_for_the_same_annotation(file_format: str) -> None:
    assert figure(file_format) == figure(file_format)


def test_it_names_what_it_shows() -> None:
    text = figure("svg").decode()
    shown = ("to be annotated", "share of the votes", "similarity 0.500", "weight 25.0%")
    assert all(f"<!-- {line} -->" in text for line in shown)
    assert text.count("<!-- image not given -->") == 1  # of the case without a thumbnail
    assert "case1" in text and "case2" not in text
