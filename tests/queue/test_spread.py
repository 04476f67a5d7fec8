from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotator.queue import spread
from annotator.queue.spread import REACH, Likeness, choose_spread


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def dense(likeness: Likeness) -> np.ndarray:
    """By what is stood for, and what stands for it."""
    n = len(likeness)
    matrix = np.zeros((n, n))
    for i in range(n):
        entries = slice(likeness.starts[i], likeness.starts[i + 1])
        matrix[likeness.images[entries], i] = likeness.values[entries]
    return matrix


def brute_force(
    values: np.ndarray, matrix: np.ndarray, budget: int, weights: np.ndarray
) -> tuple[list[int], list[float]]:
    """The greedy choice, all gains computed anew at each step."""
    covered, order, added = np.zeros(len(values)), list[int](), list[float]()
    for _ in range(budget):
        gains = weights * (values @ np.maximum(matrix - covered[:, None], 0))
        gains[order] = 0
        best = int(gains.argmax())
        if gains[best] <= 0:
            break
        order.append(best)
        added.append(float(gains[best]))
        covered = np.maximum(covered, matrix[:, best])
    return order, added


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10_000), st.integers(1, 80), st.integers(0, 30))
def test_the_choice_is_the_greedy_one(seed: int, n: int, budget: int) -> None:
    rng = np.random.default_rng(seed)
    likeness = Likeness.of(unit(rng.normal(size=(n, 5))), 4.0)
    values, weights = rng.random(n), rng.random(n)
    order, gains = choose_spread(values, likeness, budget, weights=weights)
    wanted, added = brute_force(values, dense(likeness), budget, weights)
    assert order.tolist() == wanted
    np.testing.assert_allclose(gains, added, rtol=1e-9)


def test_likeness_is_that_of_the_nearest() -> None:
    rng = np.random.default_rng(0)
    vectors = unit(rng.normal(size=(200, 8)))
    matrix = dense(Likeness.of(vectors, 3.0))
    similarities = vectors.astype(np.float64) @ vectors.T
    np.fill_diagonal(similarities, 1)
    nearest = np.argsort(-similarities, axis=1)[:, : REACH + 1]
    wanted = np.zeros_like(matrix)
    np.put_along_axis(
        wanted, nearest, np.exp(3 * (np.take_along_axis(similarities, nearest, 1) - 1)), 1
    )
    np.testing.assert_allclose(matrix, wanted, rtol=1e-5)
    assert (np.diag(matrix) == 1).all()


def test_of_copies_one_is_asked() -> None:
    vectors = unit(np.repeat(np.eye(4), [200, 3, 2, 1], axis=0))
    order, gains = choose_spread(np.full(206, 0.5), Likeness.of(vectors, 50.0), 206)
    # What is stood for in full adds nothing.
    assert order.tolist() == [0, 200, 203, 205]
    np.testing.assert_allclose(gains, [100, 1.5, 1, 0.5], rtol=1e-6)


def test_nothing_to_choose() -> None:
    order, gains = choose_spread(np.zeros(3), Likeness.of(unit(np.eye(3)), 1.0), 3)
    assert len(order) == len(gains) == 0
    assert len(Likeness.of(np.zeros((0, 4), np.float32), 1.0)) == 0
    assert (
        len(choose_spread(np.zeros(0), Likeness.of(np.zeros((0, 4), np.float32), 1.0), 3)[0]) == 0
    )


def test_of_many_images_most_of_the_nearest_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, 16))[rng.integers(0, 60, 2500)]
    vectors, values = unit(centres + 0.4 * rng.normal(size=(2500, 16))), rng.random(2500)
    exact = Likeness.of(vectors, 12.0)
    monkeypatch.setattr(spread, "MOST_COMPARED", 1000)
    found, again = Likeness.of(vectors, 12.0), Likeness.of(vectors, 12.0)
    for name in ("starts", "images", "values"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))

    def worth(chosen: np.ndarray) -> float:
        """What they stand for, by the exact likeness."""
        covered = np.zeros(len(values))
        for i in chosen.tolist():
            entries = slice(exact.starts[i], exact.starts[i + 1])
            images = exact.images[entries]
            covered[images] = np.maximum(covered[images], exact.values[entries])
        return float(values @ covered)

    by_exact, by_found = (choose_spread(values, like, 100)[0] for like in (exact, found))
    assert worth(by_found) >= 0.98 * worth(by_exact)
    assert len({*by_found.tolist()} & {*by_exact.tolist()}) >= 70
