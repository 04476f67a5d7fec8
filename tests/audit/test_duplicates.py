from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from annotator.audit.candidates import Views, compare_within
from annotator.audit.duplicates import (
    Clusters,
    Duplicate,
    find_duplicates,
    merged_groups,
    strongest_links,
)
from annotator.audit.glances import make_glances
from annotator.images.ref import ImageRef

Drawn = NDArray[np.uint8]


def views_of(refs: list[ImageRef]) -> Views:
    """With the grey picture, turned to unit norm, in place of an encoder's vector."""
    glances = make_glances(refs, workers=2)
    looks = glances.reshape(len(refs), -1).astype(np.float32)
    looks += 1
    return Views(looks / np.linalg.norm(looks, axis=1, keepdims=True), glances)


def found_in(files: list[bytes], as_refs: Callable) -> list[Duplicate]:
    refs = as_refs(files)
    contents = [hashlib.sha256(f).digest() for f in files]
    return find_duplicates(refs, contents, views_of(refs), workers=2)


def test_the_same_file_and_the_same_pixels(
    textures: list[Drawn], encode: Callable, as_refs: Callable
) -> None:
    files = [encode(t) for t in textures[:6]]
    files += [files[2], files[2], encode(textures[4], "BMP")]
    found = found_in(files, as_refs)
    assert [(d.row, d.other, d.score, d.how) for d in found] == [
        (2, 6, 1.0, "same file"),
        (2, 7, 1.0, "same file"),
        (4, 8, 1.0, "same pixels"),
    ]
    assert all(d.exact for d in found)


def test_changed_copies_and_nothing_else(
    textures: list[Drawn],
    change: str,
    changed: Callable[[Drawn, str], bytes],
    encode: Callable,
    as_refs: Callable,
) -> None:
    files = [encode(t) for t in textures] + [changed(t, change) for t in textures[:5]]
    found = found_in(files, as_refs)
    assert {(d.row, d.other) for d in found} == {(i, len(textures) + i) for i in range(5)}
    assert {d.how for d in found} == {"mirrored" if change == "mirrored" else "changed"}


def test_an_image_that_cannot_be_read_is_no_duplicate(
    textures: list[Drawn], encode: Callable, as_refs: Callable
) -> None:
    assert found_in([b"", b"broken", encode(textures[0])], as_refs) == []


@pytest.mark.parametrize("n", [1, 2, 7])
def test_every_pair_is_compared_once(n: int, textures: list[Drawn], as_refs: Callable,
                                     encode: Callable) -> None:  # fmt: skip
    pairs = compare_within(views_of(as_refs([encode(t) for t in textures[:n]])), workers=1)
    keys = list(zip(pairs.rows.tolist(), pairs.others.tolist(), strict=True))
    assert sorted(keys) == [(i, j) for i in range(n) for j in range(i + 1, n)]


LINKS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30)


@given(LINKS)
def test_the_strongest_links_hold_together_what_all_links_do(pairs: list[tuple[int, int]]) -> None:
    links = [Duplicate(a, b, 1 - i / 100, "changed") for i, (a, b) in enumerate(pairs)]
    few = strongest_links(links, 10)
    every, some = Clusters(10), Clusters(10)
    for link in links:
        every.join(link.row, link.other)
    for link in few:
        assert some.join(link.row, link.other)  # none is superfluous
    assert [every.of(i) for i in range(10)] == [some.of(i) for i in range(10)]
    groups = merged_groups([f"{i}" for i in range(10)], {}, links)
    same = [[groups[i] == groups[j] for j in range(10)] for i in range(10)]
    assert same == [[every.of(i) == every.of(j) for j in range(10)] for i in range(10)]


def test_merged_groups_keep_the_known_ones() -> None:
    links = [Duplicate(0, 1, 1.0, "changed")]
    groups = merged_groups(["a", "b", "c", "d"], {"b": "p", "c": "p"}, links)
    assert groups[0] == groups[1] == groups[2] != groups[3]
