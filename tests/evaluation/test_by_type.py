from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from annotator.concepts.types import SemanticTypes
from annotator.evaluation.by_type import render_by_type, score_by_type
from annotator.evaluation.official_f1 import score

TYPES = SemanticTypes(
    Path("MRSTY.RRF"),
    {"C1": ("T1",), "C2": ("T1", "T2"), "C3": ("T2",), "C4": ("T3",)},
    {"T1": "One", "T2": "Two", "T3": "Three"},
)


@pytest.fixture
def scored(tmp_path: Path):
    (tmp_path / "truth.csv").write_text("a,C1;C2\nb,C3\nc,C9\nd,\n")
    (tmp_path / "run.csv").write_text("a,C1;C4\nb,C3;C1\nc,C1\nd,C3\n")
    return score(tmp_path / "run.csv", tmp_path / "truth.csv")


def test_each_type_is_scored_on_the_images_that_have_it(scored) -> None:
    one, two = sorted(score_by_type(scored, TYPES), key=lambda s: s.tui)
    # a: {C1, C2} against {C1}; the other images have no true concept of T1
    assert (one.tui, one.name, one.concepts, one.f1.n, one.f1.mean) == ("T1", "One", 2, 1, 2 / 3)
    # a: {C2} against nothing; b: {C3} against {C3}
    assert (two.concepts, two.f1.n, two.f1.mean) == (2, 2, 0.5)
    assert two.f1.interval == (0.0, 1.0)
    together = score_by_type(scored, TYPES, groups=np.array([0, 0, 1, 2]))
    assert [s.f1.interval for s in together if s.tui == "T2"] == [(0.5, 0.5)]
    assert [s.tui for s in score_by_type(scored, TYPES)] == ["T2", "T1"]  # by images


def test_selected_types_are_also_scored_together(scored) -> None:
    both, two, one = score_by_type(scored, TYPES, ["T1", "T2"])
    assert (both.tui, both.f1.n, both.concepts) == ("T1+T2", 2, 3)
    # a: {C1, C2} against {C1}; b: {C3} against {C3, C1}
    assert both.f1.mean == pytest.approx(2 / 3)
    assert (two.tui, one.tui) == ("T2", "T1")
    assert [s.tui for s in score_by_type(scored, TYPES, ["T1"])] == ["T1"]
    assert score_by_type(scored, TYPES, ["T3"]) == ()
    assert render_by_type([one])[1].split() == ["T1", "One", "2", "1", "0.6667", "0.6667", "0.6667"]
    assert one.to_dict()["interval"] == [2 / 3, 2 / 3]


def test_all_in_one_type_is_the_official_score_of_images_with_concepts(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("a,C1;C2\nb,C3\nc,C4;C1\n")
    (tmp_path / "run.csv").write_text("a,C1;C4\nb,C2;C3\nc,C1\n")
    scored = score(tmp_path / "run.csv", tmp_path / "truth.csv")
    types = SemanticTypes(Path("x"), {f"C{i}": ("T1",) for i in range(9)}, {"T1": ""})
    (found,) = score_by_type(scored, types)
    assert found.f1.mean == scored.f1
