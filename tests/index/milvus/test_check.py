"""`verify` finds damage that somebody else did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from index.milvus.location import MilvusLocation

Publish = Callable[..., str]
Unit = Callable[..., np.ndarray]


def test_verify_finds_planted_damage(
    location: MilvusLocation, milvus: Any, publish: Publish, unit: Unit
) -> None:
    vectors = unit(40)
    publish(location, vectors, columns={"captions": [f"Case {i}" for i in range(40)]})
    client, name = milvus.client(), f"{location.address.name}_v000001"

    def entity(id_: str) -> dict[str, Any]:
        (found,) = client.query(name, f'id == "{id_}"', ["*"], consistency_level="Strong")
        return dict(found)

    def problems_with(**changes: Any) -> str:
        """What is found when a row is changed; it is put back afterwards."""
        as_it_was = entity("i000007")
        client.upsert(name, [{**as_it_was, **changes}])
        found = location.problems()
        client.upsert(name, [as_it_was])
        return " ".join(found)

    assert location.problems() == []
    assert "1 rows have changed since they were written: i000007" in problems_with(captions="x")
    assert "1 rows have changed" in problems_with(vector=vectors[8])
    assert "norm" in problems_with(vector=(vectors[7] * 2))
    assert "1 rows have changed" in problems_with(cuis=["C1", "C9"])
    twice = problems_with(row=8)
    assert "1 rows are missing, such as row 7" in twice
    assert "1 row numbers are there twice, such as row 8" in twice
    assert "1 rows more are counted" in problems_with(row=40)
    assert location.problems() == []

    deleted = entity("i000007")
    client.delete(name, ids=["i000007"])
    assert location.problems() == ["1 rows are missing, such as row 7."]
    client.upsert(name, [deleted])
    documents = f"{name}_documents"
    (text,) = client.query(documents, 'key like "concepts/%"', ["*"])
    client.upsert(documents, [{**text, "text": text["text"][:-4] + "AAAA"}])
    assert (
        "concepts in" in location.problems()[0] and "not what was written" in location.problems()[0]
    )
    client.upsert(documents, [text])
    assert location.problems() == []
