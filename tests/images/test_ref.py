"""References to images by id."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.errors import ImageError
from annotator.images.ref import (
    ImageRef,
    has_controls,
    image_extension,
    in_order_of,
    natural_key,
    path_id,
    printable,
)


def test_images_in_the_order_of_ids() -> None:
    images = [ImageRef(id_, f"{id_}.png", id_.encode) for id_ in "abc"]
    refs = in_order_of(["c", "missing", "a", "c"], images)
    assert [ref.id for ref in refs] == ["c", "missing", "a", "c"]
    assert refs[0].read() == b"c"
    with pytest.raises(ImageError, match="no image has this id"):
        refs[1].read()


def test_numbers_are_compared_as_numbers() -> None:
    shuffled = ["a10b2", "10", "a", "2", "b", "a1b", "02", "", "a2", "a10b10", "a1", "0", "a10"]
    assert sorted(shuffled, key=natural_key) == [
        "", "0", "02", "2", "10", "a", "a1", "a1b", "a2", "a10", "a10b2", "a10b10", "b"
    ]  # fmt: skip
    less, more = "x" + "9" * 5000, "x1" + "0" * 5000  # longer than int() takes
    assert natural_key(less) < natural_key(more)


texts = st.text(st.sampled_from("a_-.0129é"), max_size=6)


@settings(deadline=None)
@given(st.lists(texts, unique=True), st.randoms())
def test_natural_order_is_total_and_does_not_depend_on_the_start(texts: list[str], random) -> None:
    shuffled = list(texts)
    random.shuffle(shuffled)
    assert sorted(shuffled, key=natural_key) == sorted(texts, key=natural_key)


@settings(deadline=None)
@given(texts, st.integers(0, 10**6), st.integers(0, 10**6))
def test_one_number_decides_between_names_that_differ_in_it(text: str, a: int, b: int) -> None:
    name = f"{text}x"  # so that the number stands alone
    assert (natural_key(f"{name}{a}") < natural_key(f"{name}{b}")) == (a < b)


@pytest.mark.parametrize(
    ("name", "extension", "id_"),
    [
        ("x/y.PNG", ".png", "x/y"),
        ("x.png/y", "", "x.png/y"),
        ("x/y.nii.gz", ".nii.gz", "x/y"),
        ("x/.nii.gz", "", "x/.nii.gz"),
        ("x/y.img", "", "x/y"),  # may be DICOM or not
        ("x/y.txt", "", "x/y.txt"),
        ("x/1.2.840", "", "x/1.2.840"),
    ],
)
def test_extensions(name: str, extension: str, id_: str) -> None:
    assert (image_extension(name), path_id(name)) == (extension, id_)


def test_names_are_shown_in_one_line() -> None:
    assert printable("a\nb\u2028\x9b\udce9é") == "a\\nb\\u2028\\x9b\\xe9é"
    assert has_controls("a\r") and not has_controls("a é\u202f.png")
