"""Means, intervals, groups and paired differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.evaluation.measures import (
    Measured,
    average_by,
    bootstrap_interval,
    bootstrap_means,
    compare,
    group_numbers,
    measure,
    predicted_interval,
    render_measured,
    standard_error,
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


def test_text_of_measures_and_what_they_are_split_by() -> None:
    found = measure("ROUGE-1", [0.0, 1.0, 0.5], by=["b", "a", ""], others=[0.5, 0.5, 0.5])
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
    assert bootstrap_interval(scores.tolist(), resamples=20_000) == pytest.approx(wanted, abs=0.01)


# Groups


@given(st.lists(st.sampled_from(["", "a", "b", "c"])))
def test_group_numbers(groups: list[str]) -> None:
    numbers = group_numbers(groups)
    for i, one in enumerate(groups):
        for j, other in enumerate(groups):
            assert (numbers[i] == numbers[j]) == (i == j or (one == other != ""))


numbered = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=30)


@settings(max_examples=50, deadline=None)
@given(numbered)
def test_images_that_are_each_a_group_are_drawn_as_images(pairs: list[tuple[float, int]]) -> None:
    values = np.array([value for value, _ in pairs])
    alone = group_numbers([""] * len(values))
    assert np.array_equal(bootstrap_means(values, alone), bootstrap_means(values))
    assert standard_error(values, alone) == standard_error(values)


@settings(max_examples=50, deadline=None)
@given(numbered)
def test_the_names_and_the_order_of_groups_do_not_matter(pairs: list[tuple[float, int]]) -> None:
    values, groups = np.array([v for v, _ in pairs]), np.array([g for _, g in pairs])
    found = bootstrap_interval(values.tolist(), groups)
    assert bootstrap_interval(values.tolist(), 7 * groups + 3) == found
    assert values.min() - 1e-9 <= found[0] <= found[1] <= values.max() + 1e-9


def test_an_interval_over_groups_is_that_of_the_plain_cluster_bootstrap() -> None:
    generator = np.random.default_rng(3)
    groups = generator.integers(0, 40, 150)
    values = np.clip(0.7 + 0.2 * generator.normal(size=40)[groups], 0, 1)
    members = [values[groups == group] for group in np.unique(groups)]
    plain = [
        np.concatenate([members[i] for i in generator.integers(len(members), size=len(members))])
        for _ in range(5_000)
    ]
    wanted = np.percentile([drawn.mean() for drawn in plain], [2.5, 97.5])
    found = bootstrap_interval(values.tolist(), groups, resamples=5_000)
    assert found == pytest.approx(wanted, abs=0.01)
    of_images = bootstrap_interval(values.tolist())
    assert found[1] - found[0] > 1.5 * (of_images[1] - of_images[0])
    error = np.std([drawn.mean() for drawn in plain])
    assert standard_error(values, groups) == pytest.approx(error, rel=0.1)


@settings(max_examples=50, deadline=None)
@given(
    st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.integers(1, 9999), st.integers(1, 9999)
)
def test_a_prediction_contains_the_interval_and_nears_it(
    a: float, b: float, c: float, n: int, new: int
) -> None:
    low, average, high = sorted((a, b, c))
    found = predicted_interval(average, (low, high), n, new)
    assert 0 <= found[0] <= low + 1e-12 and high - 1e-12 <= found[1] <= 1
    of_more = predicted_interval(average, (low, high), n, new + 100)
    assert found[0] <= of_more[0] + 1e-12 and of_more[1] <= found[1] + 1e-12
    assert predicted_interval(average, (low, high), n, 10**15) == pytest.approx((low, high))


def test_a_prediction_holds_the_means_of_new_images_as_often_as_it_says() -> None:
    """Groups of three images that succeed and fail together, 100 seen and 40 new."""
    generator = np.random.default_rng(5)

    def draw(groups: int) -> np.ndarray:
        return np.clip(0.5 + 0.15 * generator.normal(size=groups), 0, 1).repeat(3)

    held, of_mean = 0, 0
    for _ in range(200):
        seen, new = draw(100), draw(40).mean()
        interval = bootstrap_interval(seen.tolist(), np.arange(100).repeat(3), resamples=400)
        low, high = predicted_interval(seen.mean(), interval, 300, 120)
        held, of_mean = held + (low < new < high), of_mean + (interval[0] < new < interval[1])
    assert 0.91 < held / 200 < 0.98 and of_mean / 200 < 0.8


def test_several_values_are_drawn_together() -> None:
    values = np.array([[0.1, 0.2], [0.3, 0.6], [0.5, 1.0], [0.2, 0.4]])
    drawn = bootstrap_means(values, np.array([0, 0, 1, 2]), resamples=50)
    assert drawn.shape == (50, 2) and drawn[:, 1] == pytest.approx(2 * drawn[:, 0])


def test_the_standard_error_of_images_is_the_usual_one_and_of_one_group_unknown() -> None:
    values = np.random.default_rng(4).random(50)
    assert standard_error(values) == pytest.approx(values.std(ddof=1) / math.sqrt(50))
    assert standard_error(values, np.zeros(50, np.int64)) == math.inf


def test_all_intervals_of_a_measure_are_over_the_groups() -> None:
    scores, others, groups = [0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5], np.array([0, 0, 1, 1])
    found = measure("x", scores, by=["a", "a", "a", "b"], others=others, groups=groups)
    assert found.against is not None and found.against.interval == (-0.5, 0.5)
    assert found.whole.n_groups == found.against.n_groups == 2
    assert found.whole.interval == (0.0, 1.0)
    assert found.per_group == average_by(scores, ["a", "a", "a", "b"], groups)
    assert [mean.n_groups for mean in found.per_group.values()] == [2, 1]
    lines = render_measured(Measured("images", tuple("wxyz"), {"x": found})).split("\n")
    assert "over 2 groups, 4 images)" in lines[0]
    assert any("paired 95% interval -0.5000 to +0.5000 over 2 groups)" in line for line in lines)
    with pytest.raises(ValueError, match="3 groups of 4 images"):
        measure("x", scores, groups=groups[:3])
