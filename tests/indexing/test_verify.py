"""Damaged indexes whose checksums are right, as somebody with ill intent would write them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from versions import version_folder

from annotator.indexing.verify import problems_of
from index.folder.location import FolderLocation
from tests.index.indexes import replace_file, rewrite


def test_a_sound_index(tuned_index: Path) -> None:
    assert problems_of(FolderLocation(tuned_index)) == []


def changed_array(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        file = io.BytesIO()
        np.save(file, change(np.load(version_folder(directory) / f"{name}.npy")))
        replace_file(directory, f"{name}.npy", file.getvalue())

    return damage


def changed_about(**fields: Any) -> Callable[[Path], None]:
    return lambda directory: rewrite(directory, lambda m: m | {"about": m["about"] | fields})


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (changed_array("projection.matrix", lambda a: a[:, :-1]), "projection"),
        (changed_array("projection.mean", lambda a: a[:-1]), "projection"),
        (changed_array("projection.matrix", lambda a: a * np.nan), "projection"),
        (changed_array("projection.scale", lambda a: a.astype(complex)), "projection"),
        (changed_array("tuning.rows", lambda a: a + 10_000), "neighbour lists"),
        (changed_array("tuning.similarities", lambda a: a[:, :-1]), "neighbour lists"),
        (changed_about(voting={"k": -3}), "voting parameters"),
        (changed_about(embedder={"name": "x"}), "encoder"),
        (changed_about(outlier_factors="many"), "familiarity"),
    ],
)
def test_what_use_would_open(
    tuned_index: Path, damage: Callable[[Path], None], problem: str
) -> None:
    damage(tuned_index)
    assert FolderLocation(tuned_index).problems() == []
    found = problems_of(FolderLocation(tuned_index))
    assert any(problem in one for one in found), found
