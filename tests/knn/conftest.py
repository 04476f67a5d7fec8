"""Collections that tuning can tell something about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
from numpy.typing import NDArray

from annotator.evaluation.measures import group_numbers
from index import LabelTable


@dataclass(frozen=True)
class Sample:
    """Vectors float32[n, dim] of unit norm with concepts and groups."""

    vectors: NDArray[np.float32]
    concepts: list[list[str]]
    groups: list[str]

    @cached_property
    def labels(self) -> LabelTable:
        return LabelTable.from_sets(self.concepts)

    @property
    def numbers(self) -> NDArray[np.int64]:
        return group_numbers(self.groups)


def draw_twins(n: int = 240, seed: int = 0) -> Sample:
    """Noisy clusters with a concept each, every image twice: one group is two equal vectors."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, 16))
    cluster = rng.integers(0, 6, n // 2).repeat(2)
    vectors = centres[cluster] + 1.2 * rng.normal(size=(n // 2, 16)).repeat(2, axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    odd = rng.random(n // 2).repeat(2) < 0.3
    concepts = [
        ["C0", f"C{c + 1}"] if o else [f"C{c + 1}"] for c, o in zip(cluster, odd, strict=True)
    ]
    return Sample(vectors.astype(np.float32), concepts, [f"patient {i // 2}" for i in range(n)])


@pytest.fixture(scope="session")
def twins() -> Sample:
    return draw_twins()


@pytest.fixture(scope="session")
def make_twins() -> Callable[..., Sample]:
    return draw_twins


@pytest.fixture(scope="session")
def noise() -> Sample:
    """Concepts that have nothing to do with the vectors, in which a regression still finds them."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 160))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    concepts = [[f"C{rng.integers(6)}"] for _ in range(300)]
    return Sample(vectors.astype(np.float32), concepts, [""] * 300)
