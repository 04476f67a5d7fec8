"""Reliability: bins, errors, and annotations against a truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.errors import FormatError
from annotator.evaluation.official_f1 import score
from annotator.evaluation.reliability import (
    Bin,
    Reliability,
    RunReliability,
    binned,
    plot_reliability,
    reliability_of,
    render_reliability,
)
from annotator.tables.annotations import read_annotations

SHARES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1)


@settings(deadline=None)
@given(st.lists(st.tuples(SHARES, SHARES), max_size=60), st.randoms(), st.integers(1, 12))
def test_bins_do_not_depend_on_the_order(pairs, random, most) -> None:
    def bins(pairs):
        columns = np.array(pairs, float).reshape(-1, 2).T
        return binned(columns[0], columns[1], most)

    found = bins(pairs)
    assert len(found) <= most and sum(each.count for each in found) == len(pairs)
    shuffled = list(pairs)
    random.shuffle(shuffled)
    for one, other in zip(found, bins(shuffled), strict=True):
        assert (one.predicted, one.observed) == pytest.approx((other.predicted, other.observed))
        assert one.count == other.count
    edges = [each.predicted for each in found]
    assert edges == sorted(edges)


def test_bins_of_equal_size_and_of_equal_weight() -> None:
    predicted = np.arange(1, 101) / 100
    assert [each.count for each in binned(predicted, predicted)] == [10] * 10
    weighed = binned(predicted, predicted, 2, weights=predicted)
    assert [each.count for each in weighed] == [70, 30]  # half of 50.5 each, about


def test_the_error_by_hand() -> None:
    found = Reliability("score", "right", "concepts", (Bin(0.5, 0.25, 30), Bin(0.9, 1.0, 10)))
    assert found.error == pytest.approx((0.25 * 30 + 0.1 * 10) / 40) and found.count == 40


LINES = (
    '{"id": "a", "concepts": [{"cui": "C1", "name": "", "score": 0.9, "probability": 0.7},'
    ' {"cui": "C2", "name": "", "score": 0.5, "probability": 0.4}], "expected_f1": 0.6}\n'
    '{"id": "b", "concepts": [], "expected_f1": 0.2}\n'
    '{"id": "c", "concepts": [], "expected_f1": 0.0, "error": "blank"}\n'
)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "run.jsonl").write_text(LINES)
    (tmp_path / "truth.csv").write_text("ID,CUIs\na,C1;C3\nb,C1\nc,C1\n")
    return tmp_path / "run.jsonl", tmp_path / "truth.csv"


def test_annotations_against_a_truth(files: tuple[Path, Path]) -> None:
    run, truth = files
    scored = score(run, truth)
    assert dict(zip(scored.ids, scored.scores, strict=True)) == {"a": 0.5, "b": 0.0, "c": 0.0}
    found = reliability_of(scored, read_annotations(run))
    assert found.concepts is not None and found.expected_f1 is not None
    assert found.concepts.of == "probability"
    assert found.concepts.bins == (Bin(0.4, 0.0, 1), Bin(0.7, 1.0, 1))
    assert found.expected_f1.bins == (Bin(0.2, 0.0, 1), Bin(0.6, 0.5, 1))  # without c
    assert "calibration error 0.3500" in "\n".join(render_reliability(found))


def test_scores_where_there_are_no_probabilities(files: tuple[Path, Path]) -> None:
    run, truth = files
    run.write_text(LINES.replace(', "probability": 0.4', ""))
    found = reliability_of(score(run, truth), read_annotations(run))
    assert found.concepts is not None and found.concepts.of == "score"
    assert [each.predicted for each in found.concepts.bins] == [0.5, 0.9]


def test_the_diagram(tmp_path: Path, files: tuple[Path, Path]) -> None:
    run, truth = files
    found = reliability_of(score(run, truth), read_annotations(run))
    for name in ("a.png", "b.png"):
        plot_reliability(found, tmp_path / name)
    first = (tmp_path / "a.png").read_bytes()
    assert first.startswith(b"\x89PNG") and first == (tmp_path / "b.png").read_bytes()
    with pytest.raises(FormatError, match="no plot of that kind"):
        plot_reliability(found, tmp_path / "a.gif")
    with pytest.raises(FormatError, match="nothing to draw"):
        plot_reliability(RunReliability(None, None), tmp_path / "a.png")
