"""The server is killed in the middle of the work and started again: no row is lost or doubled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from index import FlatIndex, LabelTable
from index.milvus import rows as milvus_rows
from index.milvus.location import MilvusLocation
from index.progress import Work, reported_by
from index.segments import Segment

pytestmark = pytest.mark.slow
Publish = Callable[..., str]
Unit = Callable[..., np.ndarray]
N, MORE = 8000, 3000


@pytest.fixture
def killing(milvus: Any) -> Iterator[Callable[[int], Callable[..., Iterable[Any]]]]:
    """Makes a progress that kills the server after n rows were sent, and starts it meanwhile."""
    starting: list[threading.Thread] = []

    def after(n: int) -> Callable[..., Iterable[Any]]:
        def progress(items: Iterable[Any], work: Work) -> Iterator[Any]:
            for i, item in enumerate(items):
                if i == n and work.label == "Sending":
                    milvus.kill()
                    starting.append(threading.Thread(target=milvus.start))
                    starting[-1].start()
                yield item

        return progress

    yield after
    for thread in starting:
        thread.join()


def check(location: MilvusLocation, vectors: np.ndarray, ids: list[str]) -> None:
    """All of the rows are there, once each, and search finds what brute force does."""
    assert location.problems() == []
    index = location.open()
    assert len(index) == len(ids) == len(index.labels)
    queries = vectors[:: len(vectors) // 50]
    expected = FlatIndex(vectors).search(queries, 10).rows
    found = index.find(queries, 10)
    theirs = [[found.cases.ids[row] for row in rows] for rows in found.neighbors.rows.tolist()]
    assert theirs == [[ids[row] for row in rows] for rows in expected.tolist()]


def test_a_build_and_an_addition_and_annotations_meanwhile(
    location: MilvusLocation, publish: Publish, unit: Unit, killing: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(milvus_rows, "_MOST_ROWS", 500)
    vectors = unit(N)
    ids = [f"i{i:06d}" for i in range(N)]
    with reported_by(killing(4200)):
        assert publish(location, vectors) == "v000001.1"
    check(location, vectors, ids)

    reader = location.open()
    queries = unit(1000, seed=5)
    expected = FlatIndex(vectors).search(queries, 10)
    rounds, errors = [0], []
    ended = threading.Event()

    def annotate() -> None:
        """1,000 annotations and more, until the addition has ended."""
        try:
            while rounds[0] < 20 or not ended.is_set():
                some = slice(rounds[0] % 20 * 50, rounds[0] % 20 * 50 + 50)
                found = reader.find(queries[some], 10)
                rows = found.neighbors.rows.tolist()
                theirs = [[found.cases.ids[row] for row in near] for near in rows]
                mine = expected.rows[some].tolist()
                assert theirs == [[ids[row] for row in near] for near in mine]
                gap = found.neighbors.similarities - expected.similarities[some]
                assert np.abs(gap).max() < 1e-6
                rounds[0] += 1
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=annotate)
    thread.start()
    new = unit(MORE, seed=9)
    new_ids = [f"n{i:06d}" for i in range(MORE)]
    labels = LabelTable.from_sets([["C1"]] * MORE)
    try:
        rows = Segment(new, new_ids, labels, {}, {}, {})
        with reported_by(killing(1700)):
            change = location.add_rows(rows, of=reader.version)
    finally:
        ended.set()
        thread.join()
    assert not errors and rounds[0] >= 20
    assert (change.rows, change.added) == (N + MORE, MORE)
    check(location, np.concatenate([vectors, new]), ids + new_ids)
