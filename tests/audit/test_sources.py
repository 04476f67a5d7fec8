from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from annotator.audit.duplicates import same_pixels
from annotator.audit.findings import Source
from annotator.audit.sources import find_sources, source_findings
from annotator.images.ref import ImageRef

Drawn = NDArray[np.uint8]
Traced = Callable[..., list[tuple[Source, ...]]]


@pytest.fixture(scope="module")
def traced(views_of: Callable) -> Traced:
    def trace(
        images: list[ImageRef], collection: list[ImageRef], k: int = 5, threshold: float = 0.88
    ) -> list[tuple[Source, ...]]:
        return find_sources(
            views_of(images),
            views_of(collection),
            [ref.id for ref in collection],
            partial(same_pixels, images, collection),
            threshold=threshold,
            k=k,
        )

    return trace


def test_copies_close_ones_and_others(
    textures: list[Drawn],
    changed: Callable[[Drawn, str], bytes],
    encode: Callable,
    as_refs: Callable,
    traced: Traced,
) -> None:
    collection = as_refs([encode(t) for t in textures[:20]])
    # Half an image of the collection, half a new one.
    mixed = (0.55 * textures[7] + 0.45 * textures[22]).astype(np.uint8)
    images = as_refs(
        [changed(textures[3], "mirrored"), encode(textures[5], "BMP"), encode(mixed),
         encode(textures[21])]
    )  # fmt: skip
    mirrored, same, close, other = traced(images, collection, k=3)
    assert (mirrored[0].image_id, mirrored[0].flag, mirrored[0].how) == ("i003", "copy", "mirrored")
    assert (same[0].image_id, same[0].flag, same[0].how) == ("i005", "copy", "same pixels")
    assert mirrored[0].score > 0.9 and same[0].score > 0.999
    assert (close[0].image_id, close[0].flag, close[0].score) == ("i007", "close", 1.0)
    assert {s.flag for s in other} == {"source"} and len(other) == 3
    assert other[0].similarity >= other[1].similarity >= other[2].similarity


def test_every_changed_copy_has_its_origin_first(
    textures: list[Drawn], change: str, changed: Callable, encode: Callable, as_refs: Callable,
    traced: Traced,
) -> None:  # fmt: skip
    collection = as_refs([encode(t) for t in textures[:8]])
    images = as_refs([changed(textures[6], change), encode(textures[20])])
    copy, new = traced(images, collection)
    assert (copy[0].image_id, copy[0].flag) == ("i006", "copy")
    assert "copy" not in {source.flag for source in (*copy[1:], *new)}


@pytest.mark.parametrize("n", [1, 2])
def test_a_small_collection(
    n: int, textures: list[Drawn], encode: Callable, as_refs: Callable, traced: Traced
) -> None:
    collection = as_refs([encode(t) for t in textures[:n]])
    ((source, *others),) = traced(collection[:1], collection)
    assert (source.image_id, source.flag, source.how) == ("i000", "copy", "same pixels")
    assert len(others) == n - 1 and source.closeness == (0.0 if n == 1 else 1.0)


def test_closeness_is_the_share_of_images_less_similar_to_their_nearest(
    textures: list[Drawn], encode: Callable, as_refs: Callable, views_of: Callable
) -> None:
    # Unit vectors at 0, 10, 30 and 60 degrees: to the nearest other 10, 10, 20 and 30 degrees.
    angles = np.deg2rad([0, 10, 30, 60, 75])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    views = replace(views_of(as_refs([encode(t) for t in textures[:5]])), vectors=vectors)
    collection, image = views.take(np.arange(4)), views.take(np.array([4]))
    ((first, *_),) = find_sources(
        image, collection, list("abcd"), lambda row, other: False, threshold=0.88
    )
    # At 15 degrees from the nearest: closer than those at 20 and at 30.
    assert (first.image_id, first.closeness, first.flag) == ("d", 0.5, "source")


def test_findings_name_the_first_source_copies_before_close_ones() -> None:
    def source(id_: str, flag: str, score: float) -> Source:
        correlation = score if flag == "copy" else 0.0
        return Source(id_, flag, correlation, 0.5, score, "mirrored" if flag == "copy" else "")

    found = source_findings(
        ["x", "y", "z", "w"],
        [
            (source("a", "source", 0.4), source("b", "source", 0.3)),
            (source("c", "copy", 0.9), source("a", "close", 1.0)),
            (source("d", "close", 0.995),),
            (source("b", "copy", 0.95),),
        ],
    )
    assert [(f.kind, f.image_id, f.other_id, f.score) for f in found] == [
        ("copy", "w", "b", 0.95),
        ("copy", "y", "c", 0.9),
        ("close", "z", "d", 0.995),
        ("source", "x", "a", 0.4),
    ]
    assert found[1].detail == "mirrored; similarity 0.500; then a (0.500)"
    assert found[1].sources[1].image_id == "a"
