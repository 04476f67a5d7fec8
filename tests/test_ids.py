"""Ids of tables that name files, or spell names otherwise."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.ids import (
    by_image,
    has_controls,
    image_extension,
    match_ids,
    natural_key,
    path_id,
    printable,
    unknown_hint,
)


@pytest.mark.parametrize(
    ("id_", "image"),
    [
        ("x.jpg", "x"),
        ("x.JPG", "x"),
        ("images/x.png", "x"),
        ("./images/x.png", "x"),
        ("C:\\data\\x.png", "x"),
        ("/data/images/x", "x"),
        ("x.nii.gz", "x"),
        ("x.dcm30", "x"),
        ("\u200bx", "x"),
        ("cafe\u0301", "caf\u00e9"),
        ("caf\u00e9.png", "cafe\u0301"),
        ("a/b/x.png", "b/x"),  # an image whose id is a path
        ("b\\x", "b/x"),
        ("x", "x.png"),  # of a Parquet file
    ],
)
def test_ids_that_name_the_same_image(id_: str, image: str) -> None:
    match = match_ids([id_], [image, "other"])
    assert match.image_of == {id_: image}
    assert match.differing == (id_,) and match.ambiguous == ()


@pytest.mark.parametrize(
    "id_", ["X", "x.csv", "x.jpg.txt", "x1", "1.0", "", "/", "images/", ".png"]
)
def test_ids_that_do_not(id_: str) -> None:
    match = match_ids([id_], ["x", "1", "png"])
    assert (match.image_of, match.differing, match.ambiguous) == ({}, (), ())


def test_an_id_that_is_the_same_comes_first() -> None:
    match = match_ids(["x.png", "x"], ["x"])
    assert match.image_of == {"x": "x"} and match.differing == match.ambiguous == ()
    match = match_ids(["b/x", "x"], ["x", "b/x"])
    assert match.image_of == {"b/x": "b/x", "x": "x"}


def test_more_folders_decide() -> None:
    match = match_ids(["data/a/x.png", "data/b/x.png"], ["a/x", "b/x", "x"])
    assert match.image_of == {"data/a/x.png": "a/x", "data/b/x.png": "b/x"}


def test_what_is_ambiguous_is_not_matched() -> None:
    several_ids = match_ids(["train/x.png", "test/x.png", "y.png"], ["x", "y"])
    assert several_ids.image_of == {"y.png": "y"}
    assert several_ids.ambiguous == ("train/x.png", "test/x.png")
    several_images = match_ids(["caf\u00e9.png"], ["caf\u00e9", "cafe\u0301"])
    assert several_images.image_of == {} and several_images.ambiguous == ("caf\u00e9.png",)


def test_tables_by_image_say_what_differs() -> None:
    notes: list[str] = []
    table = {"z": 0, "images/x.png": 1, "y": 2, "a/w": 3, "b/w": 4}
    assert by_image(table, ["w", "x", "y"], "t.csv", notes) == {
        "z": 0, "x": 1, "y": 2, "a/w": 3, "b/w": 4
    }  # fmt: skip
    assert notes == [
        "1 ids of t.csv are file names, paths or in another Unicode form; matched as such, for "
        "example 'images/x.png' -> 'x'",
        "2 ids of t.csv are not matched, since more than one id or image would fit: 'a/w', 'b/w'",
    ]
    notes.clear()
    assert by_image({"x": 1, "z": 2}, ["x"], "t.csv", notes) == {"x": 1, "z": 2}
    assert notes == []


def test_hints_for_ids_of_runs() -> None:
    assert "has 'x'; ids are compared exactly" in unknown_hint("images/x.png", ["x"])
    assert unknown_hint("z", ["x"]) == "A run has the images of the ground truth and no others."


names = st.text(st.sampled_from("ab\u00e9\u0301.1 "), min_size=1, max_size=4)
folders = st.sampled_from(["", "a/", "b/c/", "a\\"])
extensions = st.sampled_from(["", ".png", ".JPG", ".nii.gz", ".txt"])
tables = st.builds("{}{}{}".format, folders, names, extensions)


@settings(deadline=None)
@given(st.lists(tables, unique=True, max_size=6), st.lists(tables, unique=True, max_size=6))
def test_no_image_is_matched_twice_and_the_same_id_always(
    ids: list[str], images: list[str]
) -> None:
    match = match_ids(ids, images)
    assert len(set(match.image_of.values())) == len(match.image_of)
    assert set(match.image_of.values()) <= set(images)
    for id_ in set(ids) & set(images):
        assert match.image_of[id_] == id_
    assert match == match_ids(ids, images[::-1])


@settings(deadline=None)
@given(st.lists(names.map(lambda name: f"i{name}".strip()), unique=True), folders, extensions)
def test_a_table_of_files_matches_as_one_of_ids_does(
    images: list[str], folder: str, extension: str
) -> None:
    forms = [unicodedata.normalize("NFC", image) for image in images]
    if len(set(forms)) == len(forms) and extension not in ("", ".txt"):
        match = match_ids([f"{folder}{image}{extension}" for image in images], images)
        assert list(match.image_of.values()) == images


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
