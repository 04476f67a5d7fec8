"""Vectors are read as they were written, with their encoder, and written whole or not at all."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import numpy as np
import pytest
from vector_files import unit_rows

from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.errors import AnnotatorError, FormatError
from annotator.vectors.encoder import VectorEncoder
from annotator.vectors.table import read_vectors
from annotator.vectors.write import write_vectors

IDS = ["plain", "a,b", 'the "left"', "x|y\tz", "# no comment", "größe/1", "C0000001"]
FORMATS = ("v.parquet", "v.npy", "v.npz", "v.safetensors")


@pytest.fixture
def encoder(tiny_embedder: TorchEmbedder) -> VectorEncoder:
    return VectorEncoder.of(tiny_embedder)


@pytest.mark.parametrize("name", FORMATS)
def test_a_round_trip(name: str, encoder: VectorEncoder, tmp_path: Path) -> None:
    rows = unit_rows(len(IDS), encoder.dim)
    files = write_vectors(tmp_path / name, IDS, rows, encoder)
    assert sorted(files) == sorted(tmp_path.iterdir())
    table = read_vectors(tmp_path / name)
    np.testing.assert_array_equal(table.rows, rows)
    assert list(table.ids) == IDS
    assert table.encoder == encoder
    before = {file: file.read_bytes() for file in files}
    write_vectors(tmp_path / name, IDS, rows, encoder)
    assert {file: file.read_bytes() for file in files} == before


def test_safetensors_are_those_of_the_library(encoder: VectorEncoder, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    rows = unit_rows(len(IDS), encoder.dim)
    write_vectors(tmp_path / "v.safetensors", IDS, rows, encoder)
    np.testing.assert_array_equal(load_file(tmp_path / "v.safetensors")["vectors"], rows)


@pytest.mark.parametrize("changed", ["v.npy", "v.ids.csv"])
def test_files_that_do_not_belong_together(
    changed: str, encoder: VectorEncoder, tmp_path: Path
) -> None:
    write_vectors(tmp_path / "v.npy", list("ab"), unit_rows(2, encoder.dim), encoder)
    old = (tmp_path / changed).read_bytes()
    write_vectors(tmp_path / "v.npy", list("cd"), unit_rows(2, encoder.dim, seed=1), encoder)
    (tmp_path / changed).write_bytes(old)
    with pytest.raises(FormatError, match="were not written together"):
        read_vectors(tmp_path / "v.npy")


@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_leaves_what_was_there(
    name: str, encoder: VectorEncoder, tmp_path: Path
) -> None:
    write_vectors(tmp_path / name, list("ab"), unit_rows(2, encoder.dim), encoder)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # writing more fails
    try:
        with pytest.raises(AnnotatorError, match=f"{name} cannot be written"):
            ids = [f"i{i}" for i in range(300)]
            write_vectors(tmp_path / name, ids, unit_rows(300, encoder.dim), encoder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_where_nothing_can_be_written(encoder: VectorEncoder, tmp_path: Path) -> None:
    rows = unit_rows(1, encoder.dim)
    with pytest.raises(AnnotatorError, match=r"v.pt: .pt is none of the formats"):
        write_vectors(tmp_path / "v.pt", ["a"], rows, encoder)
    with pytest.raises(AnnotatorError, match="no folder"):
        write_vectors(tmp_path / "absent" / "v.npy", ["a"], rows, encoder)
    (tmp_path / "v.npz").mkdir()
    with pytest.raises(AnnotatorError, match=r"v.npz cannot be written"):
        write_vectors(tmp_path / "v.npz", ["a"], rows, encoder)
    assert [path.name for path in tmp_path.iterdir()] == ["v.npz"]


@pytest.mark.parametrize(
    "change",
    [{"fingerprint": {}}, {"fingerprint": 3}, {"blocks": [1, 2]}, {"blocks": None}, {"name": 1}],
)
def test_a_damaged_record_of_the_encoder(
    change: dict[str, object], encoder: VectorEncoder, tmp_path: Path
) -> None:
    recorded = json.dumps(json.loads(encoder.to_json()) | change)
    np.savez(tmp_path / "v.npz", vectors=unit_rows(1, encoder.dim), ids=["a"], encoder=recorded)
    with pytest.raises(FormatError, match="recorded of the encoder is damaged"):
        read_vectors(tmp_path / "v.npz")


def test_a_record_of_vectors_of_another_length(encoder: VectorEncoder, tmp_path: Path) -> None:
    recorded = encoder.to_json()
    np.savez(tmp_path / "v.npz", vectors=unit_rows(1, 3), ids=["a"], encoder=recorded)
    with pytest.raises(FormatError, match="belongs to other vectors"):
        read_vectors(tmp_path / "v.npz")
