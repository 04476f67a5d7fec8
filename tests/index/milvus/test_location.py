"""Building, changing and reading an index in Milvus: stopped work, concurrent readers, limits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index import IndexProblem, LabelTable
from index.folder.location import FolderLocation
from index.milvus import rows as milvus_rows
from index.milvus.collection import Collection
from index.milvus.index import MilvusIndex
from index.milvus.location import MilvusLocation
from index.progress import Work, reported_by
from index.segments import Segment

Publish = Callable[..., str]
Unit = Callable[..., np.ndarray]


class Stopped(Exception):
    """Where a process was killed."""


def stop_after(n: int) -> Callable[..., Iterable[Any]]:
    """A progress that stops the work after n rows."""

    def progress(items: Iterable[Any], work: Work) -> Iterator[Any]:
        for i, item in enumerate(items):
            if i == n and work.label == "Sending":
                raise Stopped
            yield item

    return progress


def segment(vectors: np.ndarray, ids: list[str], concepts: list[list[str]]) -> Segment:
    return Segment(vectors, ids, LabelTable.from_sets(concepts), {}, {}, {})


def added(n: int, unit: Unit, prefix: str = "new", seed: int = 7) -> Segment:
    return segment(unit(n, seed=seed), [f"{prefix}{i:05d}" for i in range(n)], [["C7"]] * n)


def ids_of(location: MilvusLocation, vectors: np.ndarray, k: int) -> list[list[str]]:
    found = location.open().find(vectors, k)
    return [[found.cases.ids[row] for row in rows] for rows in found.neighbors.rows.tolist()]


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows go into each message; ten at most."""
    sent: list[int] = []
    really = milvus_rows._send

    def count_them(collection: Any, some: list[Any], **options: Any) -> None:
        sent.append(len(some))
        really(collection, some, **options)

    monkeypatch.setattr(milvus_rows, "_send", count_them)
    monkeypatch.setattr(milvus_rows, "_MOST_ROWS", 10)
    return sent


def test_stopped_work_goes_on(
    location: MilvusLocation, publish: Publish, unit: Unit, sends: list[int]
) -> None:
    vectors = unit(100)
    with pytest.raises(Stopped), reported_by(stop_after(35)):
        publish(location, vectors)
    assert sends == [10] * 4
    with pytest.raises(IndexProblem, match="there is no such index"):
        location.open()
    sends.clear()
    assert publish(location, vectors) == "v000001.1"
    assert sends == [10] * 6  # those that were there are not sent again
    assert publish(location, vectors) == "v000001.1" and sum(sends) == 60
    assert location.problems() == []

    # An addition: readers see nothing of it until it has ended.
    new = added(40, unit)
    sends.clear()
    with pytest.raises(Stopped), reported_by(stop_after(15)):
        location.add_rows(new, of="v000001.1")
    assert sends == [10, 10]
    index = location.open()
    assert len(index) == 100
    near = index.find(new.vectors[:9], 3)
    assert all(id_.startswith("i") for id_ in near.cases.ids)
    assert near.neighbors.rows.shape == (9, 3)
    (problem,) = location.problems()
    assert "20 rows more are counted: of a change that was stopped" in problem
    sends.clear()
    change = location.add_rows(new, of="v000001.1")
    assert (change.rows, change.added) == (140, 40) and sends == [10, 10]
    assert ids_of(location, new.vectors, 1) == [[id_] for id_ in new.ids]
    assert index.find(new.vectors, 1).cases.ids[0].startswith("i")  # as it was opened
    assert location.problems() == []
    with pytest.raises(IndexProblem, match="40 of the 40 images are in the index already"):
        location.add_rows(new, of=change.version)
    # Others take the place of an addition that was given up.
    with pytest.raises(Stopped), reported_by(stop_after(25)):
        location.add_rows(added(30, unit, "given_up"), of=change.version)
    location.add_rows(added(5, unit, "last", seed=8), of=change.version)
    assert location.problems() == [] and len(location.open()) == 145


def test_a_removal_that_was_stopped(
    tmp_path: Path, location: MilvusLocation, publish: Publish, unit: Unit, monkeypatch: Any
) -> None:
    vectors = unit(60)
    publish(location, vectors)
    gone = [f"i{i:06d}" for i in (3, 8, 59)]

    def stop(*_: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Collection, "delete_rows", stop)
        location.remove_rows(gone)
    # The documents say that they are removed, so nobody finds them, though they are there.
    assert len(location.open()) == 57
    assert not {*gone} & {id_ for near in ids_of(location, vectors, 57) for id_ in near}
    (problem,) = location.problems()
    assert "3 removed rows are still there" in problem
    assert location.remove_rows(gone).removed == 3  # the same command again
    assert location.problems() == []
    with pytest.raises(IndexProblem, match="3 of the 3 images are not in the index"):
        location.remove_rows(gone)
    with pytest.raises(IndexProblem, match="No image would be left"):
        location.remove_rows([f"i{i:06d}" for i in range(60)], missing_ok=True)
    # The rows that are left are numbered as a folder numbers them.
    publish(FolderLocation(tmp_path / "index"), vectors)
    FolderLocation(tmp_path / "index").remove_rows(gone)
    numbers = np.arange(60).reshape(12, 5)
    local = FolderLocation(tmp_path / "index").open()
    assert np.array_equal(location.open().renumber(numbers), local.renumber(numbers))
    assert location.open().labels.sizes.tolist() == local.labels.sizes.tolist()


def test_readers_never_see_half_a_build(
    location: MilvusLocation, publish: Publish, unit: Unit
) -> None:
    vectors = {"old": unit(200), "new": unit(300, seed=3)}
    publish(location, vectors["old"], about={"which": "old"})
    kept = location.open()
    seen: list[str] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                index = location.open()
                which = str(index.manifest.about["which"])
                assert len(index) == len(vectors[which])
                assert len(index.find(vectors[which][:9], 300).neighbors.rows[0]) == len(index)
                assert index.find(vectors[which][:1], 1).neighbors.similarities > 0.99999
                seen.append(which)
        except BaseException as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        publish(location, vectors["new"], about={"which": "new"})
    finally:
        done.set()
        reader.join()
    assert not errors
    assert seen == sorted(seen, reverse=True) and seen[0] == "old"
    assert location.open().manifest.about["which"] == "new"
    assert len(kept.find(vectors["old"], 1).cases.ids) == 200  # as it was opened


def test_another_version_and_other_owners_of_the_name(
    location: MilvusLocation, milvus: Any, publish: Publish, unit: Unit
) -> None:
    publish(location, unit(20))
    with pytest.raises(IndexProblem, match="has got a new version meanwhile"):
        location.add_rows(added(3, unit), of="v000000.9")
    assert location.change_about({"what": "else"}, of="v000001.1") == "v000001.2"
    assert location.change_about({"what": "else"}, of="v000001.2") == "v000001.2"
    with pytest.raises(IndexProblem, match="15 dimensions"):
        location.add_rows(segment(unit(1, 15), ["x"], [["C1"]]), of="v000001.2")
    client = milvus.client()
    name = f"{location.address.name}_v000001"
    with pytest.raises(IndexProblem, match="is a collection that annotator did not make"):
        publish(MilvusLocation.at(milvus.address(name)), unit(3))
    client.create_alias(name, "foreign")
    with pytest.raises(IndexProblem, match="which is no index of ours"):
        publish(MilvusLocation.at(milvus.address("foreign")), unit(3))
    # The manifest of a later annotator.
    documents = f"{name}_documents"
    for entity in client.query(documents, 'key like "manifest/%"', ["key", "text"]):
        client.delete(documents, ids=[entity["key"]])
    with pytest.raises(IndexProblem, match="holds no manifest"):
        location.open()


def test_compact_leaves_no_version_before(
    location: MilvusLocation, milvus: Any, publish: Publish, unit: Unit
) -> None:
    """Not even if nothing was removed from this one: it may hold what others were built without."""
    publish(location, unit(20))
    kept = location.open()
    publish(location, unit(10, seed=1))
    prefix = f"{location.address.name}_v"

    def versions() -> list[str]:
        names = milvus.client().list_collections()
        return sorted(name[len(prefix) - 1 :] for name in names if name.startswith(prefix))

    assert versions() == ["v000001", "v000001_documents", "v000002", "v000002_documents"]
    assert location.compact(of="v000002.1", arrays={}).version == "v000002.1"
    assert versions() == ["v000002", "v000002_documents"]
    assert location.problems() == []
    with pytest.raises(IndexProblem, match=r"v000001\.1 is gone") as problem:
        kept.find(unit(1), 1)
    assert problem.value.hint == "Open the index again."


def test_a_database_of_the_server(
    milvus: Any, location: MilvusLocation, publish: Publish, unit: Unit
) -> None:
    vectors = unit(30)
    publish(location, vectors[:20])
    milvus.client().create_database("team")
    other = MilvusLocation.at(f"{location}?db=team")
    with pytest.raises(IndexProblem, match="there is no such index"):
        other.open()
    for n in (10, 30):  # the second time the alias moves
        publish(other, vectors[:n])
        assert (len(other.open()), len(location.open())) == (n, 20)
    assert other.open().version == "v000002.1"
    assert other.problems() == location.problems() == []
    with pytest.raises(IndexProblem, match="has no database nowhere"):
        MilvusLocation.at(f"{location}?db=nowhere").open()


# Whatever an id may hold: quotes, backslashes and the like must not end the condition.
CHARACTERS = st.characters(blacklist_characters="\t\r\n", blacklist_categories=["Cs"])
IDS = st.text(CHARACTERS, min_size=1, max_size=40)
ODD = [
    '"', "'", "\\", '\\"', "a\\nb", "\\u0041", '" or row >= 0 or id == "', "%", "_", "{}", "[1]",
    "ü\u2028\U0001f9b4", "\x00", "\x7f", " ", "/", "//", "--", "$1", "true",
]  # fmt: skip


@pytest.fixture(scope="module")
def some_index(milvus: Any, publish: Publish, unit: Unit) -> MilvusLocation:
    location = MilvusLocation.at(milvus.address())
    publish(location, unit(10))
    return location


@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=st.lists(IDS, min_size=60, max_size=200, unique=True))
def test_ids_of_any_kind(some_index: MilvusLocation, drawn: list[str]) -> None:
    ids = list(dict.fromkeys(ODD + drawn))
    vectors = np.eye(16, dtype=np.float32)[np.arange(len(ids)) % 16]
    version = some_index.open().version
    some_index.add_rows(segment(vectors, ids, [["C1"]] * len(ids)), of=version)
    index = some_index.open()
    assert isinstance(index, MilvusIndex)
    assert {entity["id"] for entity in index.rows.select("id", ids, ["row"])} == set(ids)
    assert some_index.remove_rows(ids).rows == 10
    assert list(index.rows.select("id", ids, ["row"])) == []
    assert len(some_index.open()) == 10


def test_what_milvus_cannot_keep_is_refused_before_it_is_sent(
    location: MilvusLocation, publish: Publish, unit: Unit
) -> None:
    for options, message in (
        ({"ids": ["x" * 513, "y"]}, "ids of 1 to 512 bytes"),
        ({"ids": ["", "y"]}, "ids of 1 to 512 bytes"),
        ({"concepts": [["C" * 65], []]}, "CUIs of up to 64 bytes"),
        ({"concepts": [[f"C{i}" for i in range(1001)], []]}, "up to 1000 CUIs"),
        ({"concepts": [["C1;C2"], []]}, "'C1;C2' cannot be a CUI"),
        ({"columns": {"captions": ["ü" * 32768, ""]}}, "i000000: Milvus keeps texts"),
        ({"columns": {"cuis": ["", ""]}}, "'cuis' cannot be the name"),
        ({"index_type": "scan"}, "no index of the type scan"),
    ):
        with pytest.raises(IndexProblem, match=message):
            publish(location, unit(2), **options)
    with pytest.raises(IndexProblem, match="there is no such index"):
        location.manifest()
