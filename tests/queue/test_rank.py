from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotator.errors import AnnotatorError
from annotator.knn.voting import Voting
from annotator.queue.rank import Queue, rank_indexed
from index import StoredIndex, open_index
from index.folder.writer import VersionWriter

WRONG = (3, 17, 40, 41)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredIndex:
    """Six clusters of 20 images, each with a concept of its own; some have another cluster's."""
    rng = np.random.default_rng(0)
    of = np.arange(120) % 6
    vectors = rng.normal(size=(6, 16))[of] + 0.3 * rng.normal(size=(120, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    sets = [[f"C{k}", "C9"] for k in of]
    for row in WRONG:
        sets[row] = [f"C{(of[row] + 1) % 6}", "C9"]
    directory = tmp_path_factory.mktemp("queue") / "index"
    with VersionWriter(directory) as writer:
        writer.add(vectors.astype(np.float32))
        writer.publish(
            [f"image-{i}" for i in range(120)],
            sets,
            names={"C3": "Third"},
            columns={"groups": [f"g{i // 2}" for i in range(120)]},
            about={},
        )
    return open_index(directory)


def ranked(stored: StoredIndex, budget: int = 10, **options: Any) -> Queue:
    return rank_indexed(stored, Voting(k=15), budget, **options)


def test_wrong_labels_come_first(stored: StoredIndex) -> None:
    queue = ranked(stored)
    assert {item.image_id for item in queue.items[:4]} == {f"image-{row}" for row in WRONG}
    assert queue.judged == 120 and queue.total >= 4
    gains = [item.gain for item in queue.items]
    assert gains == sorted(gains, reverse=True) and min(gains) > 0
    (third,) = (item for item in queue.items if item.image_id == "image-3")
    assert third.reason.startswith("lacks C3 Third (") and "; holds C4 (" in third.reason
    assert 0.3 < third.doubt <= 1


def test_the_same_index_has_the_same_queue(stored: StoredIndex) -> None:
    assert ranked(stored) == ranked(stored)
    assert ranked(stored, 2).items == ranked(stored).items[:2]


def test_what_was_reviewed_is_not_asked_again(stored: StoredIndex) -> None:
    first, second, *_ = (item.image_id for item in ranked(stored).items)
    left = ranked(stored, 500, reviewed=[first, "nobody"])
    asked = {item.image_id for item in left.items}
    assert first not in asked and second in asked
    assert left.total == ranked(stored).total - 1


def test_of_a_large_index_some_are_judged(stored: StoredIndex) -> None:
    assert ranked(stored, most=30).judged == 30


def test_an_index_on_a_server_lists_nothing() -> None:
    class OnServer:
        pass

    with pytest.raises(AnnotatorError, match="does not list its images"):
        rank_indexed(OnServer(), Voting(), 1)  # type: ignore[arg-type]


def test_one_image_has_no_neighbours(tmp_path: Path) -> None:
    with VersionWriter(tmp_path / "one") as writer:
        writer.add(np.eye(1, 4, dtype=np.float32))
        writer.publish(["a"], [["C1"]], names={}, columns={}, about={})
    assert ranked(open_index(tmp_path / "one")) == Queue((), 0, 1)
