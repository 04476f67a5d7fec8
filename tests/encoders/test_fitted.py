"""What a fitted encoder tells of the images that it was fitted to."""

from __future__ import annotations

import numpy as np
import pytest
from test_combined import embed_all, pictures, small

from annotator.encoders.combined import CombinedEmbedder
from annotator.encoders.fitted import NEW, SEEN_BY_ALL, Fitted
from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.errors import AnnotatorError


def fitted(start: int = 0) -> Fitted:
    """Two branches of three numbers each, three concepts, four images."""
    rng = np.random.default_rng(0)
    contents = np.unique(rng.integers(0, 256, (4, 16), np.uint8), axis=0)
    weights = rng.normal(size=(2, 3, 3)).astype(np.float32)
    biases = rng.normal(size=(2, 3)).astype(np.float32)
    columns = ((start, start + 3), (start + 3, start + 6))
    folds = np.array([0, 1, SEEN_BY_ALL, 1], np.int16)
    return Fitted(columns, ("C1", "C2", "C3"), weights, biases, contents, folds)


def with_fitted(dim: int, start: int) -> TorchEmbedder:
    embedder = small(dim, 8)
    embedder.fitted = fitted(start)
    return embedder


def test_images_are_known_by_their_bytes() -> None:
    known = fitted()
    new = np.zeros((1, 16), np.uint8)
    halves = np.concatenate([known.contents[[3, 0]], new, known.contents[[2]]])
    contents = np.hstack([halves, np.full((4, 16), 7, np.uint8)])
    assert known.folds_of(contents).tolist() == [1, 0, NEW, SEEN_BY_ALL]


def test_the_head_reads_its_block_whatever_its_length() -> None:
    known = fitted(start=2)
    vectors = np.random.default_rng(1).normal(size=(5, 9)).astype(np.float32)
    unit = vectors[:, 5:8] / np.linalg.norm(vectors[:, 5:8], axis=1, keepdims=True)
    expected = unit @ known.weights[1] + known.biases[1]
    assert known.log_odds(vectors, 1) == pytest.approx(expected, abs=1e-6)
    assert known.log_odds(vectors / 3, 1) == pytest.approx(expected, abs=1e-5)


def test_a_fitted_part_is_found_in_the_joint_vector() -> None:
    part = with_fitted(8, start=2)
    joint = CombinedEmbedder([small(5, 8), part])
    assert joint.fitted is not None and joint.fitted.columns == ((7, 10), (10, 13))
    assert joint.fitted.concepts == ("C1", "C2", "C3")
    alone, together = embed_all(part, pictures(3)), embed_all(joint, pictures(3))
    assert part.fitted is not None
    expected = part.fitted.log_odds(alone, 1)
    assert joint.fitted.log_odds(together, 1) == pytest.approx(expected, abs=1e-5)
    assert CombinedEmbedder([small(5, 8), small(4, 8)]).fitted is None


def test_two_fitted_parts_are_refused() -> None:
    with pytest.raises(AnnotatorError, match="Several fitted encoders cannot be joined: w8, w9"):
        CombinedEmbedder([with_fitted(8, 0), small(4, 8), with_fitted(9, 0)])
