"""Segments: rows that were written together, their files, and joining them.

An index begins with one segment, the base, whose files have no prefix; each `add` brings another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.labels import LabelTable
from index.manifest import load_array

# All thumbnails one after the other, and where each one ends: uint8[bytes] and int64[n].
THUMBNAILS, THUMBNAIL_ENDS = "thumbnails", "thumbnails.ends"
CONTENT = "content"  # uint8[n, 32]: the sha256 of each image file
ROW_ARRAYS = (THUMBNAILS, THUMBNAIL_ENDS, CONTENT)
LABEL_FILES = ("labels.indptr.npy", "labels.indices.npy", "cuis.tsv")
_UNWRITABLE = re.compile(r"[\t\r\n\ud800-\udfff]")  # in a line of a UTF-8 file with tabs


@dataclass(frozen=True)
class Segment:
    """Rows and what belongs to them.

    Attributes:
        vectors: float32[n, dim], unit norm.
        ids: Image id of each row.
        labels: CUIs of each row.
        names: Name of each CUI that has one.
        columns: Further text of each row by column name.
        arrays: Those of `ROW_ARRAYS` that there are.
    """

    vectors: NDArray[np.float32]
    ids: Sequence[str]
    labels: LabelTable
    names: Mapping[str, str]
    columns: Mapping[str, Sequence[str]]
    arrays: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.ids)

    def picture(self, row: int) -> bytes:
        """The thumbnail of a row, a JPEG; empty where there is none."""
        ends = self.arrays.get(THUMBNAIL_ENDS)
        if ends is None:
            return b""
        start = int(ends[row - 1]) if row else 0
        return self.arrays[THUMBNAILS][start : int(ends[row])].tobytes()


def check_rows(
    n: int,
    ids: Sequence[str],
    concepts: Sequence[Sequence[str]] | LabelTable,
    columns: Mapping[str, Sequence[str]],
) -> None:
    """Refuse parts that do not have one entry a row, or that cannot be written as lines.

    Raises:
        IndexProblem: They do not fit, ids repeat, or a text cannot be written.
    """
    for name, rows in {"ids": ids, "concepts": concepts, **columns}.items():
        if len(rows) != n:
            raise IndexProblem(f"{n} vectors but {len(rows)} {name}.")
    if len(set(ids)) != n:
        raise IndexProblem("Image ids repeat.")
    cuis: Iterable[str] = (
        concepts.cuis
        if isinstance(concepts, LabelTable)
        else {cui for row in concepts for cui in row}
    )
    for what, texts in (("image id", ids), ("CUI", cuis)):
        bad = next((text for text in texts if _UNWRITABLE.search(text)), None)
        if bad is not None:
            raise IndexProblem(
                f"The {what} {bad!r} holds a tab, a line break or an unpaired surrogate."
            )


def write_rows(folder: Path, segment: Segment, prefix: str = "") -> None:
    """Write everything of a segment but its vectors."""
    write_labels(folder, segment, prefix)
    _write_lines(folder / f"{prefix}ids.txt", segment.ids)
    for name, column in segment.columns.items():
        _write_lines(folder / f"{prefix}{name}.jsonl", (json.dumps(text) for text in column))
    for name, array in segment.arrays.items():
        np.save(folder / f"{prefix}{name}.npy", array, allow_pickle=False)


def write_labels(folder: Path, segment: Segment, prefix: str = "") -> None:
    """Write the labels of a segment: `LABEL_FILES`."""
    labels, names = segment.labels, segment.names
    np.save(folder / f"{prefix}labels.indptr.npy", labels.indptr, allow_pickle=False)
    np.save(folder / f"{prefix}labels.indices.npy", labels.indices, allow_pickle=False)
    _write_lines(
        folder / f"{prefix}cuis.tsv", (f"{c}\t{_one_line(names.get(c, ''))}" for c in labels.cuis)
    )


def read_segment(
    folder: Path,
    prefix: str,
    *,
    rows: int,
    dim: int,
    columns: Sequence[str],
    arrays: Sequence[str],
) -> Segment:
    """Read a segment whose files were checked; vectors and arrays are mapped.

    Raises:
        IndexProblem: Its parts do not have `rows` rows, or the vectors another length than `dim`.
        ValueError, EOFError, OSError: A file is not what its name says.
    """
    vectors = load_array(folder / f"{prefix}vectors.npy")
    lines = [line.partition("\t") for line in _read_lines(folder / f"{prefix}cuis.tsv")]
    labels = LabelTable(
        np.load(folder / f"{prefix}labels.indptr.npy", allow_pickle=False),
        np.load(folder / f"{prefix}labels.indices.npy", allow_pickle=False),
        tuple(cui for cui, _, _ in lines),
    )
    segment = Segment(
        vectors=vectors,
        ids=tuple(_read_lines(folder / f"{prefix}ids.txt")),
        labels=labels,
        names={cui: name for cui, _, name in lines if name},
        columns={
            name: tuple(
                str(json.loads(line)) for line in _read_lines(folder / f"{prefix}{name}.jsonl")
            )
            for name in columns
        },
        arrays={name: load_array(folder / f"{prefix}{name}.npy") for name in arrays},
    )
    check_segment(segment, rows, dim)
    return segment


def check_segment(segment: Segment, rows: int, dim: int) -> None:
    """Refuse a segment whose parts do not have `rows` rows, or the vectors another length.

    Raises:
        IndexProblem: Says which part.
    """
    counts = {
        "vectors": len(segment.vectors),
        "labels": len(segment.labels),
        "ids": len(set(segment.ids)),
    }
    counts |= {name: len(column) for name, column in segment.columns.items()}
    wrong = {name: count for name, count in counts.items() if count != rows}
    shape = segment.vectors.shape
    if wrong or shape[1:] != (dim,):
        found = ", ".join(f"{count} {name}" for name, count in wrong.items())
        raise IndexProblem(
            f"{rows} rows of {dim} dimensions were expected; there are "
            f"{found or f'vectors of shape {shape}'}."
        )
    content = segment.arrays.get(CONTENT)
    if content is not None and (content.dtype, content.shape) != (np.dtype(np.uint8), (rows, 32)):
        raise IndexProblem("The content keys do not fit the rows.")
    ends, pictures = segment.arrays.get(THUMBNAIL_ENDS), segment.arrays.get(THUMBNAILS)
    if ends is None and pictures is None:
        return
    fits = (
        ends is not None
        and pictures is not None
        and (pictures.dtype, pictures.ndim) == (np.dtype(np.uint8), 1)
        and (ends.dtype, ends.shape) == (np.dtype(np.int64), (rows,))
        and int(ends[0]) >= 0
        and not np.any(np.diff(ends) < 0)
        and int(ends[-1]) == len(pictures)
    )
    if not fits:
        raise IndexProblem("The small pictures do not fit the rows.")


def joined(segments: Sequence[Segment], live: Sequence[NDArray[np.int64]]) -> Segment:
    """The rows `live` of several segments as one, in memory but for the vectors' own length.

    Args:
        segments: With the same columns.
        live: int64[m] for each segment, ascending rows of it.
    """
    pairs = list(zip(segments, live, strict=True))
    arrays: dict[str, NDArray[Any]] = {}
    if any(THUMBNAIL_ENDS in segment.arrays for segment in segments):
        pictures = [segment.picture(row) for segment, rows in pairs for row in rows.tolist()]
        arrays[THUMBNAILS] = np.frombuffer(b"".join(pictures), np.uint8)
        arrays[THUMBNAIL_ENDS] = np.cumsum([len(p) for p in pictures]).astype(np.int64)
    if all(CONTENT in segment.arrays for segment in segments):
        arrays[CONTENT] = np.concatenate([segment.arrays[CONTENT][rows] for segment, rows in pairs])
    return Segment(
        vectors=np.concatenate([segment.vectors[rows] for segment, rows in pairs]),
        ids=[segment.ids[row] for segment, rows in pairs for row in rows.tolist()],
        labels=LabelTable.joined([segment.labels.take(rows) for segment, rows in pairs]),
        names=joined_names(segments),
        columns={
            name: [segment.columns[name][row] for segment, rows in pairs for row in rows.tolist()]
            for name in segments[0].columns
        },
        arrays=arrays,
    )


def joined_names(segments: Sequence[Segment]) -> dict[str, str]:
    """Name of each CUI in any of the segments; the newest counts."""
    names: dict[str, str] = {}
    for segment in segments:
        names |= segment.names
    return names


def npy_header(n: int, dim: int) -> bytes:
    """The header of a .npy file (NumPy format 1.0), always 128 bytes so that n can be set last."""
    fields = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({n}, {dim}), }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + fields.ljust(117).encode() + b"\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(f"{line}\n" for line in lines)


def _read_lines(path: Path) -> list[str]:
    return path.read_bytes().decode("utf-8").split("\n")[:-1]
