"""What pages and JSON say, that nothing from outside is markup, and the names of files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browsing import Browser, expect, in_a_browser
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from annotator.annotation import Annotation
from annotator.errors import ImageError
from annotator.explain.attribution import AttributionMap
from annotator.explain.deletion import Deletion
from annotator.explain.explain import ConceptExplanation, Explanation, Method
from annotator.explain.report import contents_page, explanation_page, file_name, to_dict
from annotator.knn.neighbors import Case

HOSTILE = "<script>alert('x')</script>\"&"


def explanation(method: Method = "additive", frames: int = 1) -> Explanation:
    voters = tuple(
        Case(
            f"case{i}{HOSTILE}",
            0.9 - i / 10,
            ("C1", HOSTILE, "C3", "C4", "C5"),
            weight=0.4 - i / 10,
        )
        for i in range(4)
    )
    map_ = AttributionMap(np.array([[0.5, -0.25]]), 0.03125, 0.0625, 0.125, 0.5)
    tells = Deletion(0.25, np.array([0.0, 0.03125, 0.0625, 0.125]))
    misleads = Deletion(0.03125, tells.random)
    concepts = (
        ConceptExplanation("C1", 0.75, 20, 12, map_, tells, 4, 0.875),
        ConceptExplanation(HOSTILE, 0.5, 3, 50, map_, misleads, 1, 0.25),
        ConceptExplanation("C3", 0.5, 50, 0, None, None, 4, 0.25),
    )
    annotation = Annotation(
        f"image{HOSTILE}",
        ("C1", HOSTILE, "C3"),
        (0.75, 0.5, 0.5),
        0.625,
        voters,
        familiarity=0.25,
        probabilities=(0.875, 0.25, 0.25),
    )
    return Explanation(annotation, Image.new("L", (8, 4), 90), frames, method, concepts)


def html(method: Method = "additive", frames: int = 1) -> str:
    def thumbnails(image_id: str) -> bytes:
        return b"" if image_id.startswith("case0") else b"\xff\xd8small"

    names = {"C1": f"name {HOSTILE}"}
    return explanation_page(explanation(method, frames), names, thumbnails, neighbors=3)


def test_what_comes_from_outside_is_text() -> None:
    text = html()
    assert text.count("<script") == 1 and "alert(&#39;x&#39;)" in text
    assert "http://" not in text and "https://" not in text


def test_the_figures_are_on_the_page() -> None:
    text = html()
    assert "Expected F1 0.62" in text and "Familiarity 0.25" in text
    assert '<td class="number">88%</td>' in text and '<td class="number">25%</td>' in text
    assert ">4 of 4 cases</span>" in text and ">1 of 4 cases</span>" in text
    assert "weight 40.0%<br>similarity 0.900" in text
    assert "and 1 more with 10.0%" in text
    assert "+0.250 from the picture, +0.031 from blank background, +0.062 from padding" in text
    assert "Contrast +0.500: 20 near cases with it, 12 without." in text
    assert "takes 0.250 of it; random tenths take 0.055 on average, a quarter of them" in text
    assert "more than 0.078." in text
    assert "no picture" in text  # of the case that has none


def test_a_case_is_listed_once_with_its_concepts() -> None:
    text = html()
    for i in range(3):
        assert text.count(f"case{i}&lt;script") == (2 if i else 1)  # and as the alternative text
    marked, others = ('<li title="C3" class="sought">C3', '<li title="C4">C4')
    assert text.count(marked) == text.count(others) == 3


def test_a_map_that_says_no_more_than_random_places_is_not_drawn() -> None:
    text = html()
    assert text.count('class="heatmap card"') == text.count("data:image/png") == 1
    assert "would point at matter no more than others. Covering the most important" in text
    assert "takes 0.031 of its contrast of +0.500; random tenths take 0.055 on average," in text
    assert "<strong>C3</strong>: all near cases have it" in text


def test_each_picture_is_in_the_page_once() -> None:
    assert html().count("data:image/jpeg") == 1 + 2


def test_what_is_approximate_is_called_so() -> None:
    assert "+0.031 not explained" in html("patches") and "approximation" in html("patches")
    assert "do not add up" in html("occlusion") and "from the picture" not in html("occlusion")
    assert "approximation" not in html("additive")
    assert "exact" not in html("additive").partition("<body")[2]
    assert "The middle one of 5 frames" in html(frames=5)


def test_runners_up_and_doubts_are_in_the_table() -> None:
    made = explanation()
    annotation = replace(
        made.annotation, considered={"C<9>": 0.31}, rivals={"C1": "C<9>"}, same_image="<y>"
    )
    made = replace(made, annotation=annotation)
    page = explanation_page(made, {}, lambda _: b"", neighbors=2)
    assert "in doubt: C&lt;9&gt; (0.31) excludes it" in page
    assert "<td>C&lt;9&gt;, not chosen <code>C&lt;9&gt;</code></td>" in page
    assert "as &lt;y&gt;. It was left out" in page


def test_no_concepts() -> None:
    empty = Explanation(Annotation("i", (), (), 0.0, ()), Image.new("L", (4, 4)), 1, "additive", ())
    page = explanation_page(empty, {}, lambda _: b"", neighbors=3)
    assert "No concept was chosen" in page
    assert to_dict(empty, {})["explanations"] == []


def test_json_holds_the_same_figures() -> None:
    figures = json.loads(json.dumps(to_dict(explanation("patches"), {"C1": "one"})))
    assert figures["method"] == "patches" and "exact" not in figures
    first = figures["explanations"][0]
    assert first["contrast"] == {
        "total": 0.5,
        "picture": 0.25,
        "background": 0.03125,
        "elsewhere": 0.0625,
        "constant": 0.125,
        "rest": 0.03125,
        "grid": [[0.5, -0.25]],
    }
    assert (first["cases_with"], first["cases_without"]) == (20, 12)
    assert first["deletion"] == {
        "highest": 0.25,
        "random_mean": 0.0546875,
        "random_upper_quartile": 0.078125,
        "tells": True,
    }
    assert figures["explanations"][1]["deletion"]["tells"] is False
    assert figures["explanations"][2]["contrast"] is figures["explanations"][2]["deletion"] is None
    assert figures["concepts"][0] == {
        "cui": "C1", "name": "one", "score": 0.75, "probability": 0.875, "rival": None,
    }  # fmt: skip


IDS = ["../../etc/passwd", "a/b", "a\\b", "", ".", "..", "index", "ü", "x" * 500, "<b>", "a b"]


@given(st.text() | st.sampled_from(IDS))
def test_any_id_is_a_safe_name(id_: str) -> None:
    name = file_name(id_)
    assert name and not name.startswith(".") and len(name) < 120 and name != "index"
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert file_name(id_) == name


def test_ordinary_ids_are_kept_and_others_stay_apart() -> None:
    assert file_name("ROCOv2_2023_train_000001") == "ROCOv2_2023_train_000001"
    assert file_name("1.2.840.10008.5") == "1.2.840.10008.5"
    ids = [*IDS, "a_b", "a/b ", "b", "passwd"]
    assert len({file_name(id_) for id_ in ids}) == len(ids)


def test_contents_link_the_pages_and_name_what_failed() -> None:
    annotations = [
        Annotation("a/b", ("C1", "C2"), (1.0, 0.5), 0.5, ()),
        Annotation("<bad>", (), (), 0.0, (), error=ImageError("truncated <JPEG>")),
    ]
    page = contents_page(annotations, {"C1": "Brain & co"})
    assert f'href="{file_name("a/b")}.html"' in page
    assert "Brain &amp; co, C2" in page
    assert "&lt;bad&gt;" in page and "truncated &lt;JPEG&gt;" in page and "<bad>" not in page


# In a browser


@in_a_browser
@pytest.mark.parametrize("width", [360, 1200])
def test_the_slider_fades_the_colours(browser: Browser, tmp_path: Path, width: int) -> None:
    made = explanation()
    small = replace(made, annotation=replace(made.annotation, image_id="i"))
    path = tmp_path / "why.html"
    path.write_text(explanation_page(small, {}, lambda _: b"", neighbors=3), encoding="utf-8")
    tab = browser.new_page(viewport={"width": width, "height": 900})
    problems: list[str] = []
    tab.on("console", lambda message: problems.append(message.text))
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.goto(f"file://{path}")
    slider, colours = tab.get_by_label("Strength of the colours"), tab.locator(".heatmap img")
    expect(slider).to_be_visible()
    expect(colours).to_have_css("opacity", "1")
    slider.focus()
    slider.press("Home")  # a slider that the keyboard moves
    expect(colours).to_have_css("opacity", "0")
    slider.press("ArrowRight")
    expect(colours).to_have_css("opacity", "0.01")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert problems == []
    tab.close()
