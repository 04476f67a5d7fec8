"""Images and tables matched by id, with a count of what does not match."""

from __future__ import annotations

import io
from pathlib import Path

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
    report = collection.report()
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
    assert "1 ids belong to several images; the first is used: a" in collection.report()


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
    path = table(tmp_path, "c.csv", "ID,CUIs\na.png,C1\nb.png,C1\n")
    with pytest.raises(AnnotatorError, match="None of the 4 images matches one of the 2 ids") as e:
        read_collection(images, path)
    assert "'a'" in e.value.hint and "'a.png'" in e.value.hint


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
    assert collection.report() == []


def test_parquet_files_with_other_concepts(tmp_path: Path) -> None:
    path = parquet(tmp_path / "train.parquet", [["C2"], ["C3"]])
    other = table(tmp_path, "manual.csv", "ID,CUIs\nr1,C9\n")
    collection = read_collection(path, other)
    assert collection.concepts == {"r1": ("C9",)} and collection.captions == {}


def test_parquet_files_with_something_else_than_cuis(tmp_path: Path) -> None:
    path = parquet(tmp_path / "train.parquet", [["C2"], ["radiograph"]])
    with pytest.raises(FormatError, match="image 'r1': 'RADIOGRAPH' is not a CUI"):
        read_collection(path)


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
