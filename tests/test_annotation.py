"""Annotations as values, text, tables and HTML."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
from dataclasses import replace

import pandas as pd
import pytest

from annotator.annotation import Annotation, Annotations, Look, with_picture
from annotator.errors import FormatError, ImageError
from annotator.knn.neighbors import Case

NAMES = {"C1": "One", "C2": "Two <i>", "C3": "Three", "C9": "of no case"}
LOOK = Look(NAMES, lambda image_id: image_id.encode(), lambda: b"picture")
CASES = (Case("near<b>", 0.9, ("C1", "C3"), weight=0.75), Case("far", 0.5, ("C4",), weight=0.25))
FOUND = Annotation("scan", ("C1", "C4"), (0.75, 0.25), 0.8, CASES, 0.5, look=LOOK)
EMPTY = Annotation("empty", (), (), 1.0, (), notes=("blank",), look=LOOK)
FAILED = Annotation("bad", (), (), 0.0, (), error=ImageError("truncated <JPEG>", "Fetch it."))
ALL = Annotations([FOUND, EMPTY, FAILED])


def test_reprs_are_short() -> None:
    assert FOUND.names == ("One", "")
    assert repr(FOUND) == "Annotation('scan', One 0.75, C4 0.25)"
    assert repr(EMPTY) == "Annotation('empty', no concepts)"
    assert repr(FAILED) == "Annotation('bad', error: truncated <JPEG>)"
    assert repr(ALL) == (
        "Annotations of 3 images, of which 1 cannot be used\n"
        f"  {FOUND!r}\n  {EMPTY!r}\n  {FAILED!r}"
    )
    assert repr(ALL[:1]).startswith("Annotations of 1 image\n")
    many = Annotation("m", tuple("abcdefgh"), (0.5,) * 8, 1.0, (), look=Look({"a": "x\ny" * 99}))
    assert re.fullmatch(
        r"Annotation\('m', x yx y[xy ]{33}… 0\.50, (. 0\.50, ){4}and 3 more\)", repr(many)
    )
    assert repr(Annotations([FOUND] * 12)).count("\n") == 11
    assert repr(Annotations([FOUND] * 12)).endswith("  and 2 more")


def test_a_list_of_annotations_is_a_sequence() -> None:
    assert list(ALL) == [FOUND, EMPTY, FAILED] and len(ALL) == 3
    assert ALL[-1] is FAILED and FOUND in ALL
    assert ALL[:2] == Annotations([FOUND, EMPTY]) != [FOUND, EMPTY]
    assert not Annotations([])
    with pytest.raises(TypeError):
        hash(ALL)


def test_as_a_table() -> None:
    frame = ALL.to_frame()
    assert list(frame) == ["image_id", "concept", "name", "score", "probability", "error"]
    assert list(frame.image_id) == ["scan", "scan", "empty", "bad"]
    assert list(frame.concept.dropna()) == ["C1", "C4"]
    assert list(frame.name.dropna()) == ["One", ""]
    assert frame.score.dtype == float and list(frame.score.dropna()) == [0.75, 0.25]
    assert frame.probability.dtype == float and frame.probability.isna().all()
    likely = dataclasses.replace(FOUND, probabilities=(0.875, 0.5)).to_frame()
    assert list(likely.probability) == [0.875, 0.5]
    assert list(frame.error.isna()) == [True, True, True, False]
    assert frame.error[3] == "truncated <JPEG>"
    pd.testing.assert_frame_equal(FOUND.to_frame(), frame[:2])
    nothing = Annotations([]).to_frame()
    assert list(nothing) == list(frame) and nothing.empty and nothing.score.dtype == float


def test_as_a_run() -> None:
    assert ALL.to_run() == "ID,CUIs\nscan,C1;C4\nempty,\nbad,\n"
    assert ALL.to_run("2019").startswith("scan\tC1;C4\n")
    with pytest.raises(FormatError):
        Annotations([FOUND, FOUND]).to_run()


def test_as_json() -> None:
    assert FOUND.to_dict() == FOUND.to_dict(NAMES)
    assert [c["name"] for c in FOUND.to_dict()["concepts"]] == ["One", ""]
    assert [c["name"] for c in FOUND.to_dict({})["concepts"]] == ["", ""]
    assert FOUND.to_dict()["considered"] == [] and FOUND.to_dict()["same_image"] is None


def test_a_doubt_is_shown() -> None:
    made = replace(
        FOUND,
        considered={"C2": 0.3},
        considered_probabilities=(0.2,),
        rivals={"C1": "C2"},
        same_image="<x>",
    )
    told = made.to_dict()
    assert [c["rival"] for c in told["concepts"]] == ["C2", None]
    assert told["considered"] == [
        {"cui": "C2", "name": "Two <i>", "score": 0.3, "probability": 0.2}
    ]
    assert [made.share(concept) for concept in ("C1", "C2", "C3")] == [0.75, 0.3, 0.0]
    html = made._repr_html_()
    assert "In doubt:</b> One (0.75); Two &lt;i&gt; (0.30) excludes it" in html
    assert "also considered: Two &lt;i&gt; 0.30" in html and "as &lt;x&gt;." in html
    assert copy.deepcopy(made).look.names["C2"] == "Two <i>"


def test_html_of_one() -> None:
    html = FOUND._repr_html_()
    assert html.count("<img") == 3  # the picture and two cases
    assert "cGljdHVyZQ==" in html  # "picture"
    assert "near&lt;b&gt;" in html and "<b>near" not in html
    assert "✓ One" in html and "· Three" in html
    assert "width: 75%" in html and ">0.75<" in html
    assert "similarity 0.90, 75% of the vote" in html
    assert "expected F1 0.80 · familiarity 0.50" in html
    several = Annotation("many", (), (), 1.0, (CASES[0],) * 30)._repr_html_()
    assert "30 cases voted; the nearest 6" in several and several.count('class="case"') == 6
    assert "<img" not in several  # there is no picture of any


def test_html_of_several() -> None:
    html = ALL._repr_html_()
    assert "3 images, of which 1 cannot be used" in html
    assert html.count("<img") == 2 and "similarity" not in html
    assert "truncated &lt;JPEG&gt;" in html and "Fetch it." in html
    assert "no concepts" in html and "(nearly) the same value" in html
    assert "and 5 more" in Annotations([EMPTY] * 25)._repr_html_()


def test_a_picture_of_its_own() -> None:
    pictured = with_picture(FOUND, lambda: b"another")
    assert (pictured.look.picture(), FOUND.look.picture()) == (b"another", b"picture")
    assert pictured == FOUND


def test_copies_hold_values_alone() -> None:
    for again in (copy.deepcopy(FOUND), pickle.loads(pickle.dumps(ALL))[0]):
        assert again == FOUND and again.names == FOUND.names
        assert again.look.names == {"C1": "One", "C3": "Three"}
        assert again.look.picture() == again.look.thumbnails("far") == b""
