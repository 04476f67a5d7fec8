from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from annotator.audit.candidates import (
    PROMISING,
    Pairs,
    Views,
    compare_across,
    compare_within,
    unsupervised_projection,
    verify_pairs,
)

Drawn = NDArray[np.uint8]


@pytest.fixture(scope="module")
def views(textures: list[Drawn], encode: Callable, as_refs: Callable, views_of: Callable) -> Views:
    return views_of(as_refs([encode(t) for t in textures[:8]]))


def keys(pairs: Pairs) -> list[tuple[int, int]]:
    return list(zip(pairs.rows.tolist(), pairs.others.tolist(), strict=True))


@pytest.mark.parametrize("n", [1, 2, 7])
def test_every_pair_of_a_small_collection_is_compared_once(n: int, views: Views) -> None:
    pairs = compare_within(views.take(np.arange(n)), workers=1)
    assert sorted(keys(pairs)) == [(i, j) for i in range(n) for j in range(i + 1, n)]


def test_a_copy_is_a_candidate_by_its_pixels_where_the_vectors_say_nothing(
    textures: list[Drawn], changed: Callable, encode: Callable, as_refs: Callable,
    views_of: Callable,
) -> None:  # fmt: skip
    files = [encode(t) for t in textures] + [changed(textures[3], "mirrored")]
    views = views_of(as_refs(files))
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(len(views), 512)).astype(np.float32)
    noise[24] = -noise[3]  # the least similar of all
    views = replace(views, vectors=noise / np.linalg.norm(noise, axis=1, keepdims=True))
    pairs = compare_within(views, workers=1)
    (best,) = np.flatnonzero(pairs.scores > PROMISING)
    assert (pairs.rows[best], pairs.others[best], pairs.mirrored[best]) == (3, 24, True)


def test_across_each_image_meets_its_equal(views: Views) -> None:
    pairs = compare_across(views.take(np.arange(3, 5)), views, workers=1)
    best = pairs.take(np.flatnonzero(pairs.scores > 0.99))
    assert keys(best) == [(0, 3), (1, 4)] and not best.mirrored.any()
    assert len(set(keys(pairs))) == len(pairs.rows) == 16


def test_images_of_one_colour_are_compared_with_nothing_to_show_for(views: Views) -> None:
    black = replace(views, thumbnails=np.zeros_like(views.thumbnails))
    assert not compare_within(black, workers=1).scores.any()


def test_only_promising_pairs_are_loaded_and_verified(views: Views) -> None:
    loaded: list[int] = []

    def load(row: int) -> Drawn:
        loaded.append(row)
        return views.load(row)

    seen = replace(views, load=load)
    scores = np.array([PROMISING, np.nextafter(np.float32(PROMISING), 0), 1.0], np.float32)
    pairs = Pairs(np.array([0, 1, 2]), np.array([0, 1, 3]), np.zeros(3, bool), scores)
    verified = verify_pairs(pairs, seen, seen, workers=1)
    assert keys(verified) == [(0, 0), (2, 3)] and sorted(set(loaded)) == [0, 2, 3]
    assert verified.scores[0] > 0.999 > 0.75 > verified.scores[1]


def test_a_part_of_the_views_loads_its_own_images(views: Views) -> None:
    part = views.take(np.array([5, 2]))
    assert len(part) == 2 and (part.load(1) == views.load(2)).all()
    assert (part.thumbnails[0] == views.thumbnails[5]).all()


def test_a_projection_takes_500_images() -> None:
    vectors = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert unsupervised_projection(vectors[:499], (8,)) is None
    assert unsupervised_projection(vectors, (8,)) is not None
