"""What is taken from an index, also from one that has changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotator.errors import AnnotatorError
from annotator.map import points as module
from annotator.map.points import read_points
from index import StoredIndex, open_index
from index.folder.location import FolderLocation


def test_all_images(stored: StoredIndex) -> None:
    points = read_points(stored, limit=60)
    assert (len(points), points.total) == (60, 60)
    assert points.ids == list(stored.ids)
    assert points.labels.row(4) == stored.labels.row(4)
    assert points.texts("groups") == [f"p{i // 2}" for i in range(60)]
    assert points.texts("nothing") is None
    assert points.name("C1") == "Chest" and points.name("C8") == ""
    assert points.fitted
    pictures = points.pictures()
    assert pictures is not None and pictures[0] == stored.thumbnail(0) and pictures[7] == b""


def test_a_sample_is_the_same_for_the_same_seed(stored: StoredIndex) -> None:
    one, again, other = (read_points(stored, limit=20, seed=seed) for seed in (1, 1, 2))
    assert one.ids == again.ids != other.ids
    assert len(set(one.ids)) == 20 and one.ids == sorted(one.ids)
    assert (len(one), one.total) == (20, 60)
    for place, row in enumerate(one.rows.tolist()):
        assert one.labels.row(place) == stored.labels.row(row)


def test_blocks_hold_the_vectors_in_order(
    stored: StoredIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 7)
    points = read_points(stored, limit=25)
    blocks = list(points.blocks())
    assert [len(block) for block in blocks] == [7, 7, 7, 4]
    np.testing.assert_array_equal(np.concatenate(blocks), stored.vectors(points.rows))


def test_removed_images_are_not_drawn(tmp_path: Path, map_index: Path) -> None:
    directory = Path(shutil.copytree(map_index, tmp_path / "index"))
    FolderLocation(directory).remove_rows(["i000", "i030"])
    stored = open_index(directory)
    points = read_points(stored, limit=100)
    assert len(points) == points.total == 58
    assert points.ids[:2] == ["i001", "i002"] and points.texts("groups") is not None
    whole = read_points(open_index(map_index), limit=100)
    np.testing.assert_array_equal(
        np.concatenate(list(points.blocks())),
        np.delete(np.concatenate(list(whole.blocks())), [0, 30], axis=0),
    )
    assert points.pictures() == [
        p for i, p in enumerate(whole.pictures() or []) if i not in (0, 30)
    ]


def test_an_index_on_a_server_is_refused() -> None:
    elsewhere: Any = object()  # anything but an index in a folder
    with pytest.raises(AnnotatorError, match="is on a server"):
        read_points(elsewhere, limit=5)
