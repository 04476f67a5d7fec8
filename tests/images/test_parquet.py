"""Images and concepts in Parquet files: in any order, from threads, in bounded memory."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotator.errors import AnnotatorError, FormatError, ImageError
from annotator.images import ref as ref_module
from annotator.images.sources import find_images, parquet_concepts


def ids(spec: Any) -> list[str]:
    return [ref.id for ref in find_images(spec).images]


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


def test_parquet_rows_are_in_the_natural_order_of_their_ids(tmp_path: Path) -> None:
    pq.write_table(table([f"k{number}" for number in range(12)]), tmp_path / "a.parquet")
    assert ids(tmp_path) == [f"k{number}" for number in range(12)]


def test_parquet_with_dicom_files(tmp_path: Path, write_dicom: Callable[..., str]) -> None:
    uids = [write_dicom(tmp_path / f"{i}.dcm", Modality=("CR", "DX")[i]) for i in range(2)]
    images = [{"bytes": (tmp_path / f"{i}.dcm").read_bytes(), "path": None} for i in range(2)]
    images.append({"bytes": b"", "path": None})
    pq.write_table(table(["a", "b", "empty"], image=images), tmp_path / "t.parquet")
    path = tmp_path / "t.parquet"
    assert {ref.id for ref in find_images(path, id_from="sop").images} == {*uids, "empty"}
    assert [ref.id for ref in find_images(path, where={"Modality": ["dx"]}).images] == [
        "b",
        "empty",
    ]
    assert [ref.id for ref in find_images(path, id_from="path").images] == ["a", "b", "empty"]


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


def test_parquet_of_plain_bytes_and_ids_from_the_images_paths(tmp_path: Path) -> None:
    for type_ in (pa.binary(), pa.large_binary()):
        plain = table(["a", "b"], image=pa.array([b"one", b"two"], type_))
        pq.write_table(plain, tmp_path / "t.parquet")
        assert [ref.read() for ref in find_images(tmp_path).images] == [b"one", b"two"]
    images = [{"bytes": b"x", "path": f"folder/{key}.jpg"} for key in ("b", "a.1")]
    pq.write_table(table(["0", "1"], image=images, image_id=None), tmp_path / "t.parquet")
    assert ids(tmp_path) == ["a.1", "b"]
    assert list(parquet_concepts(tmp_path)[0]) == ["a.1", "b"]


def test_parquet_rows_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {"a": None, "c": b"", "d": bytes(100), "e": b"good"}
    images = [{"bytes": content, "path": f"{key}.png"} for key, content in contents.items()]
    keys = [*contents, "b"]
    pq.write_table(table(keys, image=[*images, None]), tmp_path / "t.parquet")
    monkeypatch.setattr(ref_module, "MAX_BYTES", 99)
    reasons = {}
    for ref in find_images(tmp_path).images:
        try:
            assert ref.read() == b"good"
        except ImageError as error:
            reasons[ref.id] = (error.code, error.message)
    nothing = ("empty", "no image in this row")
    large = ("too_large", "100 bytes are over the limit of 99")
    assert reasons == {"a": nothing, "b": nothing, "c": nothing, "d": large}


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
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").touch()
    with pytest.raises(AnnotatorError, match="no Parquet file found"):
        parquet_concepts(tmp_path / "images")


def test_what_a_parquet_reader_takes_along(tmp_path: Path) -> None:
    """To another process goes how to read a row, not what was read; a thread has one reader."""
    rows = [{"bytes": bytes([i]) * 9000, "path": f"i{i}"} for i in range(6)]
    pq.write_table(pa.table({"image": rows}), tmp_path / "t.parquet")
    refs = find_images(tmp_path / "t.parquet").images
    refs[3].read()
    packed = pickle.dumps([ref.read for ref in refs])
    assert len(packed) < 2000
    first, second = pickle.loads(packed), pickle.loads(packed)
    assert first[0].func.__self__ is second[5].func.__self__
    assert [read() for read in first] == [row["bytes"] for row in rows]
    with pytest.raises(ImageError):
        (tmp_path / "t.parquet").write_bytes(b"")
        pickle.loads(pickle.dumps([partial(refs[0].read.func, 0, 9)]))[0]()  # type: ignore[attr-defined]
