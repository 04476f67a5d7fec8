from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from annotator.errors import AnnotatorError, ImageError
from annotator.images import ref as ref_module
from annotator.images.ref import image_id
from annotator.images.sources import find_images

DICOM_START = bytes(128) + b"DICM"


def write(folder: Path, *names: str, content: bytes | None = None) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() if content is None else content)


def ids(spec: Any, **options: Any) -> list[str]:
    return [ref.id for ref in find_images(spec, **options).images]


# Folders and names


def test_folder_is_searched_with_its_subfolders(tmp_path: Path) -> None:
    write(tmp_path, "b.png", "a.JPG", "deep/er/c.tiff", "notes.txt", "deep/table.csv")
    # Hidden files and what archives leave are left out silently.
    write(tmp_path, ".b.png", ".git/c.png", "__MACOSX/._a.png", "d/__MACOSX/e.png")
    found = find_images(tmp_path)
    assert [ref.id for ref in found.images] == ["a", "b", "c"]
    assert [ref.where for ref in found.images] == [
        str(tmp_path / name) for name in ("a.JPG", "b.png", "deep/er/c.tiff")
    ]
    assert found.images[2].read() == b"deep/er/c.tiff"
    assert found.ignored == [str(tmp_path / name) for name in ("deep/table.csv", "notes.txt")]
    assert found.duplicates == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("folder.png/ROCOv2_2023_test_000001.jpg", "ROCOv2_2023_test_000001"),
        ("1.2.840.113.5.dcm", "1.2.840.113.5"),
        ("1.2.840.113.5", "1.2.840.113.5"),
        ("a.b.PNG", "a.b"),
        ("a.csv", "a.csv"),
        ("IM-0001", "IM-0001"),
        (".png", ".png"),
        ("caf\udce9.png", "caf\\xe9"),  # a name that is not UTF-8
        ("café.png", "café"),
    ],
)
def test_image_id(name: str, expected: str) -> None:
    assert image_id(name) == expected


def test_files_without_extension_are_images_if_they_start_like_a_dicom(tmp_path: Path) -> None:
    write(tmp_path, "IM1", "1.2.840.113.5", "x/explicit", content=DICOM_START)
    write(tmp_path, "README", "9.8.7", "LICENSE", content=b"some text that is no DICOM")
    write(tmp_path, "archive.bin", content=DICOM_START)  # has an extension: never opened
    found = find_images(tmp_path)
    assert [ref.id for ref in found.images] == ["1.2.840.113.5", "IM1", "explicit"]
    assert [Path(path).name for path in found.ignored] == [
        "9.8.7",
        "LICENSE",
        "README",
        "archive.bin",
    ]


def test_links_are_followed_but_not_for_ever(tmp_path: Path) -> None:
    write(tmp_path, "data/a.png", "elsewhere/b.png")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "c.png").symlink_to(tmp_path / "missing.png")
    found = find_images(tmp_path / "data")
    assert [ref.id for ref in found.images] == ["a", "b", "c"]
    with pytest.raises(ImageError, match="no such file"):
        found.images[2].read()


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        Path(os.fsdecode(name)).write_bytes(b"image")
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    (ref,) = find_images(tmp_path).images
    assert ref.id == "caf\\xe9"
    assert ref.where.encode().endswith(b"/caf\\xe9.png")
    assert ref.read() == b"image"


# Files, patterns, lists, sequences


def test_files_patterns_and_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.png", "b.jpg", "c.dat", "x/c.png", "x/y/d.png", "x/e.txt", "[f].png")
    assert ids(tmp_path / "a.png") == ["a"]
    assert ids(str(tmp_path / "c.dat")) == ["c.dat"]  # whatever its extension
    assert ids(f"{tmp_path}/*.png") == ["[f]", "a"]
    assert ids(f"{tmp_path}/*") == ["[f]", "a", "b"]
    assert ids(f"{tmp_path}/**/*.png") == ["[f]", "a", "c", "d"]
    assert ids(f"{tmp_path}/**") == ["[f]", "a", "b", "c", "d"]
    assert ids(f"{tmp_path}/[f].png") == ["[f]"]  # a file of that name comes first
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ids("~/x/*/*.png") == ["d"]
    assert ids("~/a.png") == ["a"]
    # A path that is named twice is one image.
    found = find_images([tmp_path / "x", str(tmp_path / "a.png"), f"{tmp_path}/y/../x/*.png"])
    assert [ref.id for ref in found.images] == ["a", "c", "d"]
    assert found.duplicates == {}


def test_list_file(tmp_path: Path) -> None:
    write(tmp_path, "images/a.png", "images/b.dat", "other.png")
    lines = ["\ufeff# a comment", "images/a.png", "", "  images/b.dat  ", f"{tmp_path}/other.png"]
    (tmp_path / "list.txt").write_text("\r\n".join([*lines, "images/missing.png"]), "utf-8")
    found = find_images(tmp_path / "list.txt")
    assert [ref.id for ref in found.images] == ["a", "b.dat", "missing", "other"]
    assert found.images[0].where == str(tmp_path / "images" / "a.png")
    assert found.images[3].read() == b"other.png"
    with pytest.raises(ImageError, match="no such file"):
        found.images[2].read()


def test_nothing_found(tmp_path: Path) -> None:
    write(tmp_path, "notes.txt", "table.csv")
    with pytest.raises(AnnotatorError, match=r"no such file or folder: .*missing") as caught:
        find_images(tmp_path / "missing")
    assert caught.value.hint
    with pytest.raises(AnnotatorError, match=r"no image found in .*\(2 other files") as caught:
        find_images(tmp_path)
    assert ".png" in caught.value.hint
    with pytest.raises(AnnotatorError, match=r"no image found in .*\*\.png"):
        find_images(f"{tmp_path}/*.png")
    with pytest.raises(AnnotatorError, match="an empty list"):
        find_images([])
    with pytest.raises(AnnotatorError, match="no such file"):
        find_images("a\0b")


def test_duplicate_ids(tmp_path: Path) -> None:
    write(tmp_path, "x/a.png", "y/a.jpg", "z/a.dcm", "b.png")
    with pytest.raises(AnnotatorError, match=r"1 image ids occur more than once: a \(") as caught:
        find_images(tmp_path)
    assert str(tmp_path / "x" / "a.png") in caught.value.message
    assert "--on-duplicate first" in caught.value.hint
    found = find_images(tmp_path, on_duplicate="first")
    assert [ref.id for ref in found.images] == ["a", "b"]
    assert found.images[0].read() == b"x/a.png"
    places = [str(tmp_path / name) for name in ("x/a.png", "y/a.jpg", "z/a.dcm")]
    assert found.duplicates == {"a": places}


# Reading


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "large.png", content=bytes(100))
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    lines = "large.png\nfolder.png\npipe.png\ngone.png\n" + "x" * 300 + ".png\nnull\0byte.png"
    (tmp_path / "list.txt").write_text(lines)
    monkeypatch.setattr(ref_module, "MAX_BYTES", 99)
    reasons = {}
    for ref in find_images(tmp_path / "list.txt").images:
        with pytest.raises(ImageError) as caught:
            ref.read()
        assert caught.value.hint
        assert caught.value.code == ("too_large" if ref.id == "large" else "unreadable")
        reasons[ref.id[:6]] = caught.value.message
    assert reasons == {
        "large": "100 bytes are over the limit of 99",
        "folder": "a folder, not an image",
        "pipe": "not a regular file",
        "gone": "no such file",
        "xxxxxx": "cannot be read: File name too long",
        "null\0b": "cannot be read: not a path",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(ImageError, match="no permission"):
        find_images(tmp_path).images[0].read()
