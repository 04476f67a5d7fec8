"""Files of vectors are read as written, or refused with the reason."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import vector_files
from vector_files import WRITERS, Write, unit_rows

from annotator.errors import FormatError
from annotator.vectors.formats import read_stored

IDS = [f"image {i}, left; 'a'|b" for i in range(7)]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("write", WRITERS)
def test_rows_and_ids_are_those_written(write: Write, dtype: str, tmp_path: Path) -> None:
    rows = unit_rows().astype(dtype)
    path, beside = write(tmp_path, rows, IDS)
    stored = read_stored(path)
    assert stored.rows.dtype == dtype
    np.testing.assert_array_equal(stored.rows, rows)
    assert stored.ids == (None if beside else IDS)
    assert stored.encoder is None


def test_other_layouts(tmp_path: Path) -> None:
    rows = unit_rows()
    np.save(tmp_path / "f.npy", np.asfortranarray(rows.astype(">f8")))
    np.testing.assert_array_equal(read_stored(tmp_path / "f.npy").rows, rows.astype(float))
    np.savez(tmp_path / "n.npz", X=rows, id=np.arange(7), encoder="my net")
    stored = read_stored(tmp_path / "n.npz")
    assert (stored.ids, stored.encoder) == ([str(i) for i in range(7)], "my net")
    np.savez(tmp_path / "bytes.npz", vectors=rows, ids=np.array(IDS, "S"))
    assert read_stored(tmp_path / "bytes.npz").ids == IDS


def test_bfloat16_of_safetensors(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensor = torch.from_numpy(unit_rows()).to(torch.bfloat16)
    save_file({"embeddings": tensor}, tmp_path / "b.safetensors")
    stored = read_stored(tmp_path / "b.safetensors")
    np.testing.assert_array_equal(stored.rows, tensor.float().numpy())
    assert stored.ids is None


def test_missing_lists_of_parquet_become_nan(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lists = [None, [], [1.0, 0.0], None, [0.0, None]]
    vectors = pa.array(lists, pa.list_(pa.float32()))
    pq.write_table(pa.table({"id": list("abcde"), "vector": vectors}), tmp_path / "v.parquet")
    expected = np.full((5, 2), np.nan, np.float32)
    expected[2], expected[4, 0] = (1, 0), 0
    np.testing.assert_array_equal(read_stored(tmp_path / "v.parquet").rows, expected)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("share", [0.2, 0.6, 0.97])
def test_truncated_files(write: Write, share: float, tmp_path: Path) -> None:
    path, _ = write(tmp_path, unit_rows(50), [f"i{i}" for i in range(50)])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(FormatError, match=f"v{path.suffix}") as error:
        read_stored(path)
    assert error.value.hint


def test_arrays_of_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return Path.touch, (tmp_path / "ran",)

    objects = np.empty((2, 1), object)
    objects[:] = Bad()
    np.save(tmp_path / "o.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "v.npz", vectors=objects)
    np.savez(tmp_path / "i.npz", vectors=unit_rows(2), ids=np.array(["a", Bad()], object))
    for name in ("o.npy", "v.npz", "i.npz"):
        with pytest.raises(FormatError, match="Python objects"):
            read_stored(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def _npy(header: str) -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _array(values: object) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def _tensors(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000000)}"
NEGATIVE = "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 8)}"


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.npy", _array([1.0, 0.0]), "no table of vectors, but 2"),
        ("a.npy", _array(1.0), "but a single number"),
        ("a.npy", _array(np.zeros((2, 3, 4))), "but 2 x 3 x 4"),
        ("a.npy", _array(np.zeros((0, 3))), "but 0 x 3"),
        ("a.npy", _array(np.zeros((3, 0))), "but 3 x 0"),
        ("a.npy", _array(np.arange(6).reshape(2, 3)), "type int64"),
        ("a.npy", _array([["a"]]), "type <U1"),
        ("a.npy", _array(np.zeros((2, 2), complex)), "type complex128"),
        ("a.npy", _npy(HUGE), "cut short: 4000000000000000000 bytes"),
        ("a.npy", _npy(NEGATIVE), "damaged"),
        ("a.npy", _npy("{'descr': "), "cannot be read as an array"),
        ("a.npy", b"\x93NUMPY\x09\x00", "cannot be read as an array"),
        ("a.npy", b"\x80\x04K\x01.", "no file of vectors"),
        ("a.csv", b"id,v\na,1\n", "no file of vectors"),
        ("a.npz", b"PK\x03\x04 and no more", "damaged"),
        ("a.parquet", b"PAR1 and no more", "cannot be read as a Parquet file"),
        ("a.safetensors", b"", "cannot be read as safetensors"),
        ("a.safetensors", struct.pack("<Q", 1 << 60), "cannot be read as safetensors"),
        ("a.safetensors", _tensors({}), "no tensor vectors"),
        (
            "a.safetensors",
            _tensors({"v": {"dtype": "F32", "shape": [9, 9], "data_offsets": [0, 324]}}),
            "cannot be read as safetensors",
        ),
        (
            "a.safetensors",
            _tensors({"vectors": {"dtype": "I8", "shape": [1, 2], "data_offsets": [0, 2]}}, b"ab"),
            "type I8, not of floats",
        ),
        (
            "a.safetensors",
            _tensors({"v": {"dtype": "F16", "shape": [1, 1], "data_offsets": [0, 2]},
                      "__metadata__": {"ids": "a"}}, b"ab"),
            "no JSON list",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(name: str, data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(FormatError, match=reason) as error:
        read_stored(path)
    assert str(path) in error.value.message and error.value.hint


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="does not exist"):
        read_stored(tmp_path / "v.npy")
    with pytest.raises(FormatError, match="cannot be read"):
        read_stored(tmp_path)


def test_several_candidates_are_listed(tmp_path: Path) -> None:
    rows = unit_rows()
    np.savez(tmp_path / "v.npz", a=rows, b=rows)
    with pytest.raises(FormatError, match="no array vectors") as error:
        read_stored(tmp_path / "v.npz")
    assert "a (float32, 2 axes), b (float32, 2 axes)" in error.value.hint


def test_counts_and_lengths_that_differ(tmp_path: Path) -> None:
    import pandas as pd

    np.savez(tmp_path / "v.npz", ids=np.array(["a"]), vectors=unit_rows())
    with pytest.raises(FormatError, match=r"array ids has 1 ids, but .*v\.npz has 7 vectors"):
        read_stored(tmp_path / "v.npz")
    lists = [np.ones(3), np.ones(3), np.ones(4)]
    pd.DataFrame({"id": list("abc"), "v": lists}).to_parquet(tmp_path / "v.parquet")
    with pytest.raises(FormatError, match="row 2: the vector has length 4, others have 3"):
        read_stored(tmp_path / "v.parquet")


def test_an_array_shorter_than_its_member_says(tmp_path: Path) -> None:
    data = _array(unit_rows())
    with zipfile.ZipFile(tmp_path / "v.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vectors.npy", data[:-4])
    with pytest.raises(FormatError, match="not as long as it says"):
        read_stored(tmp_path / "v.npz")


def test_damaged_members(tmp_path: Path) -> None:
    path, _ = vector_files.compressed_npz(tmp_path, unit_rows(200), [f"i{i}" for i in range(200)])
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(FormatError, match="damaged"):
        read_stored(path)


def test_texts_that_are_not_called_ids_are_none(tmp_path: Path) -> None:
    import pandas as pd

    rows = unit_rows(2)
    labels = np.array(["cat", None], object)  # whatever it is
    np.savez(tmp_path / "v.npz", vectors=rows, labels=labels)
    frame = pd.DataFrame({"caption": ["A cat.", "A dog."], "vector": list(rows)})
    frame.to_parquet(tmp_path / "v.parquet", index=False)
    assert read_stored(tmp_path / "v.npz").ids is None
    assert read_stored(tmp_path / "v.parquet").ids is None
    frame.index = pd.Index(["a", "b"])
    frame.to_parquet(tmp_path / "v.parquet")
    assert read_stored(tmp_path / "v.parquet").ids == ["a", "b"]
