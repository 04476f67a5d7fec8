"""Files of vectors as their users write them, for the tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating]
Write = Callable[[Path, Rows, Sequence[str]], "tuple[Path, Path | None]"]


def npy(folder: Path, rows: Rows, ids: Sequence[str]) -> tuple[Path, Path | None]:
    np.save(folder / "v.npy", rows)
    (folder / "ids.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    return folder / "v.npy", folder / "ids.txt"


def npz(folder: Path, rows: Rows, ids: Sequence[str]) -> tuple[Path, Path | None]:
    np.savez(folder / "v.npz", ids=np.array(ids), vectors=rows)
    return folder / "v.npz", None


def compressed_npz(folder: Path, rows: Rows, ids: Sequence[str]) -> tuple[Path, Path | None]:
    np.savez_compressed(folder / "v.npz", np.asfortranarray(rows), ids=np.array(ids))
    return folder / "v.npz", None


def parquet(folder: Path, rows: Rows, ids: Sequence[str]) -> tuple[Path, Path | None]:
    """As pandas writes arrays in a column: lists of variable length."""
    import pandas as pd

    pd.DataFrame({"id": list(ids), "embedding": list(rows)}).to_parquet(folder / "v.parquet")
    return folder / "v.parquet", None


def fixed_parquet(folder: Path, rows: Rows, ids: Sequence[str]) -> tuple[Path, Path | None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    pq.write_table(pa.table({"n": list(range(len(ids))), "image_id": list(ids), "x": lists}),
                   folder / "v.parquet", row_group_size=2)  # fmt: skip
    return folder / "v.parquet", None


def safetensors(folder: Path, rows: Rows, ids: Sequence[str]) -> tuple[Path, Path | None]:
    from safetensors.numpy import save_file

    metadata = {"ids": json.dumps(list(ids))}
    other = np.zeros(3, np.float32)
    save_file({"vectors": rows, "a": other}, folder / "v.safetensors", metadata)
    return folder / "v.safetensors", None


WRITERS: list[Write] = [npy, npz, compressed_npz, parquet, fixed_parquet, safetensors]


def unit_rows(n: int = 7, dim: int = 5, seed: int = 0) -> NDArray[np.float32]:
    """Random float32 rows of unit norm."""
    rows = np.random.default_rng(seed).normal(size=(n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
