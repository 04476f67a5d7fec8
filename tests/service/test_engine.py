from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from asking import build, cpu_settings, drawing
from versions import numbered

from annotator.encoders.combined import CombinedEmbedder
from annotator.queue.rank import rank_indexed
from service.engine import Ballot, Concept, Engine, open_engine

if TYPE_CHECKING:
    from annotator.encoders.torch_embedder import TorchEmbedder


def test_what_is_prepared_when_an_engine_opens(engine: Engine) -> None:
    assert numbered(engine.stored.version) == "v000001"
    assert list(engine.concepts) == [
        Concept("C9", "In all of them", 12),
        Concept("C0", "", 4),
        Concept("C1", "Ünd <one>", 4),
        Concept("C2", "", 4),
    ]


def test_an_image_of_the_index_is_judged_as_in_the_queue(
    tmp_path: Path, tiny_embedder: TorchEmbedder
) -> None:
    build(tmp_path / "index", tiny_embedder, n=60, tuning=True, wrong={3: "C1", 7: "C0"})
    engine = open_engine(cpu_settings(tmp_path / "index"), tiny_embedder)
    assert engine._lists is not None
    voting = engine.annotator.voting
    queue = rank_indexed(engine.stored, voting, 10)
    assert {"train03", "train07"} <= {item.image_id for item in queue.items}
    for item in queue.items:
        voted = engine.vote_on_stored(item.image_id, Ballot(voting), without_group=True)
        assert voted is not None
        annotation, _ = voted
        assert annotation.cuis == tuple(concept for concept, _ in item.concepts)
        np.testing.assert_allclose(annotation.scores, [share for _, share in item.concepts])
        assert item.image_id not in {case.image_id for case in annotation.neighbors}


def test_one_search_serves_requests_with_different_options(engine: Engine) -> None:
    pixels = [engine.decode(drawing(100 + i))[0] for i in range(4)]
    own = engine.annotator.voting
    votings = [own, replace(own, k=1), replace(own, k=12, decider="threshold"), own]
    together, seconds = engine.annotate(pixels, [Ballot(voting) for voting in votings], 16)
    for image, voting, (_, annotation) in zip(pixels, votings, together, strict=True):
        (((_, alone),), _) = engine.annotate([image], [Ballot(voting)], 16)
        assert alone is not None and annotation is not None
        assert alone.cuis == annotation.cuis
        np.testing.assert_allclose(alone.scores, annotation.scores, atol=1e-5)
        assert [n.image_id for n in alone.neighbors] == [n.image_id for n in annotation.neighbors]
        assert len(alone.neighbors) == voting.k
    assert seconds.keys() == {"encode", "search", "vote"} and min(seconds.values()) > 0


def test_several_encoders_are_served(tmp_path: Path, tiny_embedder: TorchEmbedder) -> None:
    both = CombinedEmbedder([tiny_embedder, tiny_embedder])
    build(tmp_path / "index", both)
    assert open_engine(cpu_settings(tmp_path / "index"), both).annotator.embedder is both
