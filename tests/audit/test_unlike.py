from __future__ import annotations

import numpy as np
import pytest

from annotator.audit.unlike import distances_within, evenly, strangers


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_only_what_lies_far_beyond_is_strange() -> None:
    typical = np.random.default_rng(0).lognormal(-1, 0.1, 500)
    found = strangers(np.array([0.4, 0.9, np.nan, 1.2]), typical)
    assert [s.row for s in found] == [3, 1]
    assert all(s.distance > s.threshold > 0.5 for s in found)


@pytest.mark.parametrize("copies", [1, 2, 4])
def test_a_few_strangers_of_one_kind_do_not_vouch_for_each_other(copies: int) -> None:
    rng = np.random.default_rng(0)
    vectors = 0.2 * rng.normal(size=(100, 16)) + np.eye(16)[0]
    vectors[40 : 40 + copies] = np.eye(16)[5]
    distances = distances_within(unit(vectors), [""] * 100)
    found = strangers(distances, distances)
    assert {s.row for s in found} == set(range(40, 40 + copies))


def test_images_of_the_own_group_do_not_count() -> None:
    rng = np.random.default_rng(0)
    vectors = unit(rng.normal(size=(30, 8)))
    vectors[1:6] = vectors[0]
    near = distances_within(vectors, [""] * 30)
    apart = distances_within(vectors, ["p" if i < 6 else "" for i in range(30)])
    assert (near[:6] < 1e-3).all() and (apart[:6] > 0.3).all()
    np.testing.assert_allclose(apart[6:], near[6:])
    assert np.isnan(distances_within(vectors, ["one"] * 30)).all()


def test_the_fifth_nearest_of_brute_force() -> None:
    vectors = unit(np.random.default_rng(1).normal(size=(40, 8)))
    apart = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    wanted = np.sort(apart, axis=1)[:, 5]  # the first is the image itself
    np.testing.assert_allclose(distances_within(vectors, [""] * 40), wanted, atol=1e-3)


def test_of_many_images_evenly_spaced_ones_are_compared_with() -> None:
    assert evenly(3).tolist() == [0, 1, 2]
    rows = evenly(25_000)
    assert len(rows) == 10_000 and rows[0] == 0 and rows[-1] == 24_999
