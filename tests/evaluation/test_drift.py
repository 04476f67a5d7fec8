"""Drift between two runs: the tests by a reference implementation and by law, files by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from annotator.errors import FormatError
from annotator.evaluation.drift import drift, fisher_exact, holm, kolmogorov_smirnov, render_drift

SAMPLES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1), min_size=1)


@settings(deadline=None)
@given(SAMPLES, SAMPLES)
def test_the_distance_is_that_of_the_reference(one: list[float], other: list[float]) -> None:
    distance, p = kolmogorov_smirnov(one, other)
    assert distance == pytest.approx(stats.ks_2samp(one, other, method="asymp").statistic, abs=1e-9)
    assert (distance, p) == kolmogorov_smirnov(other, one) and 0 <= p <= 1


@pytest.mark.parametrize(("n", "m"), [(20, 20), (20, 300), (500, 500)])
@pytest.mark.parametrize("shift", [0.0, 0.2, 0.6, 1.0])
def test_the_probability_is_close_to_the_exact_one(n: int, m: int, shift: float) -> None:
    rng = np.random.default_rng(n + m)
    one, other = rng.normal(size=n), rng.normal(shift, size=m)
    exact = stats.ks_2samp(one, other, method="exact").pvalue
    found = kolmogorov_smirnov(one.tolist(), other.tolist())[1]
    assert found == pytest.approx(exact, rel=0.35 if n == m == 20 else 0.15, abs=1e-9)


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int, int]:
    n, m = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    return draw(st.integers(0, n)), n, draw(st.integers(0, m)), m


@settings(deadline=None)
@given(tables())
def test_proportions_as_the_reference_compares_them(table: tuple[int, int, int, int]) -> None:
    a, n, b, m = table
    expected = stats.fisher_exact([[a, n - a], [b, m - b]]).pvalue
    assert fisher_exact(a, n, b, m) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(st.lists(st.floats(0, 1), max_size=30))
def test_holm_is_between_nothing_and_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(a <= b <= min(len(p) * a, 1) for a, b in zip(p, adjusted, strict=True))
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def line(i: int, cuis: Iterable[str], familiarity: float | None, **more: object) -> str:
    concepts = [{"cui": c, "name": f"name of {c}", "score": 0.5, "probability": None} for c in cuis]
    fields = {"id": f"i{i}", "concepts": concepts, "expected_f1": 0.8, "familiarity": familiarity}
    return json.dumps(fields | more) + "\n"


def written(path: Path, lines: Iterable[str]) -> Path:
    path.write_text("".join(lines))
    return path


def test_what_drifts_is_named(tmp_path: Path) -> None:
    old = written(tmp_path / "old", (line(i, ["C1", "C2"][: 1 + i % 2], i / 60) for i in range(60)))
    new = written(tmp_path / "new", (line(i, ["C3"], i / 600) for i in range(60)))
    found = drift(old, new)
    assert found.found == ["familiarity", "concepts an image", "C1", "C3", "C2"]
    familiarity, expected_f1, number = found.signals
    assert familiarity.distance == 0.9 and familiarity.p < 1e-10
    assert (expected_f1.distance, expected_f1.p) == (0.0, 1.0)
    assert (number.reference, number.new, number.distance) == (1.5, 1.0, 0.5)
    by_cui = {concept.cui: (concept.reference, concept.new) for concept in found.concepts}
    assert by_cui == {"C1": (1.0, 0.0), "C2": (0.5, 0.0), "C3": (0.0, 1.0)}
    text = render_drift(found)
    assert "name of C3" in text and text.count("drift") == 5
    assert drift(old, old).found == []
    assert found.to_dict()["drift"] and not drift(old, old).to_dict()["drift"]


def test_without_familiarity_the_rest_is_compared(tmp_path: Path) -> None:
    old = written(tmp_path / "old", (line(i, [], None) for i in range(20)))
    found = drift(old, old)
    assert [signal.signal for signal in found.signals] == ["expected F1", "concepts an image"]
    assert found.concepts == () and "none" in render_drift(found)


def test_one_image_of_each_patient_and_none_that_could_not_be_used(tmp_path: Path) -> None:
    lines = [line(i, ["C1"], 0.5, group=f"p{i // 2}") for i in range(40)]
    lines += [line(i, ["C1"], 0.5, group="") for i in range(40, 50)]
    lines += [line(i, [], None, error="blank") for i in range(50, 60)]
    found = drift(written(tmp_path / "old", lines), tmp_path / "old")
    assert found.reference == found.new == 30


def test_false_alarms_are_as_rare_as_asked(tmp_path: Path) -> None:
    """Two samples of the same kind of images, 200 times: both families at most at alpha."""
    rng, alarms = np.random.default_rng(0), 0
    for trial in range(200):
        sides = []
        for name in ("a", "b"):
            numbers = rng.random((40, 5))
            rows = (
                line(i, [f"C{j}" for j in range(4) if row[j] < 0.3], float(row[4]))
                for i, row in enumerate(numbers)
            )
            sides.append(written(tmp_path / f"{name}{trial}", rows))
        alarms += bool(drift(*sides, alpha=0.05).found)
    assert alarms <= 30  # of 200; 20 are expected at most, with a deviation of 4.2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has 0 images to compare"),
        (line(0, ["C1"], 0.5) * 19, "has 19 images to compare"),
        (line(0, ["C1"], 0.5) + "ID,CUIs\n", "line 2: no JSON"),
        (line(0, ["C1"], 1.5), r"line 1: not an annotation \(1.5 is not a number from 0 to 1\)"),
        (line(0, ["C1"], 0.5, group=3), r"line 1: not an annotation \(3 is no group\)"),
        ('{"id": "a"}\n', r"line 1: not an annotation \(no 'concepts'\)"),
    ],
)
def test_what_cannot_be_compared_is_named(tmp_path: Path, text: str, message: str) -> None:
    good = written(tmp_path / "good", [line(i, ["C1"], 0.5) for i in range(20)])
    bad = written(tmp_path / "bad", [text])
    for sides in ((good, bad), (bad, good)):
        with pytest.raises(FormatError, match=f"bad.*{message}"):
            drift(*sides)
    with pytest.raises(FormatError, match="nowhere"):
        drift(good, tmp_path / "nowhere")
