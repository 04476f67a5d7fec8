from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from annotator.errors import AnnotatorError, ImageError
from annotator.ids import image_id
from annotator.images import ref as ref_module
from annotator.images.ref import ImageRef
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
        ("a.nii.gz", "a"),
        ("A.NII.GZ", "A"),
        ("a.gz", "a.gz"),
        ("a.avif", "a"),
        ("a.JP2", "a"),
        ("a.dcm30", "a"),
        (".nii.gz", ".nii.gz"),
        ("IM-0001", "IM-0001"),
        (".png", ".png"),
        ("caf\udce9.png", "caf\\xe9"),  # a name that is not UTF-8
        ("café.png", "café"),
    ],
)
def test_image_id(name: str, expected: str) -> None:
    assert image_id(name) == expected


def test_files_that_no_extension_settles_are_images_by_their_first_bytes(tmp_path: Path) -> None:
    write(tmp_path, "IM1", "1.2.840.113.5", "x/explicit", "IM.0001", content=DICOM_START)
    write(tmp_path, "a.dcm30", "b.DIC", "c.img", "d.acr", "e.bin", content=DICOM_START)
    write(tmp_path, "JPEG", content=b"\xff\xd8\xff\xe0")
    write(tmp_path, "README", "9.8.7", "LICENSE", "f.img", content=b"some text that is no DICOM")
    write(tmp_path, "g.jpg.part", "h.zip", "i.txt", "j.png~", content=DICOM_START)  # by name
    write(tmp_path, "k.webp2", content=b"\xff\xd8\xff\xe0")  # of a picture that another tool reads
    found = find_images(tmp_path)
    assert [ref.id for ref in found.images] == [
        "1.2.840.113.5", "IM1", "IM.0001", "JPEG", "a", "b", "c", "d", "e.bin", "explicit"
    ]  # fmt: skip
    assert [Path(path).name for path in found.ignored] == [
        "9.8.7", "LICENSE", "README", "f.img", "g.jpg.part", "h.zip", "i.txt", "j.png~", "k.webp2"
    ]  # fmt: skip


def test_ids_are_in_natural_order(tmp_path: Path) -> None:
    write(tmp_path, "test_10.png", "test_9.png", "test_2.png", "a/test_02.png", "x.png", "T.png")
    assert ids(tmp_path) == ["T", "test_02", "test_2", "test_9", "test_10", "x"]


def test_links_are_followed_but_not_for_ever(tmp_path: Path) -> None:
    write(tmp_path, "data/a.png", "elsewhere/b.png")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "c.png").symlink_to(tmp_path / "missing.png")
    found = find_images(tmp_path / "data")
    assert [ref.id for ref in found.images] == ["a", "b", "c"]
    assert reason(found.images[2]) == "no such file (a broken link)"


def reason(ref: ImageRef) -> str:
    """Why an image cannot be read."""
    with pytest.raises(ImageError) as caught:
        ref.read()
    assert caught.value.hint and caught.value.code == "unreadable"
    return caught.value.message


def test_links_to_themselves_and_to_nothing(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    for name in ("self.png", "self", "note.txt"):
        (tmp_path / name).symlink_to(tmp_path / name)
    (tmp_path / "patient").symlink_to(tmp_path / "unmounted")
    found = find_images(tmp_path)
    assert [ref.id for ref in found.images] == ["a", "self"]
    assert reason(found.images[1]) == "cannot be read: Too many levels of symbolic links"
    assert [ref.where for ref in found.unreadable] == [
        str(tmp_path / "patient"), str(tmp_path / "self")
    ]  # fmt: skip
    assert reason(found.unreadable[0]) == "cannot be read: No such file or directory"
    assert found.ignored == [str(tmp_path / "note.txt")]  # no image, wherever it leads
    (itself,) = find_images(tmp_path / "self.png").images
    assert reason(itself) == "cannot be read: Too many levels of symbolic links"


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.png", "closed/b.png", "open/c.png")
    scandir = os.scandir

    def guarded(path: str) -> Any:  # what a closed folder is to all but root
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    found = find_images(tmp_path)
    assert [ref.id for ref in found.images] == ["a", "c"]
    (closed,) = found.unreadable
    assert (closed.id, closed.where) == (f"{tmp_path}/closed/", str(tmp_path / "closed"))
    assert reason(closed) == "cannot be read: Permission denied"
    with pytest.raises(AnnotatorError, match="closed cannot be read: Permission denied"):
        find_images(tmp_path / "closed")


def test_a_name_with_a_line_end_is_an_image_that_cannot_be_used(tmp_path: Path) -> None:
    write(tmp_path, "a\nb.png", "c,d.png", 'e"f.png')
    found = find_images(tmp_path)
    assert [ref.id for ref in found.images] == ["a\nb", "c,d", 'e"f']
    assert found.images[0].where == f"{tmp_path}/a\\nb.png"
    assert "line end" in reason(found.images[0])
    assert found.images[1].read() == b"c,d.png"


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


def test_what_is_dropped_of_duplicates_is_counted_and_named(tmp_path: Path) -> None:
    write(tmp_path, *(f"{folder}/a.png" for folder in "xyz"), "b.png", "y/b.png", "notes.txt")
    found = find_images(tmp_path, on_duplicate="first")
    dropped = ", ".join(str(tmp_path / name) for name in ("y/a.png", "z/a.png", "y/b.png"))
    assert found.report() == [
        f"3 images are left out, since the first with the same id is used: {dropped}",
        f"1 files are not images and are ignored: {tmp_path / 'notes.txt'}",
    ]
    write(tmp_path, *(f"{number}/a.png" for number in range(20)))
    assert find_images(tmp_path, on_duplicate="first").report()[0].endswith(" and 13 more")


# Ids


def test_ids_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "x/a.png", "x/y/a.nii.gz", "z/a.dcm")
    monkeypatch.chdir(tmp_path)
    by_path = {"id_from": "path"}
    for spec in (tmp_path, ".", f"{tmp_path}/*/**/*.*", "**/*.*"):
        assert ids(spec, **by_path) == ["x/a", "x/y/a", "z/a"]
    assert ids("x/*.png", **by_path) == ["a"]
    assert ids(["x", "z"], on_duplicate="first", **by_path) == ["a", "y/a"]
    assert ids(tmp_path / "x" / "a.png", **by_path) == ["a"]
    (tmp_path / "x" / "list.txt").write_text(f"y/a.nii.gz\na.png\n{tmp_path}/z/a.dcm\n../z/b.png")
    assert ids("x/list.txt", **by_path) == [f"{tmp_path}/z/a", "a", "y/a", "z/b"]


def test_ids_of_an_unknown_kind(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    with pytest.raises(ValueError, match="id_from must be one of auto, name, path, sop"):
        find_images(tmp_path, id_from="uid")  # type: ignore[arg-type]


def test_names_that_repeat_among_dicom_files_give_way_to_uids(dicom_tree: Path) -> None:
    found = find_images(dicom_tree)
    paths = sorted(dicom_tree.glob("P?/S?/R[01]/IM000001"))
    uids = {ref.where: ref.id for ref in found.images}
    assert uids == {str(path): dcmread(path).SOPInstanceUID for path in paths}
    assert found.report() == [
        "The ids of 8 DICOM files are their SOPInstanceUIDs, since names repeat among them, such "
        "as IM000001 (--id name, path or sop chooses).",
        f"2 DICOM files without an image are skipped: {dicom_tree}/DICOMDIR, "
        f"{dicom_tree}/P0/S0/R2/IM000001",
    ]
    assert ids(dicom_tree, id_from="sop") == [ref.id for ref in found.images]
    with pytest.raises(AnnotatorError, match="1 image ids occur more than once: IM000001"):
        find_images(dicom_tree, id_from="name")
    # Without headers it is not known that the SR has no image; decoding says so.
    assert len(ids(dicom_tree, id_from="path")) == 9


def test_names_stay_ids_where_headers_are_read_for_something_else(
    tmp_path: Path, write_dicom: Callable[..., str]
) -> None:
    for name in ("a", "b"):
        write_dicom(tmp_path / f"{name}.dcm", PatientID="p")
    options = {"where": {"Modality": ["CT"]}, "group_by": "PatientID"}
    for id_from in ("name", "path", "auto"):
        found = find_images(tmp_path, id_from=id_from, **options)
        assert [ref.id for ref in found.images] == ["a", "b"]
        assert found.groups == {"a": "p", "b": "p"}


def test_other_files_keep_their_names(tmp_path: Path, write_dicom: Callable[..., str]) -> None:
    uids = [write_dicom(tmp_path / name) for name in ("x/a.dcm", "y/a.dcm", "y/b.dcm")]
    write(tmp_path, "c.png")
    assert set(ids(tmp_path)) == {*uids, "c"}  # all of the DICOM files: one kind of id
    (tmp_path / "x" / "a.dcm").unlink()
    assert ids(tmp_path) == ["a", "b", "c"]
    assert set(ids(tmp_path, id_from="sop")) == {*uids[1:], "c"}
    write(tmp_path, "d/c.jpg")  # names that repeat among others are still refused
    with pytest.raises(AnnotatorError, match="more than once: c "):
        find_images(tmp_path)


def test_files_without_a_uid_have_their_paths_as_ids(
    tmp_path: Path, write_dicom: Callable[..., str]
) -> None:
    uids = [write_dicom(tmp_path / f"{folder}/IM1") for folder in "ad"]
    write_dicom(tmp_path / "b/IM1", SOPInstanceUID=None)
    write_dicom(tmp_path / "c/IM1", SOPInstanceUID=[*uids, "1.2.3"])
    write(tmp_path, "e/IM1.png", "f/IM1.dcm", content=b"")  # damaged, with the same name
    assert set(ids(tmp_path)) == {*uids, "b/IM1", "c/IM1", "e/IM1", "f/IM1"}


def test_copies_of_a_dicom_file_are_duplicates(
    tmp_path: Path, write_dicom: Callable[..., str]
) -> None:
    uid = write_dicom(tmp_path / "x" / "IM1")
    write(tmp_path, "y/IM1", content=(tmp_path / "x" / "IM1").read_bytes())
    with pytest.raises(AnnotatorError, match=f"more than once: {uid}"):
        find_images(tmp_path)
    found = find_images(tmp_path, on_duplicate="first")
    assert found.images[0].where == f"{tmp_path}/x/IM1" and len(found.images) == 1


# Headers


def test_groups_come_from_the_headers(dicom_tree: Path) -> None:
    found = find_images(dicom_tree, group_by="PatientID")
    by_path = {Path(ref.where).parts[-4]: found.groups[ref.id] for ref in found.images}
    assert by_path == {"P0": "secret-0", "P1": "secret-1"} and len(found.groups) == 8
    assert not any("secret" in line for line in found.report())
    assert "8 images are in 2 groups by PatientID" in found.notes
    without = find_images(dicom_tree, group_by="StudyInstanceUID")
    assert without.groups == {}
    assert "8 images have no StudyInstanceUID; each of them is a group of its own" in without.notes


def test_images_are_chosen_by_their_headers(dicom_tree: Path) -> None:
    write(dicom_tree, "x.png", "y.dcm")
    dangling = dicom_tree / "z.dcm"
    dangling.symlink_to(dicom_tree / "gone.dcm")
    found = find_images(dicom_tree, where={"Modality": ["dx"], "PatientID": ["secret-1", "x"]})
    chosen = {str(dicom_tree / f"P1/S{study}/R0/IM000001") for study in (0, 1)}
    assert {ref.where for ref in found.images} == {*chosen, str(dangling)}  # who knows
    assert found.notes[0] == (
        "8 images are left out by Modality and PatientID; 2 of them are not DICOM"
    )
    with pytest.raises(AnnotatorError, match="no image found") as caught:
        find_images(dicom_tree / "P0", where={"Modality": ["MR"]})
    assert "4 images are left out by Modality" in caught.value.message
    with pytest.raises(AnnotatorError, match="no attribute with the keyword 'Modalitiy'") as caught:
        find_images(dicom_tree, where={"Modalitiy": ["MR"]})
    assert "Similar: Modality" in caught.value.hint
    with pytest.raises(AnnotatorError, match="PixelData holds no text or number"):
        find_images(dicom_tree, group_by="PixelData")


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
        "null\0b": "its name holds a line end or another control character",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(ImageError, match="no permission"):
        find_images(tmp_path).images[0].read()
