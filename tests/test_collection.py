"""Images and tables matched by id, with a count of what does not match."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from PIL import Image

from annotator.collection import read_collection, sample_collection
from annotator.errors import AnnotatorError, FormatError, ImageError


def png(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), shade).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for shade, name in enumerate(["b", "a", "c", "stray"]):
        (folder / f"{name}.png").write_bytes(png(shade))
    return folder


def table(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def concepts(tmp_path: Path) -> Path:
    return table(tmp_path, "concepts.csv", "ID,CUIs\nb,C2;C1\na,\nc,C3\nlost,C1\n")


def test_images_and_concepts_are_matched_by_id(images: Path, concepts: Path) -> None:
    collection = read_collection(images, concepts)
    assert [ref.id for ref in collection.images] == ["a", "b", "c"]
    assert collection.concepts == {"a": (), "b": ("C2", "C1"), "c": ("C3",)}
    assert (collection.names, collection.captions, collection.groups) == ({}, {}, {})


def test_what_does_not_match_is_counted_and_named(images: Path, concepts: Path) -> None:
    table(images, "notes.pdf", "")
    collection = read_collection(images, concepts)
    assert collection.without_image == ["lost"]
    assert collection.without_concepts == [str(images / "stray.png")]
    understood, *report = collection.report()
    assert understood.startswith(f"{concepts}: ") and understood == collection.understood
    assert report[0] == "1 ids of the concepts file have no image and are left out: lost"
    assert report[1].startswith("1 images are not in the concepts file") and "stray" in report[1]
    assert report[2].startswith("1 files are not images") and "notes.pdf" in report[2]
    assert len(report) == 3


def test_a_mismatch_can_be_refused(images: Path, concepts: Path) -> None:
    with pytest.raises(AnnotatorError, match=r"1 ids have no image \(lost\), 1 images have no id"):
        read_collection(images, concepts, on_mismatch="fail")
    (images / "stray.png").rename(images / "lost.png")
    assert len(read_collection(images, concepts, on_mismatch="fail").images) == 4


def test_two_images_with_one_id(images: Path, concepts: Path) -> None:
    (images / "more").mkdir()
    (images / "more" / "a.png").write_bytes(png(9))
    with pytest.raises(AnnotatorError, match="more than once"):
        read_collection(images, concepts)
    collection = read_collection(images, concepts, on_duplicate="first")
    assert list(collection.duplicates) == ["a"]
    assert collection.images[0].read() == png(1)
    assert collection.report()[-1] == (
        "1 images are left out, since the first with the same id is used: "
        f"{images / 'more' / 'a.png'}"
    )


def test_names_captions_and_groups(images: Path, concepts: Path, tmp_path: Path) -> None:
    collection = read_collection(
        images,
        concepts,
        names=table(tmp_path, "names.csv", "CUI,Name\nC1,one\nC3,three\n"),
        captions=table(tmp_path, "captions.csv", "ID,Caption\na,of a\n"),
        groups=f"{table(tmp_path, 'p.csv', 'ID,age,patient' + chr(10) + 'a,7,p1')}:patient",
    )
    assert collection.names == {"C1": "one", "C3": "three"}
    assert collection.captions == {"a": "of a"}
    assert collection.groups == {"a": "p1"}


def test_one_side_of_a_split(images: Path, concepts: Path, tmp_path: Path) -> None:
    split = table(tmp_path, "split.csv", "ID,side\na,train\nb,test\nc,train\nlost,test\n")
    train = read_collection(images, concepts, split=str(split), only="train")
    assert [ref.id for ref in train.images] == ["a", "c"]
    assert list(train.without_image) == []  # the lost one is on the other side
    test = read_collection(images, concepts, split=f"{split}:side", only="test")
    assert [ref.id for ref in test.images] == ["b"] and test.without_image == ["lost"]


def test_nothing_that_matches_shows_both_kinds_of_ids(images: Path, tmp_path: Path) -> None:
    path = table(tmp_path, "c.csv", "ID,CUIs\na_10,C1\na_9,C1\n")
    with pytest.raises(AnnotatorError, match="None of the 4 images matches one of the 2 ids") as e:
        read_collection(images, path)
    assert "'a'" in e.value.hint and "'a_9'" in e.value.hint


def test_tables_that_name_files(images: Path, tmp_path: Path) -> None:
    concepts = table(tmp_path, "c.csv", "ID,CUIs\nb.PNG,C1\na,C2\nx/c.png,C3\nlost.png,C4\n")
    split = table(tmp_path, "s.csv", "path,side\na.png,train\nc,train\n")
    collection = read_collection(
        images,
        concepts,
        captions=table(tmp_path, "t.csv", "ID,Caption\nimages/a.png,of a\n"),
        groups=str(table(tmp_path, "g.csv", "ID,patient\n/data/a.png,p1\nc.jpg,p2\nb,p3\n")),
        split=str(split),
        only="train",
    )
    assert collection.concepts == {"a": ("C2",), "c": ("C3",)}
    assert collection.captions == {"a": "of a"}
    assert collection.groups == {"a": "p1", "b": "p3", "c": "p2"}
    assert collection.without_image == []  # the lost one is on no side
    matched = "file names, paths or in another Unicode form; matched as such, for example"
    for line in (
        f"2 ids of {concepts} are {matched} 'b.PNG' -> 'b'",
        f"1 ids of {tmp_path / 't.csv'} are {matched} 'images/a.png' -> 'a'",
        f"2 ids of {tmp_path / 'g.csv'} are {matched} '/data/a.png' -> 'a'",
        f"1 ids of {split} are {matched} 'a.png' -> 'a'",
    ):
        assert collection.report().count(line) == 1


def test_names_in_another_unicode_form(tmp_path: Path) -> None:
    (tmp_path / "cafe\u0301.png").write_bytes(png())  # as macOS spells it
    path = table(tmp_path, "c.csv", "ID,CUIs\ncaf\u00e9,C1\n")
    assert read_collection(tmp_path, path).concepts == {"cafe\u0301": ("C1",)}


def test_a_table_of_which_nothing_matches_is_said(images: Path, concepts: Path) -> None:
    path = table(images.parent, "groups.csv", "ID\na\nb\n")
    with pytest.raises(FormatError, match="only one column"):
        read_collection(images, concepts, groups=str(path))
    path = table(images.parent, "groups.csv", "ID,patient\ni1,p1\ni2,p2\n")
    said = read_collection(images, concepts, groups=str(path)).report()
    assert f"None of the 2 ids of {path} is that of an image, such as 'i1'" in said


@pytest.mark.parametrize(("large", "said"), [(21, True), (20, False)])
def test_a_group_that_may_stand_for_unknown_ones_is_told(
    tmp_path: Path, large: int, said: bool
) -> None:
    (tmp_path / "images").mkdir()
    groups = ["unknown"] * large + [""] * 30
    for i in range(len(groups)):
        (tmp_path / "images" / f"i{i}.png").write_bytes(png(i))
    rows = enumerate(groups)
    of_image = table(tmp_path, "groups.csv", "ID,g\n" + "".join(f"i{i},{g}\n" for i, g in rows))
    labels = "".join(f"i{i},C1\n" for i in range(len(groups)))
    concepts = table(tmp_path, "concepts.csv", f"ID,CUIs\n{labels}")
    report = " ".join(read_collection(tmp_path / "images", concepts, groups=str(of_image)).notes)
    assert (f"21 of 51 images are of one group, 'unknown' ({of_image})" in report) == said


def test_groups_and_selection_by_dicom_headers(
    dicom_tree: Path, write_dicom: Callable[..., str], tmp_path: Path
) -> None:
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in dicom_tree.glob("P?/S?/R?/IM*")]
    path = table(tmp_path, "c.csv", "ID,CUIs\n" + "".join(f"{uid},C1\n" for uid in uids))
    collection = read_collection(
        dicom_tree, path, groups="dicom:PatientID", where={"Modality": ["DX"]}
    )
    assert sorted(collection.groups.values()) == ["secret-0"] * 2 + ["secret-1"] * 2
    assert set(collection.groups) == {ref.id for ref in collection.images}


def test_nothing_matches_uids(dicom_tree: Path, tmp_path: Path) -> None:
    path = table(tmp_path, "c.csv", "ID,CUIs\nP0/S0/R0/IM000001,C1\n")
    with pytest.raises(AnnotatorError, match="None of the 8 images matches") as caught:
        read_collection(dicom_tree, path)
    assert "SOPInstanceUIDs" in caught.value.hint and "--id name, path" in caught.value.hint
    by_path = read_collection(dicom_tree, path, id_from="path")
    assert list(by_path.concepts) == ["P0/S0/R0/IM000001"]


def test_what_cannot_be_read_is_kept_to_be_reported(images: Path, concepts: Path) -> None:
    (images / "patient").symlink_to(images / "unmounted")
    (images / "lost.png").symlink_to(images / "gone.png")
    (images / "lo\nst.png").write_bytes(png())
    table(concepts.parent, "concepts.csv", 'ID,CUIs\na,C1\n"lo\nst",C1\nlost,C1\n')
    collection = read_collection(images, concepts)
    wheres = [ref.where for ref in collection.images]
    assert wheres == [
        f"{images}/{name}" for name in ("a.png", "lo\\nst.png", "lost.png", "patient")
    ]
    assert collection.concepts[collection.images[-1].id] == ()
    for ref in collection.images[1:]:
        with pytest.raises(ImageError):
            ref.read()


def test_a_folder_without_concepts_asks_for_them(images: Path) -> None:
    with pytest.raises(AnnotatorError, match="No concepts file given") as caught:
        read_collection(images)
    assert "Give the concepts file" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "ROCO_1\t\tC0000001\tC0000002\nROCO_2\t\tC0000001\n",  # ROCO v1
        "ID,CUIs\nROCO_1,C0000001;C0000002\nROCO_2,C0000001\n",
        "ROCO_1|C0000001;C0000002\nROCO_2|c0000001\n",
    ],
)
def test_concepts_of_several_years(tmp_path: Path, text: str) -> None:
    for name in ("ROCO_1", "ROCO_2"):
        (tmp_path / f"{name}.jpg").write_bytes(png())
    path = table(tmp_path, "cuis.txt", text)
    collection = read_collection([tmp_path / "ROCO_1.jpg", tmp_path / "ROCO_2.jpg"], path)
    assert collection.concepts == {
        "ROCO_1": ("C0000001", "C0000002"),
        "ROCO_2": ("C0000001",),
    }


def parquet(path: Path, cuis: list[list[str]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as pq

    columns = {
        "image": [{"bytes": png(i), "path": None} for i in range(len(cuis))],
        "image_id": [f"r{i}" for i in range(len(cuis))],
        "caption": [f"caption {i}" for i in range(len(cuis))],
        "cui": cuis,
    }
    pq.write_table(pyarrow.table(columns), path)
    return path


def test_parquet_files_carry_their_concepts(tmp_path: Path) -> None:
    path = parquet(tmp_path / "train.parquet", [["C2", "c1", "C2"], [], ["C3"]])
    collection = read_collection(path)
    assert collection.concepts == {"r0": ("C2", "C1"), "r1": (), "r2": ("C3",)}
    assert collection.captions["r2"] == "caption 2"
    assert collection.images[1].read() == png(1)
    assert collection.report() == [f"{path}: 3 images, 3 labels, in lists"]


def test_parquet_files_with_other_concepts(tmp_path: Path) -> None:
    path = parquet(tmp_path / "train.parquet", [["C2"], ["C3"]])
    other = table(tmp_path, "manual.csv", "ID,CUIs\nr1,C9\n")
    collection = read_collection(path, other)
    assert collection.concepts == {"r1": ("C9",)} and collection.captions == {}


def test_parquet_files_with_words(tmp_path: Path) -> None:
    path = parquet(tmp_path / "train.parquet", [["C2"], ["Chest X-ray", "c2"]])
    collection = read_collection(path)
    assert collection.concepts == {"r0": ("C2",), "r1": ("CHEST_X-RAY", "C2")}
    assert collection.names == {"CHEST_X-RAY": "Chest X-ray"}
    mapped = read_collection(path, mapping={"CHEST_X-RAY": ("C7",)})
    assert mapped.concepts["r1"] == ("C7", "C2") and mapped.names == {}
    path = parquet(tmp_path / "train.parquet", [["C2"], ["0000003"]])
    with pytest.raises(FormatError, match="image 'r1': '0000003' is a number"):
        read_collection(path)


def test_words_are_their_own_names(images: Path) -> None:
    path = table(images.parent, "words.csv", "image;Finding\na.png;Mass\nb.png;mass; C1\n")
    names = table(images.parent, "names.csv", "CUI,Name\nC1,Chest\n")
    collection = read_collection(images, path, names=names)
    assert collection.concepts == {"a": ("MASS",), "b": ("MASS", "C1")}
    assert collection.names == {"MASS": "Mass", "C1": "Chest"}


def test_one_folder_for_both_sides(images: Path) -> None:
    for name in ("x_train_1", "x_test_2"):
        (images / f"{name}.png").write_bytes(png())
    path = table(images.parent, "all.csv", "ID,CUIs\nx_train_1,C1\nx_test_2,C2\n")
    assert read_collection(images, path, only="id:*_train_*").concepts == {"x_train_1": ("C1",)}
    with pytest.raises(AnnotatorError, match="None of the 2 ids matches"):
        read_collection(images, path, only="id:*_valid_*")


@pytest.mark.slow
def test_the_built_in_sample_is_a_training_side_with_everything() -> None:
    with sample_collection() as collection:
        ids = {ref.id for ref in collection.images}
        assert ids == collection.concepts.keys() and 300 < len(ids) < 600
        assert ids <= collection.captions.keys() and ids <= collection.groups.keys()
        assert {cui for cuis in collection.concepts.values() for cui in cuis} <= (
            collection.names.keys()
        )
        assert collection.images[0].read()
    with pytest.raises(ImageError):
        collection.images[0].read()
