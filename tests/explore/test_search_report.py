from __future__ import annotations

import csv
import io
import json

import pytest

from annotator.errors import AnnotatorError, ImageError
from annotator.explore.concept import ConceptReview
from annotator.explore.search_report import render_concept, render_rankings
from annotator.knn.neighbors import Case, Ranking

NAMES = {"C1": "Lung", "C2": "<b>Chest</b>", "C3": "A name that is so long that nobody reads all"}
NEAR = Case("near", 0.98765432, ("C1", "C2", "C3", "C4"), "A caption, with a comma")
FAR = Case("far", -0.25, ())
RANKINGS = [
    Ranking("q1", (NEAR, FAR)),
    Ranking("q2", (), ImageError("it is empty")),
    Ranking("q3", (FAR,)),
]
FOUND = ConceptReview("C1", 1234, 500, 0.5, (NEAR,), (), (FAR,))


def test_a_table() -> None:
    lines = render_rankings(RANKINGS, "table", NAMES).splitlines()
    assert lines[0] == "q1"
    assert lines[1].split() == ["rank", "similarity", "id", "concepts", "caption"]
    assert lines[2].split("  ")[-2:] == [
        "Lung, <b>Chest</b>, A name that is so long that nobody reads all, C4",
        "A caption, with a comma",
    ]
    assert "0.988" in lines[2] and "-0.250" in lines[3]
    assert "q2: it is empty" in lines and not any(line.endswith(" ") for line in lines)


def test_the_formats_of_rankings() -> None:
    assert render_rankings(RANKINGS, "csv", NAMES) == "ID,Similar\nq1,near;far\nq2,\nq3,far\n"
    assert render_rankings(RANKINGS, "trec", NAMES) == (
        "q1 Q0 near 1 0.98765432 annotator\nq1 Q0 far 2 -0.25 annotator\n"
        "q3 Q0 far 1 -0.25 annotator\n"
    )
    first, second, _ = map(json.loads, render_rankings(RANKINGS, "json", NAMES).splitlines())
    assert first["query"] == "q1" and "error" not in first
    assert first["cases"][0]["similarity"] == 0.987654
    assert first["cases"][0]["concepts"][1] == {"cui": "C2", "name": "<b>Chest</b>"}
    assert second == {"query": "q2", "cases": [], "error": "it is empty"}


@pytest.mark.parametrize(
    ("format_", "id_"), [("csv", "a;b"), ("trec", "a b"), ("trec", "a\tb"), ("trec", "")]
)
def test_ids_that_a_format_cannot_hold(format_: str, id_: str) -> None:
    ranking = [Ranking("q", (Case(id_, 1.0, ()),))]
    with pytest.raises(AnnotatorError, match="cannot be written in this format"):
        render_rankings(ranking, format_, {})  # type: ignore[arg-type]
    assert json.loads(render_rankings(ranking, "json", {}))["cases"][0]["id"] == id_


def test_a_concept() -> None:
    text = render_concept(FOUND, "table", NAMES)
    assert text.startswith("Lung (C1): 1,234 images, 500 of them looked at\n\nExemplars: ")
    assert text.count("  none\n") == 1
    rows = list(csv.DictReader(io.StringIO(render_concept(FOUND, "csv", NAMES))))
    assert [(r["List"], r["Rank"], r["ID"], r["Share"]) for r in rows] == [
        ("exemplars", "1", "near", "0.9877"),
        ("wrong", "1", "far", "-0.2500"),
    ]
    assert rows[0]["CUIs"] == "C1;C2;C3;C4" and rows[0]["Caption"] == NEAR.caption
    fields = json.loads(render_concept(FOUND, "json", NAMES))
    assert (fields["cui"], fields["name"], fields["images"]) == ("C1", "Lung", 1234)
    assert [case["id"] for case in fields["exemplars"]] == ["near"] and fields["missing"] == []
    assert fields["wrong"][0]["share"] == -0.25
    rare = ConceptReview("C9", 1, 1, 0.1, (FAR,), (), ())
    assert "not judged: its images support each other too little (0.10)" in render_concept(
        rare, "table", {}
    )
    assert render_concept(rare, "table", {}).startswith("C9: 1 image\n")
