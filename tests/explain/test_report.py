"""What pages and JSON say, that nothing from outside is markup, and the names of files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from annotator.annotation import Annotation
from annotator.errors import ImageError
from annotator.explain.attribution import AttributionMap
from annotator.explain.explain import ConceptExplanation, Explanation, Method
from annotator.explain.report import contents_page, explanation_page, file_name, to_dict
from annotator.knn.neighbors import Case

HOSTILE = "<script>alert('x')</script>\"&"


def explanation(method: Method = "exact", frames: int = 1) -> Explanation:
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
    concepts = (
        ConceptExplanation("C1", 0.75, map_, 20, 0, voters, 0.875),
        ConceptExplanation(HOSTILE, 0.5, map_, 3, 20, voters[:1], 0.25),
    )
    annotation = Annotation(
        f"image{HOSTILE}",
        ("C1", HOSTILE),
        (0.75, 0.5),
        0.625,
        voters,
        familiarity=0.25,
        probabilities=(0.875, 0.25),
    )
    return Explanation(annotation, Image.new("L", (8, 4), 90), frames, method, concepts)


def html(method: Method = "exact", frames: int = 1) -> str:
    def thumbnails(image_id: str) -> bytes:
        return b"" if image_id.startswith("case0") else b"\xff\xd8small"

    names = {"C1": f"name {HOSTILE}"}
    return explanation_page(explanation(method, frames), names, thumbnails, neighbors=3)


def test_what_comes_from_outside_is_text() -> None:
    text = html()
    assert "<script" not in text and "alert(&#39;x&#39;)" in text
    assert "http://" not in text and "https://" not in text


def test_the_figures_are_on_the_page() -> None:
    text = html()
    assert "Expected F1 0.62" in text and "Familiarity 0.25" in text
    assert '<td class="number">88%</td>' in text and '<td class="number">25%</td>' in text
    assert "75.0% of the vote, from 4 neighbours" in text
    assert "weight 40.0%" in text and "similarity 0.900" in text
    assert "and 1 more with 10.0%" in text
    assert "+0.500 = picture +0.250, blank background +0.031, padding and other" in text
    assert "all near cases have it" in text
    assert "the 3 nearest cases with it, against the 20 nearest without it" in text
    assert "no picture" in text  # of the case that has none
    assert "…" in text  # more concepts than are named


def test_each_picture_is_in_the_page_once() -> None:
    assert html().count("data:image/jpeg") == 1 + 2


def test_what_is_approximate_is_called_so() -> None:
    assert "not explained +0.031" in html("patches") and "approximate" in html("patches")
    assert "covering one place takes up to +0.500" in html("occlusion")
    assert "approximate" not in html("exact")
    assert "The middle one of 5 frames" in html(frames=5)


def test_runners_up_and_doubts_are_in_the_table() -> None:
    made = explanation()
    annotation = replace(
        made.annotation, considered={"C<9>": 0.31}, rivals={"C1": "C<9>"}, same_image="<y>"
    )
    made = replace(made, annotation=annotation)
    page = explanation_page(made, {}, lambda _: b"", neighbors=2)
    assert "in doubt: C&lt;9&gt; (0.31) excludes it" in page
    assert "<td>C&lt;9&gt;, not chosen</td>" in page and "as &lt;y&gt;: it votes" in page


def test_no_concepts() -> None:
    empty = Explanation(Annotation("i", (), (), 0.0, ()), Image.new("L", (4, 4)), 1, "exact", ())
    page = explanation_page(empty, {}, lambda _: b"", neighbors=3)
    assert "No concept was chosen" in page
    assert to_dict(empty, {})["explanations"] == []


def test_json_holds_the_same_figures() -> None:
    figures = json.loads(json.dumps(to_dict(explanation("patches"), {"C1": "one"})))
    assert figures["exact"] is False and figures["method"] == "patches"
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
    assert (first["cases_with"], first["cases_without"]) == (20, 0)
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
