from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotator.errors import AnnotatorError, FormatError, ImageError
from annotator.images import parquet, sources
from annotator.images.ref import image_id
from annotator.images.sources import find_images, parquet_concepts

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
    found = find_images(tmp_path)
    assert [ref.id for ref in found.images] == ["a", "b", "c"]
    assert [ref.where for ref in found.images] == [
        str(tmp_path / name) for name in ("a.JPG", "b.png", "deep/er/c.tiff")
    ]
    assert found.images[2].read() == b"deep/er/c.tiff"
    assert found.ignored == [str(tmp_path / name) for name in ("deep/table.csv", "notes.txt")]
    assert found.duplicates == {}


def test_hidden_files_and_archive_leftovers_are_left_out_silently(tmp_path: Path) -> None:
    write(tmp_path, "a.png", ".b.png", ".git/c.png", "__MACOSX/._a.png", "d/__MACOSX/e.png")
    found = find_images(tmp_path)
    assert [ref.id for ref in found.images] == ["a"]
    assert found.ignored == []


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


def test_one_file_whatever_its_extension(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.dat")
    assert ids(tmp_path / "a.png") == ["a"]
    assert ids(str(tmp_path / "b.dat")) == ["b.dat"]


def test_glob_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.png", "b.jpg", "x/c.png", "x/y/d.png", "x/e.txt", "[f].png")
    assert ids(f"{tmp_path}/*.png") == ["[f]", "a"]
    assert ids(f"{tmp_path}/*") == ["[f]", "a", "b"]
    assert ids(f"{tmp_path}/**/*.png") == ["[f]", "a", "c", "d"]
    assert ids(f"{tmp_path}/**") == ["[f]", "a", "b", "c", "d"]
    assert ids(f"{tmp_path}/[f].png") == ["[f]"]  # a file of that name comes first
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ids("~/x/*/*.png") == ["d"]
    assert ids("~/a.png") == ["a"]


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


def test_sequences_and_paths_that_are_named_twice(tmp_path: Path) -> None:
    write(tmp_path, "x/a.png", "y/b.png")
    spec = [tmp_path / "x", str(tmp_path / "y" / "b.png"), f"{tmp_path}/x/../x/*.png"]
    found = find_images(spec)
    assert [ref.id for ref in found.images] == ["a", "b"]
    assert found.duplicates == {}


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
    monkeypatch.setattr(sources, "MAX_BYTES", 99)
    reasons = {}
    for ref in find_images(tmp_path / "list.txt").images:
        with pytest.raises(ImageError) as caught:
            ref.read()
        assert caught.value.hint
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


@pytest.mark.slow
def test_many_files_are_found_quickly(tmp_path: Path) -> None:
    for folder in range(20):
        (tmp_path / f"{folder}").mkdir()
        for number in range(1000):
            (tmp_path / f"{folder}" / f"{folder:02}_{number:04}.png").touch()
    start = time.perf_counter()
    assert len(find_images(tmp_path).images) == 20_000
    assert time.perf_counter() - start < 2


def test_importing_is_cheap() -> None:
    script = (
        "import sys; import annotator.images.sources; "
        "print({'numpy', 'PIL', 'pydicom', 'pyarrow', 'torch', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.strip() == b"set()"


# Parquet


def table(keys: list[str], **changes: Any) -> pa.Table:
    columns: dict[str, Any] = {
        "image": [{"bytes": f"image {key}".encode(), "path": f"{key}.png"} for key in keys],
        "image_id": keys,
        "caption": [f"caption of {key}" for key in keys],
        "cui": [["C0000001", "C0000002"][: i % 3] for i in range(len(keys))],
    }
    columns |= changes
    return pa.table({name: column for name, column in columns.items() if column is not None})


KEYS = [f"k{number:04}" for number in range(700)]


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Two files, of row groups that are smaller and much larger than what is kept."""
    pq.write_table(table(KEYS[:100]), tmp_path / "part-0.parquet", row_group_size=30)
    pq.write_table(table(KEYS[100:]), tmp_path / "part-1.parquet", row_group_size=600)
    return tmp_path


def test_parquet_in_a_folder_a_pattern_and_a_list(tables: Path) -> None:
    files = [tables / "part-0.parquet", tables / "part-1.parquet"]
    for spec in (tables, f"{tables}/*.parquet", files):
        found = find_images(spec)
        assert [ref.id for ref in found.images] == KEYS
        assert found.images[112].where == f"{files[1]} row 12"
        assert found.images[112].read() == b"image k0112"


@pytest.mark.parametrize("order", ["forward", "backward", "random"])
def test_parquet_is_read_in_any_order(tables: Path, order: str) -> None:
    refs = find_images(tables).images
    if order == "backward":
        refs = refs[::-5]
    if order == "random":
        refs = random.Random(0).sample(refs, 150)
    for ref in refs:
        assert ref.read() == f"image {ref.id}".encode()


def test_parquet_is_read_from_threads_and_again(tables: Path) -> None:
    refs = find_images(tables).images
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            assert list(pool.map(lambda ref: ref.read(), refs)) == [
                f"image {key}".encode() for key in KEYS
            ]


def test_parquet_read_forward_decodes_each_row_once(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = 0
    original = pq.ParquetFile.iter_batches

    def counting(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal decoded
        for batch in original(self, *args, **options):
            decoded += len(batch)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counting)
    refs = find_images(tables).images
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(refs), 64):  # nobody runs further ahead than a few batches
            list(pool.map(lambda ref: ref.read(), refs[start : start + 64]))
    assert decoded == len(KEYS)


def test_parquet_memory_is_bounded(tmp_path: Path) -> None:
    # One row group of 100 MB; what Arrow holds at any time is a small part of it.
    content = random.Random(0).randbytes(100_000)
    images = [{"bytes": number.to_bytes(4) + content, "path": None} for number in range(1000)]
    path = tmp_path / "large.parquet"
    keys = [f"k{number:04}" for number in range(1000)]
    options = {"use_dictionary": False, "write_batch_size": 10}  # pages of 1 MB, rather than one
    pq.write_table(table(keys, image=images), path, row_group_size=1000, **options)
    refs = find_images(path).images
    before, peak = pa.total_allocated_bytes(), 0
    for ref in refs[::20]:
        assert ref.read()[:4] == int(ref.id[1:]).to_bytes(4)
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 50_000_000


@pytest.mark.parametrize("type_", [pa.binary(), pa.large_binary()])
def test_parquet_of_plain_bytes(tmp_path: Path, type_: pa.DataType) -> None:
    plain = table(["a", "b"], image=pa.array([b"one", b"two"], type_))
    pq.write_table(plain, tmp_path / "t.parquet")
    assert [ref.read() for ref in find_images(tmp_path).images] == [b"one", b"two"]


def test_parquet_ids_from_the_images_paths(tmp_path: Path) -> None:
    images = [{"bytes": b"x", "path": f"folder/{key}.jpg"} for key in ("b", "a.1")]
    pq.write_table(table(["0", "1"], image=images, image_id=None), tmp_path / "t.parquet")
    assert ids(tmp_path) == ["a.1", "b"]
    assert list(parquet_concepts(tmp_path)[0]) == ["a.1", "b"]


def test_parquet_rows_without_an_image(tmp_path: Path) -> None:
    images = [{"bytes": None, "path": "a.png"}, None, {"bytes": b"good", "path": "c.png"}]
    pq.write_table(table(["a", "b", "c"], image=images), tmp_path / "t.parquet")
    first, second, third = find_images(tmp_path).images
    for ref in (first, second):
        with pytest.raises(ImageError, match="no image in this row"):
            ref.read()
    assert third.read() == b"good"


def test_parquet_duplicates(tmp_path: Path) -> None:
    pq.write_table(table(["a", "b"]), tmp_path / "1.parquet")
    pq.write_table(table(["b"], caption=["another"]), tmp_path / "2.parquet")
    with pytest.raises(AnnotatorError, match=r"b \(.*1\.parquet row 1, .*2\.parquet row 0\)"):
        find_images(tmp_path)
    found = find_images(tmp_path, on_duplicate="first")
    assert found.images[1].where == f"{tmp_path}/1.parquet row 1"
    assert parquet_concepts(tmp_path)[1]["b"] == "caption of b"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": None}, "no column `image`"),
        ({"image": ["a.png"]}, "no column `image`"),
        ({"image": [{"path": "a.png"}]}, "no column `image`"),
        ({"image": [b"x"], "image_id": None}, "no column `image_id`, and no path"),
        ({"image_id": [None]}, "row 0: no image id"),
    ],
)
def test_parquet_without_images_or_ids(tmp_path: Path, changes: Any, reason: str) -> None:
    pq.write_table(table(["a"], **changes), tmp_path / "t.parquet")
    with pytest.raises(FormatError, match=reason) as caught:
        find_images(tmp_path)
    assert caught.value.message.startswith(str(tmp_path / "t.parquet"))
    assert caught.value.hint


def test_damaged_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(FormatError, match="cannot be read as a Parquet file"):
        find_images(path)
    with pytest.raises(FormatError, match="cannot be read as a Parquet file"):
        parquet_concepts(path)
    # Damaged after it was listed: the images of one part fail, one by one.
    pq.write_table(table(KEYS), path, row_group_size=350)
    refs = find_images(path).images
    start = pq.ParquetFile(path).metadata.row_group(0).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 400] = b"\xff" * 400
    path.write_bytes(content)
    for ref in refs[:3]:
        with pytest.raises(ImageError, match="Parquet"):
            ref.read()
    assert refs[500].read() == b"image k0500"
    path.unlink()
    with pytest.raises(ImageError, match="Parquet"):
        refs[0].read()


def test_parquet_concepts(tables: Path) -> None:
    concepts, captions = parquet_concepts(tables)
    assert list(concepts) == list(captions) == KEYS
    assert concepts["k0000"] == ()
    assert concepts["k0002"] == ("C0000001", "C0000002")
    assert captions["k0123"] == "caption of k0123"


def test_parquet_concepts_without_captions_or_lists(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(table(["a", "b"], caption=None, cui=[None, ["C1"]]), path)
    assert parquet_concepts(path) == ({"a": (), "b": ("C1",)}, {})
    pq.write_table(table(["a"], cui=["C1;C2"]), path)
    with pytest.raises(FormatError, match="no lists in a column `cui`"):
        parquet_concepts(path)
    write(tmp_path, "images/a.png")
    with pytest.raises(AnnotatorError, match="no Parquet file found"):
        parquet_concepts(tmp_path / "images")


def test_parquet_images_over_the_limit(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MAX_BYTES", 5)
    with pytest.raises(ImageError, match="11 bytes are over the limit of 5"):
        find_images(tables).images[0].read()
