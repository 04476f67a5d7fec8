"""Heatmaps point at what matters: phantoms' lesions are known, and covering them takes votes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import explanations
import numpy as np
import pytest

from annotator.explain.attribution import AttributionMap
from annotator.explain.explain import ConceptExplanation
from annotator.knn.neighbors import Case
from annotator.phantoms.cases import draw_cases
from annotator.phantoms.render import drawn_by, render


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the benchmark measures, of every fourth of its phantoms and with fewer random tenths."""
    folder: Path = tmp_path_factory.mktemp("explanations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explanations, "RANDOM", 2)
        annotator = explanations.sample_index(folder)
        subjects = explanations.phantoms(folder / "more", 300, seed=7, every=4)
        return [row for subject in subjects for row in explanations.measure(annotator, subject)]


@pytest.mark.slow
def test_parts_add_up(rows: list[dict[str, Any]]) -> None:
    assert {row["method"] for row in rows} == {"exact"}
    assert max(row["error"] for row in rows) < 1e-5


@pytest.mark.slow
def test_the_peak_lies_on_the_lesion(rows: list[dict[str, Any]]) -> None:
    assert len(rows) >= 25
    on = np.mean([row["on contrast"] for row in rows])
    assert on >= 0.7
    assert on >= 3 * np.mean([row["chance"] for row in rows])


@pytest.mark.slow
def test_covering_the_hottest_tenth_takes_more_of_the_vote_than_a_random_one(
    rows: list[dict[str, Any]],
) -> None:
    found = explanations.summary(rows)
    assert found["drop contrast"] > 0.1
    assert found["drop contrast"] >= 2 * max(found["drop moved"], found["drop scattered"])


def test_the_error_is_of_what_the_search_said() -> None:
    heat = AttributionMap(np.array([[0.25, 0.5]]), 0.125, -0.25, 0.625)
    voters = (Case("a", 0.5, ("C1",), weight=0.75), Case("b", 0.25, ("C1",), weight=0.25))
    concept = ConceptExplanation("C1", 1.0, heat, heat, 2, 2, voters)
    assert explanations.error(concept) == pytest.approx(0.625 - 0.4375)


def test_a_lesion_touches_the_cells_that_it_lies_on() -> None:
    mask = np.zeros((30, 45), bool)
    mask[9:11, 44] = True
    touched = explanations.cells(mask, (3, 4))
    assert np.argwhere(touched).tolist() == [[0, 3], [1, 3]]
    assert explanations.cells(np.ones((5, 7), bool), (5, 7)).all()


def test_a_lesion_is_where_it_was_drawn() -> None:
    case = next(case for case in draw_cases(600, 2026) if "pacemaker" in case.findings)
    mask = drawn_by(case, "pacemaker")
    picture = render(case)
    assert mask.shape == picture.shape and 0.005 < mask.mean() < 0.1
    assert picture[mask].mean() > picture[~mask].mean() + 0.2  # metal
    assert not drawn_by(case, "tumor").any()
