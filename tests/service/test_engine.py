from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from annotator.encoders.combined import CombinedEmbedder
from index.errors import IndexProblem
from service.engine import Concept, Engine, EngineHolder, open_engine

if TYPE_CHECKING:
    from annotator.encoders.embedder import TorchEmbedder


def test_what_is_prepared_when_an_engine_opens(engine: Engine) -> None:
    assert engine.version == "v000001"
    assert list(engine.concepts) == [
        Concept("C9", "In all of them", 12),
        Concept("C0", "", 4),
        Concept("C1", "Ünd <one>", 4),
        Concept("C2", "", 4),
    ]


def test_one_search_serves_requests_with_different_options(
    engine: Engine, drawing: Callable[..., bytes]
) -> None:
    pixels = [engine.decode(drawing(100 + i), 10**6, 1) for i in range(4)]
    own = engine.annotator.voting
    votings = [own, replace(own, k=1), replace(own, k=12, decider="threshold"), own]
    together, seconds = engine.annotate(pixels, votings, 16)
    for image, voting, annotation in zip(pixels, votings, together, strict=True):
        (alone,), _ = engine.annotate([image], [voting], 16)
        assert alone.cuis == annotation.cuis
        np.testing.assert_allclose(alone.scores, annotation.scores, atol=1e-5)
        assert [n.image_id for n in alone.neighbors] == [n.image_id for n in annotation.neighbors]
        assert len(alone.neighbors) == voting.k
    assert seconds.keys() == {"encode", "search", "vote"} and min(seconds.values()) > 0


def test_reloading_keeps_the_weights_and_swaps_the_index(
    tmp_path: Path, tiny_embedder: TorchEmbedder, build: Callable[..., None]
) -> None:
    build(tmp_path / "index", tiny_embedder)
    first = open_engine(tmp_path / "index", "cpu", tiny_embedder)
    holder = EngineHolder(tmp_path / "index", "cpu", first)
    assert not holder.reload() and holder.current is first
    build(tmp_path / "index", tiny_embedder, n=9)
    assert holder.reload()
    assert (holder.current.version, len(holder.current.annotator.stored)) == ("v000002", 9)
    assert holder.current.annotator.embedder is tiny_embedder
    assert len(first.annotator.stored) == 12  # who holds the old one goes on with it


def test_a_bad_version_leaves_the_old_one(
    tmp_path: Path, tiny_embedder: TorchEmbedder, build: Callable[..., None]
) -> None:
    build(tmp_path / "index", tiny_embedder)
    first = open_engine(tmp_path / "index", "cpu", tiny_embedder)
    holder = EngineHolder(tmp_path / "index", "cpu", first)
    build(tmp_path / "index", tiny_embedder, n=9)
    vectors = tmp_path / "index" / "v000002" / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-4])
    with pytest.raises(IndexProblem, match=r"vectors.npy has \d+ bytes"):
        holder.reload()
    assert holder.current is first


def test_several_encoders_are_served(
    tmp_path: Path, tiny_embedder: TorchEmbedder, build: Callable[..., None]
) -> None:
    both = CombinedEmbedder([tiny_embedder, tiny_embedder])
    build(tmp_path / "index", both)
    assert open_engine(tmp_path / "index", "cpu", both).annotator.embedder is both
