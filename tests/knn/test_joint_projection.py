"""Parts of a vector, projected side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from annotator.errors import AnnotatorError
from annotator.knn.fit import Fitter
from annotator.knn.joint_projection import JointProjection, stored_projection
from annotator.knn.projection import Projection, unit
from index import LabelTable

N, GENERAL, BRANCH = 40, 7, 5
SHARES = (0.7, 0.2, 0.1)


def unit_vectors(n: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, GENERAL + 2 * BRANCH))
    return unit(vectors).astype(np.float32)


@pytest.fixture(scope="module")
def joint() -> JointProjection:
    vectors = unit_vectors(N)
    columns = tuple(np.split(np.arange(GENERAL + 2 * BRANCH), [GENERAL, GENERAL + BRANCH]))
    labels = LabelTable.from_sets([("A",) if i % 3 else ("B",) for i in range(N)])
    parts = [Fitter(vectors[:, c], labels, [len(c)]).projection(1.0) for c in columns]
    return JointProjection(vectors.shape[1], columns, tuple(parts), SHARES)


def test_a_similarity_is_the_weighted_mean_of_those_of_the_parts(joint: JointProjection) -> None:
    vectors = unit_vectors(6, seed=1)
    found = joint.apply(vectors)
    assert found.dtype == np.float32 and np.allclose(np.linalg.norm(found, axis=1), 1)
    wanted = np.zeros((6, 6))
    for columns, part, share in zip(joint.columns, joint.parts, joint.shares, strict=True):
        own = part.apply(vectors[:, columns]).astype(np.float64)
        wanted += share * own @ own.T
    assert np.allclose(found @ found.T, wanted, atol=1e-5)
    assert np.array_equal(joint.apply(vectors, np.array([4, 1])), found[[4, 1]])


def test_a_similarity_is_an_exact_sum_over_the_vector(joint: JointProjection) -> None:
    query, others = unit_vectors(1, seed=2)[0], joint.apply(unit_vectors(5, seed=3))
    weights, constant = joint.similarity_as_sum(query, others.astype(np.float64))
    similarity = others.astype(np.float64) @ joint.apply(query[None])[0]
    assert np.allclose(weights @ query + constant, similarity, atol=1e-5)


def test_columns_without_a_part_do_not_count(joint: JointProjection) -> None:
    alone = replace(joint, columns=joint.columns[:1], parts=joint.parts[:1], shares=(1.0,))
    vectors = unit_vectors(3, seed=4)
    changed = vectors.copy()
    changed[:, GENERAL:] = 0.5
    assert np.array_equal(alone.apply(vectors), alone.apply(changed))
    weights, _ = alone.similarity_as_sum(vectors[0], alone.apply(vectors).astype(np.float64))
    assert not weights[:, GENERAL:].any()


def test_from_arrays_and_back(joint: JointProjection) -> None:
    arrays = {**joint.to_arrays(), "another": np.zeros(3)}
    vectors = unit_vectors(3, seed=5)
    back = stored_projection(arrays)
    assert isinstance(back, JointProjection) and back.shares == joint.shares
    assert np.array_equal(back.apply(vectors), joint.apply(vectors))
    assert isinstance(stored_projection(joint.parts[0].to_arrays()), Projection)
    assert stored_projection({"another": np.zeros(3)}) is None


@pytest.mark.parametrize("change", ["joint.dim", "joint.0.columns", "joint.1.projection.mean"])
def test_damaged_arrays_are_refused(joint: JointProjection, change: str) -> None:
    arrays = joint.to_arrays()
    del arrays[change]
    with pytest.raises(AnnotatorError):
        stored_projection(arrays)


@pytest.mark.parametrize(
    "changes",
    [{"shares": (0.5, 0.2, 0.1)}, {"dim": GENERAL + BRANCH}, {"parts": ()}, {"shares": (2, -1, 0)}],
)
def test_parts_that_do_not_fit_are_refused(joint: JointProjection, changes: dict) -> None:
    with pytest.raises(AnnotatorError, match="do not fit"):
        replace(joint, **changes)
