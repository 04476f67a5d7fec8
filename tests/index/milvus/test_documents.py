"""Revisions of the documents: two writers, and what is deleted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from index import IndexProblem
from index.milvus.documents import current
from index.milvus.location import MilvusLocation
from index.milvus.server import Server

Publish = Callable[..., str]
Unit = Callable[..., np.ndarray]


def test_revisions(location: MilvusLocation, publish: Publish, unit: Unit) -> None:
    large = np.random.default_rng(0).random((70, 128))  # in two parts
    publish(location, unit(10), arrays={"large": large})
    before = current(Server(location.address, 10))
    location.remove_rows(["i000003"])
    # Who has it open from before can neither change it nor read half of two revisions.
    with pytest.raises(IndexProblem, match="has got a new version meanwhile"):
        before.documents.publish(before.manifest, {})
    assert np.array_equal(before.documents.read_array(before.manifest, "large"), large)

    def keys() -> set[str]:
        return {row["key"] for row in before.documents.collection.query('key != ""', ["key"])}

    assert {"concepts/000001/00000", "concepts/000002/00000", "removed/000002/00000"} < keys()
    location.remove_rows(["i000004"])
    names = {key.rpartition("/")[0] for key in keys() if not key.startswith("manifest/")}
    assert names == {
        "concepts/000002", "concepts/000003", "removed/000002", "removed/000003", "large/000001",
    }  # fmt: skip
    assert sorted(int(key.split("/")[1]) for key in keys() if key.startswith("manifest/")) == [2, 3]
    with pytest.raises(IndexProblem, match="has got newer versions meanwhile"):
        before.documents.read(before.manifest, "concepts", now=True)
    assert np.array_equal(location.open().arrays["large"], large)
