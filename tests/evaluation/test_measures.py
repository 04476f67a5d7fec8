"""Means, intervals, groups and paired differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.evaluation.measures import (
    Measured,
    bootstrap_interval,
    compare,
    measure,
    render_measured,
)

scores = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30)


@settings(max_examples=50, deadline=None)
@given(scores)
def test_a_difference_is_that_of_the_means_and_turns_its_sign(
    pairs: list[tuple[float, float]],
) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    there, back = compare(a, b), compare(b, a)
    assert there.difference == pytest.approx(np.mean(a) - np.mean(b), abs=1e-12)
    assert there.difference == pytest.approx(-back.difference, abs=1e-12)
    assert (there.better, there.worse) == (back.worse, back.better)
    low, high = there.interval
    assert min(x - y for x, y in pairs) - 1e-9 <= low <= high


def test_a_paired_interval_is_narrower_than_two_single_ones() -> None:
    rng = np.random.default_rng(0)
    a = rng.random(200)
    b = a - 0.01 + rng.normal(0, 0.005, 200)
    found = measure("x", a.tolist(), others=b.tolist())
    assert found.against is not None
    low, high = found.against.interval
    assert 0 < low < high < 0.02  # told apart, although the single intervals overlap
    assert found.whole.interval[0] < np.mean(b)


def test_the_same_run_does_not_differ() -> None:
    found = compare([0.1, 0.7], [0.1, 0.7])
    assert (found.difference, found.interval, found.better, found.worse) == (0.0, (0.0, 0.0), 0, 0)


def test_groups_and_text() -> None:
    found = measure("ROUGE-1", [0.0, 1.0, 0.5], groups=["b", "a", ""], others=[0.5, 0.5, 0.5])
    assert list(found.per_group) == ["", "a", "b"] and found.per_group["a"].mean == 1.0
    measured = Measured("images", ("x", "y", "z"), {"rouge1": found}, notes=("A note.",))
    lines = render_measured(measured).split("\n")
    assert lines[0].startswith("ROUGE-1 0.5000 (95% interval ") and lines[0].endswith("3 images)")
    assert "ROUGE-1 against the other run" in lines and "ROUGE-1 by group" in lines
    assert lines[-1] == "A note." and max(map(len, lines)) <= 100


def test_runs_of_different_images_are_not_compared() -> None:
    with pytest.raises(ValueError, match="zip"):
        compare([1.0], [1.0, 0.0])


def test_interval_covers_the_mean_and_is_seeded() -> None:
    scores = np.random.default_rng(1).choice([0.0, 0.5, 2 / 3, 1.0], size=400).tolist()
    low, high = bootstrap_interval(scores)
    error = np.std(scores) / math.sqrt(len(scores))
    assert low == pytest.approx(np.mean(scores) - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(np.mean(scores) + 1.96 * error, abs=0.2 * error)
    assert bootstrap_interval(scores) == (low, high)
    assert bootstrap_interval(scores, seed=1) != (low, high)
    assert bootstrap_interval([0.5]) == (0.5, 0.5)


def test_interval_is_that_of_the_plain_bootstrap() -> None:
    generator = np.random.default_rng(2)
    scores = generator.choice([0.0, 0.4, 1.0], size=60, p=[0.2, 0.5, 0.3])
    plain = scores[generator.integers(60, size=(20_000, 60))].mean(axis=1)
    wanted = np.percentile(plain, [2.5, 97.5])
    assert bootstrap_interval(scores.tolist(), 20_000) == pytest.approx(wanted, abs=0.01)
