from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from annotator.encoders.local_runner import embed_images
from annotator.errors import AnnotatorError
from annotator.explore.similar import Without, rank_ids, rank_images
from annotator.images.ref import ImageRef
from annotator.pipeline import Annotator
from index import open_index

if TYPE_CHECKING:
    from annotator.collection import Collection
    from annotator.encoders.torch_embedder import TorchEmbedder


@pytest.fixture
def annotator(tuned_index: Path, tiny_embedder: TorchEmbedder) -> Annotator:
    return Annotator(open_index(tuned_index), tiny_embedder)


def brute(annotator: Annotator, ref: ImageRef, left_out: set[str], k: int) -> list[str]:
    """The nearest rows of an image by its similarity to all of them."""
    (result,) = embed_images([ref], annotator.embedder)
    assert result.vector is not None
    found = annotator.search(result.vector[None], len(annotator.stored))
    ids = [found.cases.ids[row] for row in found.neighbors.rows[0]]
    return [id_ for id_ in ids if id_ not in left_out][:k]


@pytest.mark.parametrize("without", ["nothing", "itself", "group"])
def test_images(annotator: Annotator, patterns: Collection, without: Without) -> None:
    refs = list(patterns.images[3:9])
    found = list(rank_images(annotator, refs, 4, without=without, workers=1))
    assert [ranking.query for ranking in found] == [ref.id for ref in refs]
    for ref, ranking in zip(refs, found, strict=True):
        group = patterns.groups[ref.id]
        left_out = {
            "nothing": set(),
            "itself": {ref.id},
            "group": {id_ for id_, other in patterns.groups.items() if other == group},
        }[without]
        assert len(left_out) == {"nothing": 0, "itself": 1, "group": 2}[without]
        assert [c.image_id for c in ranking.cases] == brute(annotator, ref, left_out, 4)
        scores = [case.score for case in ranking.cases]
        assert scores == sorted(scores, reverse=True)
        assert (scores[0] == pytest.approx(1, abs=1e-5)) == (without == "nothing")


def test_the_images_groups_may_be_given(annotator: Annotator, patterns: Collection) -> None:
    ref = patterns.images[0]
    (other,) = rank_images(
        annotator, [ImageRef("new", "new", ref.read)], 3, without="group",
        groups={"new": patterns.groups[ref.id]}, workers=1,
    )  # fmt: skip
    own = {id_ for id_, group in patterns.groups.items() if group == patterns.groups[ref.id]}
    assert ref.id in own and not own & {case.image_id for case in other.cases}


def test_a_bad_image_costs_the_others_nothing(annotator: Annotator, patterns: Collection) -> None:
    bad = ImageRef("bad", "bad.png", partial(bytes, 3))
    refs = [patterns.images[0], bad, patterns.images[1]]
    found = list(rank_images(annotator, refs, 2, workers=1))
    assert [ranking.query for ranking in found] == ["i000", "bad", "i001"]
    assert found[1].error and found[1].cases == ()
    assert found[0].cases[0].image_id == "i000" and found[2].cases[0].image_id == "i001"
    (only,) = rank_images(annotator, [bad], 2, workers=1)
    assert only.error


def test_images_of_the_index(annotator: Annotator, patterns: Collection) -> None:
    ids = ["i007", "i003"]
    by_id = {ref.id: ref for ref in patterns.images}
    given = rank_images(annotator, [by_id[i] for i in ids], 5, without="group", workers=1)
    found = rank_ids(annotator.stored, ids, 5, without="group")
    assert [[c.image_id for c in r.cases] for r in found] == [
        [c.image_id for c in r.cases] for r in given
    ]
    assert "i007" not in [case.image_id for case in rank_ids(annotator.stored, ids, 5)[0].cases]
    with pytest.raises(AnnotatorError, match="no image 'absent'"):
        rank_ids(annotator.stored, ["i007", "absent"], 5)


def test_an_index_that_knows_no_groups(
    tmp_path: Path, tiny_embedder: TorchEmbedder, patterns: Collection
) -> None:
    from dataclasses import replace

    from annotator.indexing.build import build_index

    build_index(
        replace(patterns, groups={}), tmp_path / "index", tiny_embedder, adaptation="none",
        tuning=False, use_cache=False,
    )  # fmt: skip
    stored = open_index(tmp_path / "index")
    with pytest.raises(AnnotatorError, match="has no groups"):
        rank_ids(stored, ["i000"], 3, without="group")
    assert len(rank_ids(stored, ["i000"], 3)[0].cases) == 3
    vectors = stored.vectors(np.array([0]))
    assert stored.find(vectors, 1).cases.ids[0] == "i000"
