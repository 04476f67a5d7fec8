from __future__ import annotations

from annotator.audit.splits import straddling


def test_groups_on_two_sides_those_with_most_images_first() -> None:
    groups = {"a": "p", "b": "p", "c": "p", "d": "q", "e": "q", "f": "q", "g": "q", "h": "r"}
    sides = {"a": "train", "b": "test", "c": "train", "d": "test", "e": "test", "f": "train",
             "g": "train", "h": "test"}  # fmt: skip
    first, second = straddling(list("abcdefgh"), groups, sides)
    assert (first.group, first.sides) == ("q", (("test", 2), ("train", 2)))
    assert (second.group, second.first, second.other) == ("p", "a", "b")
    assert second.sides == (("train", 2), ("test", 1)) and round(second.share, 6) == 0.333333


def test_images_without_group_or_side_straddle_nothing() -> None:
    assert straddling(["a", "b", "c"], {"a": "p", "b": "p", "c": ""}, {"a": "x", "c": "y"}) == []
    assert straddling(["a", "b"], {"a": "", "b": ""}, {"a": "x", "b": "y"}) == []
