"""Small indexes of vectors that are laid out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from index import StoredIndex, VersionWriter, open_index

MakeIndex = Callable[..., StoredIndex]


@pytest.fixture
def make_index(tmp_path: Path) -> MakeIndex:
    """An index of images on the unit circle, by their angles in degrees."""

    def make(
        angles: Sequence[float],
        concepts: Sequence[Sequence[str]],
        groups: Sequence[str] | None = None,
    ) -> StoredIndex:
        radians = np.deg2rad(np.array(angles))
        ids = [f"i{n}" for n in range(len(angles))]
        columns = {"captions": [f"Case {n}." for n in range(len(angles))]}
        if groups is not None:
            columns["groups"] = list(groups)
        with VersionWriter(tmp_path / "circle") as writer:
            writer.add(np.column_stack([np.cos(radians), np.sin(radians)]).astype(np.float32))
            writer.publish(
                ids, concepts, names={"C1": "One"}, columns=columns, about={}, index_type="flat"
            )
        return open_index(tmp_path / "circle")

    return make
