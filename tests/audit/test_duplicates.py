from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from annotator.audit.candidates import Pairs
from annotator.audit.duplicates import (
    Clusters,
    Duplicate,
    duplicate_findings,
    find_duplicates,
    group_leaks,
    merged_groups,
    near_duplicates,
    same_pixels,
    strongest_links,
)
from annotator.audit.inputs import AuditLabels
from annotator.images.ref import ImageRef

Drawn = NDArray[np.uint8]
Found = Callable[..., list[Duplicate]]


@pytest.fixture(scope="module")
def found_in(as_refs: Callable, views_of: Callable) -> Found:
    def find(files: list[bytes], **options: float) -> list[Duplicate]:
        refs = as_refs(files)
        contents = [hashlib.sha256(f).digest() for f in files]
        return find_duplicates(refs, contents, views_of(refs), **options)

    return find


def test_the_same_file_and_the_same_pixels(
    textures: list[Drawn], encode: Callable, found_in: Found
) -> None:
    files = [encode(t) for t in textures[:6]]
    files += [files[2], files[2], encode(textures[4], "BMP")]
    found = found_in(files)
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
    found_in: Found,
) -> None:
    files = [encode(t) for t in textures[:4]] + [changed(textures[1], change)]
    found = found_in(files)
    assert [(d.row, d.other) for d in found] == [(1, 4)]
    assert {d.how for d in found} == {"mirrored" if change == "mirrored" else "changed"}
    assert not any(d.exact for d in found)
    # The other way round, the copy being the first, the pair and its score are the same.
    turned = found_in(files[::-1])
    assert [(d.row, d.other) for d in turned] == [(0, 3)]
    assert turned[0].score == pytest.approx(found[0].score, abs=1e-5)


def test_the_threshold_is_inclusive_and_any_higher_one_leaves_out(
    textures: list[Drawn], changed: Callable, encode: Callable, found_in: Found
) -> None:
    files = [encode(t) for t in textures[:4]] + [changed(textures[1], "rotated")]
    (found,) = found_in(files)
    assert 0.88 < found.score < 0.999
    assert found_in(files, threshold=found.score) == [found]
    assert (
        found_in(files, threshold=float(np.nextafter(np.float32(found.score), np.float32(1)))) == []
    )


@pytest.mark.parametrize(
    ("score", "mirrored", "how"),
    [
        (0.88, False, "changed"),
        (0.9985, False, "changed"),
        (0.9995, False, "same pixels"),
        (0.9995, True, "mirrored"),
        (1.0000002, True, "mirrored"),
        (0.8799, False, None),
    ],
)
def test_pairs_by_their_scores(score: float, mirrored: bool, how: str | None) -> None:
    one = np.array([0])
    pairs = Pairs(one, one + 1, np.array([mirrored]), np.array([score], np.float64))
    found = near_duplicates(pairs, 0.88, lambda row, other: True)
    assert [d.how for d in found] == ([how] if how else [])
    assert all(d.score <= 1 for d in found)


def test_images_that_cannot_be_read_or_are_of_one_colour_are_no_duplicates(
    textures: list[Drawn], encode: Callable, found_in: Found
) -> None:
    black, grey = np.zeros((90, 90), np.uint8), np.full((90, 90), 128, np.uint8)
    files = [b"", b"broken", encode(black), encode(grey), encode(grey[:50]), encode(textures[0])]
    assert found_in(files) == []
    again = found_in([*files, encode(black)])  # but the same file is the same file
    assert [(d.row, d.other, d.how) for d in again] == [(2, 6, "same file")]


def test_one_image_alone(textures: list[Drawn], encode: Callable, found_in: Found) -> None:
    assert found_in([encode(textures[0])]) == []


def test_the_same_pixels_are_of_one_size_and_mode(
    textures: list[Drawn], encode: Callable, as_refs: Callable
) -> None:
    grey, colour = textures[0], np.repeat(textures[0][:, :, None], 3, axis=2)
    refs: list[ImageRef] = as_refs(
        [encode(grey), encode(grey, "BMP"), encode(colour), encode(grey[1:]), b"broken"]
    )
    assert [same_pixels(refs, refs, 0, other) for other in range(5)] == [
        True, True, False, False, False,
    ]  # fmt: skip


LEAK = AuditLabels(
    {"a": ("C1",), "b": ("C1", "C2"), "c": ("C1",)},
    {"C2": "oedema"},
    {"a": "p", "b": "p", "c": "q"},
    {"a": "train", "b": "train", "c": "test", "d": ""},
)


def test_leaks_are_all_listed_and_of_other_pairs_a_spanning_forest() -> None:
    pairs = [
        Duplicate(0, 1, 1.0, "same file"),  # a, b: one side, one group
        Duplicate(0, 2, 0.99, "changed"),  # a, c: leaks
        Duplicate(1, 2, 0.95, "mirrored"),  # b, c: leaks; superfluous in the forest
        Duplicate(2, 3, 0.94, "changed"),  # c, d: the side of d is not known
        Duplicate(0, 3, 0.93, "changed"),  # superfluous, no leak
    ]
    found = duplicate_findings(pairs, ["a", "b", "c", "d"], LEAK)
    assert [(f.kind, f.image_id, f.other_id, f.score, f.detail) for f in found] == [
        ("leak", "a", "c", 0.99, "changed; train and test"),
        ("leak", "b", "c", 0.95, "mirrored; train and test; concepts differ: C2 oedema"),
        ("near", "c", "d", 0.94, "changed"),
        ("exact", "a", "b", 1.0, "same file; both of group p; concepts differ: C2 oedema"),
    ]


def test_without_labels_pairs_are_exact_or_near() -> None:
    pairs = [Duplicate(0, 1, 1.0, "same pixels"), Duplicate(1, 2, 0.9, "changed")]
    found = duplicate_findings(pairs, ['a "x"', "b,c", "é\t"], AuditLabels())
    assert [(f.kind, f.image_id, f.other_id) for f in found] == [
        ("exact", 'a "x"', "b,c"),
        ("near", "b,c", "é\t"),
    ]


def test_group_leaks_those_with_most_images_on_a_wrong_side_first() -> None:
    groups = {"a": "p", "b": "p", "c": "p", "d": "q", "e": "q", "f": "q", "g": "q", "h": "r"}
    sides = {"a": "train", "b": "test", "c": "train", "d": "test", "e": "test", "f": "train",
             "g": "train", "h": "test"}  # fmt: skip
    first, second = group_leaks(list("abcdefgh"), groups, sides)
    assert (first.kind, first.image_id, first.other_id) == ("straddle", "d", "f")
    assert (first.detail, first.score) == ("group q: 2 in test, 2 in train", 0.5)
    assert (second.image_id, second.other_id) == ("a", "b")
    assert second.detail == "group p: 2 in train, 1 in test" and round(second.score, 6) == 0.333333


@given(st.lists(st.tuples(st.sampled_from("pqr"), st.sampled_from("xyz")), max_size=12))
def test_group_leaks_are_the_groups_with_several_sides(rows: list[tuple[str, str]]) -> None:
    ids = [f"i{n}" for n in range(len(rows))]
    groups = {i: g for i, (g, _) in zip(ids, rows, strict=True)}
    sides = {i: s for i, (_, s) in zip(ids, rows, strict=True)}
    found = group_leaks(ids, groups, sides)
    several = {g for g in groups.values() if len({s for h, s in rows if h == g}) > 1}
    assert {groups[f.image_id] for f in found} == several and len(found) == len(several)
    for f in found:
        assert groups[f.image_id] == groups[f.other_id]
        assert sides[f.image_id] != sides[f.other_id] and 0 < f.score < 1


def test_images_without_group_or_side_leak_nothing() -> None:
    assert group_leaks(["a", "b", "c"], {"a": "p", "b": "p", "c": ""}, {"a": "x", "c": "y"}) == []
    assert group_leaks(["a", "b"], {"a": "", "b": ""}, {"a": "x", "b": "y"}) == []


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
