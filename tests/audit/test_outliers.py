from __future__ import annotations

import numpy as np
import pytest

from annotator.audit.inputs import AuditInput
from annotator.audit.outliers import (
    distances_to,
    distances_within,
    find_outliers,
    outlier_threshold,
)
from annotator.images.ref import ImageRef


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def audit_input(vectors: np.ndarray) -> AuditInput:
    refs = [ImageRef(f"i{n:03d}", "", bytes) for n in range(len(vectors))]
    return AuditInput(refs, vectors, np.zeros((len(refs), 64, 64), np.uint8), [], {})


def test_the_threshold_is_tukeys_outer_fence() -> None:
    assert outlier_threshold(np.array([np.nan, 1.0, 2.0, 3.0, 4.0, 5.0, np.nan])) == 4 + 3 * (4 - 2)
    assert outlier_threshold(np.array([])) == outlier_threshold(np.array([np.nan])) == np.inf


def test_planted_outliers_the_farthest_first() -> None:
    rng = np.random.default_rng(0)
    vectors = 0.1 * rng.normal(size=(60, 16)) + np.eye(16)[0]
    vectors[7] = np.eye(16)[0] + 2 * np.eye(16)[3]
    vectors[30] = -np.eye(16)[0]
    found, notes = find_outliers(audit_input(unit(vectors)), [""] * 60, "", None)
    assert [f.image_id for f in found] == ["i030", "i007"] and notes == []
    assert found[0].score > found[1].score > 0.25 and found[0].score <= 1
    assert found[0].detail.startswith(f"distance {2 * found[0].score:.3f} to its fifth nearest ")


def test_fifty_images_are_enough_and_equal_ones_are_no_outliers() -> None:
    vectors = unit(np.ones((50, 4)))
    assert find_outliers(audit_input(vectors), [""] * 50, "", None) == ([], [])
    found, notes = find_outliers(audit_input(vectors[:49]), [""] * 49, "", None)
    assert found == [] and notes == ["Unlike images were not looked for: that takes 50 images."]


@pytest.mark.parametrize("copies", [1, 2, 4])
def test_a_few_outliers_of_one_kind_do_not_vouch_for_each_other(copies: int) -> None:
    rng = np.random.default_rng(0)
    vectors = 0.2 * rng.normal(size=(100, 16)) + np.eye(16)[0]
    vectors[40 : 40 + copies] = np.eye(16)[5]
    distances = distances_within(unit(vectors), [""] * 100)
    rows = np.flatnonzero(distances > outlier_threshold(distances))
    assert rows.tolist() == list(range(40, 40 + copies))


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


def test_an_image_is_not_compared_with_itself_in_the_reference() -> None:
    vectors = unit(np.random.default_rng(2).normal(size=(20, 8)))
    rows = np.arange(20)
    own = distances_to(vectors, vectors[:3], rows, rows[:3])
    new = distances_to(vectors, vectors[:3], rows, np.full(3, -1))
    apart = np.sort(np.linalg.norm(vectors[:3, None] - vectors[None], axis=2), axis=1)
    np.testing.assert_allclose(own, apart[:, 5], atol=1e-3)
    np.testing.assert_allclose(new, apart[:, 4], atol=1e-3)  # the image itself is the nearest


def test_with_few_others_the_farthest_of_them_counts() -> None:
    vectors = unit(np.array([[1, 0], [0, 1], [-1, 0]], float))
    wanted = [2, np.sqrt(2), 2]
    np.testing.assert_allclose(distances_within(vectors, [""] * 3), wanted, atol=1e-3)
