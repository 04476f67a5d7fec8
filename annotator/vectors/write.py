"""Writers of files of vectors: .npy, .npz, Parquet and safetensors.

The encoder is recorded with them, so that they can be used in its place. A file is there whole or
not at all, and memory does not grow with the number of vectors.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annotator.errors import AnnotatorError
from annotator.files import whole_file
from annotator.vectors.encoder import VectorEncoder
from annotator.vectors.formats import ENCODER, digest, encoder_beside, ids_beside

_AT_ONCE = 8192  # rows


def check_output(path: Path) -> None:
    """Refuse a file that `write_vectors` could not write.

    Raises:
        AnnotatorError: Its extension is none of those of vectors, or there is no such folder.
    """
    if path.suffix.lower() not in _WRITERS:
        raise AnnotatorError(
            f"{path}: {path.suffix or 'a file without extension'} is none of the formats of "
            "vectors.",
            f"Write one of {', '.join(_WRITERS)}.",
        )
    if not path.parent.is_dir():
        raise AnnotatorError(f"There is no folder {path.parent}.", "Make it first.")


def write_vectors(
    path: Path, ids: Sequence[str], vectors: NDArray[np.float32], encoder: VectorEncoder
) -> list[Path]:
    """Write vectors with their ids and encoder, in the format of the extension.

    Beside an .npy file, the ids are in ``.ids.csv`` and the encoder in ``.encoder.json``.

    Args:
        path: File to write or replace, with one of the extensions of `check_output`.
        ids: Id of each row.
        vectors: float32[len(ids), dim].
        encoder: Encoder of the vectors.

    Returns:
        The files written.

    Raises:
        AnnotatorError: As `check_output`, or a file cannot be written.
    """
    check_output(path)
    try:
        return _WRITERS[path.suffix.lower()](path, ids, vectors, encoder)
    except OSError as error:
        raise AnnotatorError(
            f"{path} cannot be written: {error.strerror or error}.",
            "Check that its folder is writable and has free space.",
        ) from error


def _npy(
    path: Path, ids: Sequence[str], vectors: NDArray[np.float32], encoder: VectorEncoder
) -> list[Path]:
    files = (path, ids_beside(path), encoder_beside(path))
    with ExitStack() as stack:
        # Left in reverse: vectors and ids are in place before the file that vouches for them.
        new_encoder, new_ids, new_vectors = (
            stack.enter_context(whole_file(file)) for file in reversed(files)
        )
        np.save(new_vectors, vectors, allow_pickle=False)
        with new_ids.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
            writer.writerow(["ID"])
            writer.writerows([id_] for id_ in ids)
        digests = {path.name: digest(new_vectors), ids_beside(path).name: digest(new_ids)}
        recorded = {"encoder": json.loads(encoder.to_json()), "files": digests}
        new_encoder.write_text(json.dumps(recorded, indent=2) + "\n", encoding="utf-8")
    return list(files)


def _npz(
    path: Path, ids: Sequence[str], vectors: NDArray[np.float32], encoder: VectorEncoder
) -> list[Path]:
    recorded = np.array(encoder.to_json())
    with whole_file(path) as temporary:
        np.savez(temporary, vectors=vectors, ids=np.array(ids, str), encoder=recorded)
    return [path]


def _parquet(
    path: Path, ids: Sequence[str], vectors: NDArray[np.float32], encoder: VectorEncoder
) -> list[Path]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    dim = vectors.shape[1]
    fields = [("id", pa.string()), ("vector", pa.list_(pa.float32(), dim))]
    schema = pa.schema(fields, {ENCODER: encoder.to_json()})
    # Vectors hardly compress, and dictionaries of them only take memory.
    with (
        whole_file(path) as temporary,
        ParquetWriter(temporary, schema, use_dictionary=False, compression="none") as writer,
    ):
        for start in range(0, len(ids), _AT_ONCE):
            part = np.ascontiguousarray(vectors[start : start + _AT_ONCE])
            lists = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), dim)
            texts = pa.array(ids[start : start + _AT_ONCE], pa.string())
            writer.write_batch(pa.record_batch([texts, lists], schema))
    return [path]


def _safetensors(
    path: Path, ids: Sequence[str], vectors: NDArray[np.float32], encoder: VectorEncoder
) -> list[Path]:
    # As the library writes it, which would hold all vectors in memory.
    header = {
        "__metadata__": {"ids": json.dumps(list(ids)), ENCODER: encoder.to_json()},
        "vectors": {
            "dtype": "F32",
            "shape": vectors.shape,
            "data_offsets": [0, 4 * vectors.size],
        },
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, len(ids), _AT_ONCE):
            file.write(np.ascontiguousarray(vectors[start : start + _AT_ONCE], "<f4").tobytes())
    return [path]


_Writer = Callable[[Path, Sequence[str], NDArray[np.float32], VectorEncoder], list[Path]]
_WRITERS: dict[str, _Writer] = {
    ".parquet": _parquet,
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
}
