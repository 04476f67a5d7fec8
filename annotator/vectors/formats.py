"""Readers of files of vectors: .npy, .npz, Parquet and safetensors.

Rows are mapped into memory where the file has them as they are, and copied to a temporary file
where they are compressed, so that memory does not grow with their number. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from annotator.errors import FormatError, first_line

#: What vectors and ids are called in files with several arrays, tensors or columns.
VECTORS = ("vectors", "vector", "embeddings", "embedding", "features")
IDS = (
    "ids", "id", "image_ids", "image_id", "names", "name", "image_name", "filenames", "filename",
    "file_name", "files", "file", "paths", "path", "image_path", "images", "image", "uid", "key",
    "index", "__index_level_0__",  # pandas's
)  # fmt: skip
ENCODER = "encoder"

_AT_ONCE = 4 << 20  # bytes that are copied at once
_FLOATS = {2: "float16", 4: "float32", 8: "float64"}
_KINDS_HINT = "Vectors come as .npy (numpy.save), .npz (numpy.savez), .parquet or .safetensors."


@dataclass(frozen=True)
class Stored:
    """The content of a file of vectors.

    Attributes:
        rows: float16, float32 or float64 [n, dim], n and dim at least 1; memory-mapped.
        ids: Id of each row, as the file has them; None if it has none.
        encoder: What the file says of its encoder (`VectorEncoder.from_json`); None for nothing.
        ids_in: Where the ids are, for messages.
    """

    rows: NDArray[np.floating[Any]]
    ids: list[str] | None = None
    encoder: str | None = None
    ids_in: str = ""


def read_stored(path: Path) -> Stored:
    """Read a file of vectors.

    - ``.npy``: an array [n, dim]. Beside ``x.npy``, ``x.ids.csv`` has the ids and
      ``x.encoder.json`` the encoder, if `annotator embed` wrote them.
    - ``.npz``: arrays ``vectors`` [n, dim], ``ids`` [n] and, if known, ``encoder``.
    - Parquet: a column ``vector`` of lists of equal length, and one ``id``; the encoder in the
      metadata of the schema.
    - ``.safetensors``: a tensor ``vectors`` [n, dim]; ids (a JSON list) and encoder in the
      metadata.

    Other names (`VECTORS`, `IDS`) will do, and for vectors the only array, column or tensor that
    fits. Ids need a name: the only texts may be captions.

    Raises:
        FormatError: The file cannot be read, is cut short, or has no such vectors.
    """
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "does not exist" if missing else f"cannot be read: {error.strerror}"
        raise FormatError(f"{path} {reason}", "Check the path.") from None
    readers: Mapping[bytes, Callable[[Path], Stored]] = {
        npy.MAGIC_PREFIX: _npy, b"PK\x03\x04": _npz, b"PAR1": _parquet,
    }  # fmt: skip
    reader = next((read for magic, read in readers.items() if start.startswith(magic)), None)
    if reader is None and path.suffix.lower() == ".safetensors":
        reader = _safetensors
    if reader is None:
        raise FormatError(f"{path} is no file of vectors", _KINDS_HINT)
    try:
        stored = reader(path)
    except FormatError:
        raise
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror or error}") from None
    if stored.rows.ndim != 2 or 0 in stored.rows.shape:
        shape = " x ".join(map(str, stored.rows.shape)) or "a single number"
        hint = "Give one row for each image; reshape(1, -1) makes a row of a single vector."
        raise FormatError(f"{path} has no table of vectors, but {shape}", hint)
    if stored.ids is not None and len(stored.ids) != len(stored.rows):
        raise FormatError(
            f"{stored.ids_in} has {len(stored.ids)} ids, but {path} has {len(stored.rows)} vectors",
            "Give one id for each row, in the order of the rows.",
        )
    return stored


def array_of(data: bytes, where: str) -> NDArray[np.floating[Any]]:
    """The floats [n, dim] of an .npy file in memory, without copying them.

    Args:
        data: The whole file.
        where: For messages.

    Raises:
        FormatError: It is no such file, holds something else, or is longer or shorter than it says.
    """
    file = io.BytesIO(data)
    dtype, shape, fortran = _npy_header(file, where)
    _check_floats(dtype, where)
    if len(shape) != 2 or 0 in shape:
        raise FormatError(f"{where} has no table of vectors", "Give one row for each image.")
    needed, there = dtype.itemsize * math.prod(shape), len(data) - file.tell()
    if needed != there:
        message = f"{where} announces {needed} bytes of vectors and has {there}"
        raise FormatError(message, "Write it again with numpy.save.")
    flat = np.frombuffer(data, dtype, offset=file.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def read_row_ids(path: Path) -> list[str]:
    """The id of each row of vectors: an .npy file of texts or whole numbers, a list or a table.

    Raises:
        FormatError: It cannot be read, or an id is repeated in a list or table.
    """
    if path.suffix.lower() != ".npy":
        from annotator.tables.formats import read_ids

        return read_ids(path)
    try:
        with path.open("rb") as file:
            dtype, shape, _ = _npy_header(file, str(path))
            _refuse_objects(dtype, str(path))
            if len(shape) != 1:
                raise FormatError(f"{path} has no list of ids", "Give one id for each row.")
            file.seek(0)
            return _texts(npy.read_array(file, allow_pickle=False), str(path))
    except (OSError, ValueError) as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else first_line(error)
        raise FormatError(f"{path} cannot be read: {reason}", "Check the file.") from None


def ids_beside(path: Path) -> Path:
    """Where `annotator embed` writes the ids of an .npy file."""
    return path.with_suffix(".ids.csv")


def encoder_beside(path: Path) -> Path:
    """Where `annotator embed` writes the encoder of an .npy file."""
    return path.with_suffix(".encoder.json")


def digest(path: Path) -> str:
    """sha256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# .npy


def _npy(path: Path) -> Stored:
    with path.open("rb") as file:
        dtype, shape, fortran = _npy_header(file, str(path))
        offset = file.tell()
    rows = _mapped(path, str(path), dtype, shape, offset, fortran)
    ids, encoder = ids_beside(path), encoder_beside(path)
    if not encoder.exists():
        return Stored(rows)
    from annotator.tables.formats import read_ids

    try:
        recorded = json.loads(encoder.read_text(encoding="utf-8"))
        together = recorded["files"] == {file.name: digest(file) for file in (path, ids)}
        text = json.dumps(recorded["encoder"])
    except (KeyError, TypeError, ValueError, OSError, RecursionError):
        together = False
    if not together:
        raise FormatError(
            f"{path}, {ids.name} and {encoder.name} were not written together",
            f"Write them again (annotator embed), or delete {encoder.name} and give --ids.",
        )
    return Stored(rows, read_ids(ids), text, str(ids))


def _npy_header(file: IO[bytes], where: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Type, shape and order of an array whose data follow.

    Raises:
        FormatError: It cannot be read.
    """
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except Exception:  # a header is a literal of Python, which fails in many ways
        raise FormatError(
            f"{where} cannot be read as an array of numpy: its header is damaged",
            "Write it again with numpy.save.",
        ) from None
    if any(side < 0 for side in shape):
        raise FormatError(f"{where} is damaged: its shape is {shape}", "Write it again.")
    return dtype, shape, fortran


def _mapped(
    path: Path,
    where: str,
    dtype: np.dtype[Any],
    shape: Sequence[int],
    offset: int,
    fortran: bool = False,
    end: int | None = None,
) -> NDArray[Any]:
    """Map an array of floats in a file, after comparing its size with the file's.

    Raises:
        FormatError: It is no array of floats, or the file is cut short.
    """
    _check_floats(dtype, where)
    needed = dtype.itemsize * math.prod(shape)
    there = (path.stat().st_size if end is None else end) - offset
    if needed > there:
        raise FormatError(
            f"{where} is cut short: {needed} bytes of vectors are announced, {max(there, 0)} are "
            "there",
            "Write or fetch it again.",
        )
    if needed == 0:
        return np.zeros(tuple(shape), dtype)
    return np.memmap(path, dtype, "r", offset, tuple(shape), "F" if fortran else "C")


def _refuse_objects(dtype: np.dtype[Any], where: str) -> None:
    if dtype.hasobject:
        raise FormatError(
            f"{where} is an array of Python objects, which only unpickling would read",
            "Vectors: numpy.stack(vectors).astype('float32'). Ids: numpy.array(ids, dtype=str).",
        )


def _check_floats(dtype: np.dtype[Any], where: str) -> None:
    _refuse_objects(dtype, where)
    if dtype.kind != "f" or dtype.itemsize not in _FLOATS:
        raise FormatError(
            f"{where} is of type {dtype}, not of float16, float32 or float64",
            "Convert the vectors: vectors.astype('float32').",
        )


# .npz


def _npz(path: Path) -> Stored:
    try:
        with zipfile.ZipFile(path) as archive:
            headers = {}
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    name = info.filename.removesuffix(".npy")
                    with archive.open(info) as member:
                        dtype, shape, fortran = _npy_header(member, f"{path}, array {name}")
                        headers[name] = (info, dtype, shape, fortran, member.tell())
            kinds = {name: (dtype, len(shape)) for name, (_, dtype, shape, *_) in headers.items()}
            chosen = _chosen(
                VECTORS, kinds, [n for n, (dtype, ndim) in kinds.items() if _is_table(dtype, ndim)]
            )
            if chosen is None:
                raise _nothing(path, "array", "vectors", "[n, dim] of floats", kinds)
            rows = _member(path, archive, f"{path}, array {chosen}", *headers[chosen])
            named = _chosen(IDS, [n for n, (_, ndim) in kinds.items() if ndim == 1], ())
            ids = None
            if named is not None:
                _refuse_objects(headers[named][1], f"{path}, array {named}")
                with archive.open(headers[named][0]) as member:
                    ids = _texts(npy.read_array(member, allow_pickle=False), f"{path}, {named}")
            encoder = None
            if ENCODER in headers:
                with archive.open(headers[ENCODER][0]) as member:
                    encoder = str(npy.read_array(member, allow_pickle=False))
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        hint = "Write it again with numpy.savez, or fetch it again."
        raise FormatError(f"{path} is damaged: {first_line(error)}", hint) from None
    return Stored(rows, ids, encoder, f"{path}, array {named}")


def _member(
    path: Path,
    archive: zipfile.ZipFile,
    where: str,
    info: zipfile.ZipInfo,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    fortran: bool,
    header: int,
) -> NDArray[Any]:
    """The array of a member: mapped if it is stored as it is, else copied."""
    if info.compress_type == zipfile.ZIP_STORED:
        with path.open("rb") as file:
            file.seek(info.header_offset + 26)  # PKWARE's APPNOTE, 4.3.7
            name, extra = np.frombuffer(file.read(4), "<u2").tolist()
        start = info.header_offset + 30 + name + extra
        return _mapped(path, where, dtype, shape, start + header, fortran, start + info.file_size)
    _check_floats(dtype, where)
    if header + dtype.itemsize * math.prod(shape) != info.file_size:
        raise FormatError(f"{where} is not as long as it says", "Write it again.")
    with archive.open(info) as member:
        member.read(header)
        pieces = iter(lambda: member.read(_AT_ONCE), b"")
        return _copied(pieces, dtype, shape, "F" if fortran else "C")


def _copied(
    pieces: Iterable[bytes],
    dtype: np.dtype[Any],
    shape: Sequence[int],
    order: Literal["C", "F"] = "C",
) -> NDArray[Any]:
    """An array in an unnamed temporary file, which is gone when it is not used any more."""
    with tempfile.TemporaryFile() as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        if math.prod(shape) == 0:
            return np.zeros(tuple(shape), dtype)
        return np.memmap(file, dtype, "r", 0, tuple(shape), order)


# Parquet


def _parquet(path: Path) -> Stored:
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            return _parquet_columns(path, file)
    except FormatError:
        raise
    except Exception as error:  # pyarrow's are of many kinds
        message = f"{path} cannot be read as a Parquet file: {first_line(error)}"
        raise FormatError(message, "Write or fetch it again.") from None


def _parquet_columns(path: Path, file: Any) -> Stored:
    from pyarrow import types

    schema = file.schema_arrow
    lists = [f.name for f in schema if _list_of_floats(f.type) is not None]
    kinds = {field.name: str(field.type) for field in schema}
    vectors = _chosen(VECTORS, kinds, lists)
    if vectors is None or vectors not in lists:
        raise _nothing(path, "column", "vector", "of lists of floats", kinds)
    texts = [
        f.name
        for f in schema
        if types.is_string(f.type) or types.is_large_string(f.type) or types.is_integer(f.type)
    ]
    named = _chosen(IDS, texts, ())
    dtype = _list_of_floats(schema.field(vectors).type)
    assert dtype is not None
    ids: list[str] = []
    columns = [vectors] if named is None else [named, vectors]

    def lists_of() -> Iterator[Any]:
        for batch in file.iter_batches(1024, columns=columns):
            if named is not None:
                ids.extend(_texts(batch.column(named).to_pylist(), f"{path}, column {named}"))
            yield batch.column(vectors)

    rows = _rows_of_lists(path, lists_of(), dtype)
    encoder = (schema.metadata or {}).get(ENCODER.encode())
    return Stored(
        rows,
        None if named is None else ids,
        None if encoder is None else encoder.decode("utf-8", "replace"),
        f"{path}, column {named}",
    )


def _list_of_floats(kind: Any) -> np.dtype[Any] | None:
    """The numpy type of the values of a list column; None for another column."""
    from pyarrow import types

    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if not is_list or not types.is_floating(kind.value_type):
        return None
    return np.dtype(str(kind.value_type.to_pandas_dtype().__name__))


def _rows_of_lists(path: Path, columns: Iterable[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The lists of a column as rows; one that is null or empty becomes a row of nan.

    Raises:
        FormatError: Their lengths differ.
    """
    dim = n = 0

    def pieces() -> Iterator[bytes]:
        nonlocal dim, n
        for column in columns:
            lists = column.drop_null()
            flat = lists.flatten().to_numpy(zero_copy_only=False).astype(dtype, copy=False)
            lengths = np.zeros(len(column), np.int64)
            given = np.asarray(column.is_valid())
            lengths[given] = [len(values) for values in lists]
            if dim == 0 and lengths.any():
                dim = int(lengths[lengths > 0][0])
                yield np.full((n, dim), np.nan, dtype).tobytes()  # of rows before it
            other = np.flatnonzero((lengths != dim) & (lengths > 0))
            if len(other):
                raise FormatError(
                    f"{path} row {n + other[0]}: the vector has length {lengths[other[0]]}, "
                    f"others have {dim}",
                    "Give vectors of one encoder in a file.",
                )
            rows = np.full((len(column), dim), np.nan, dtype)
            rows[lengths > 0] = flat.reshape(-1, dim) if dim else flat
            n += len(column)
            yield rows.tobytes()

    with tempfile.TemporaryFile() as spool:
        for piece in pieces():
            spool.write(piece)
        spool.flush()
        if n * dim == 0:
            return np.zeros((n, dim), dtype)
        return np.memmap(spool, dtype, "r", 0, (n, dim))


# safetensors


def _safetensors(path: Path) -> Stored:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:  # checks the header against the file
            metadata = dict(file.metadata() or {})
        with path.open("rb") as file:
            (length,) = np.frombuffer(file.read(8), "<u8").tolist()
            tensors = json.loads(file.read(length))
    except (SafetensorError, ValueError) as error:
        message = f"{path} cannot be read as safetensors: {first_line(error)}"
        raise FormatError(message, "Write or fetch it again.") from None
    tensors.pop("__metadata__", None)
    kinds = {name: f"{t['dtype']} {t['shape']}" for name, t in tensors.items()}
    tables = [n for n, t in tensors.items() if len(t["shape"]) == 2 and t["dtype"] in _TENSORS]
    chosen = _chosen(VECTORS, kinds, tables)
    if chosen is None:
        raise _nothing(path, "tensor", "vectors", "[n, dim] of floats", kinds)
    where, tensor = f"{path}, tensor {chosen}", tensors[chosen]
    if tensor["dtype"] not in _TENSORS:
        hint = "Convert the vectors to float32."
        raise FormatError(f"{where} is of type {tensor['dtype']}, not of floats", hint)
    offset = 8 + length + tensor["data_offsets"][0]
    if tensor["dtype"] == "BF16":
        rows = _from_bfloat16(path, offset, tensor["shape"])
    else:
        rows = _mapped(path, where, np.dtype(_TENSORS[tensor["dtype"]]), tensor["shape"], offset)
    return Stored(rows, _ids_of(metadata, path), metadata.get(ENCODER), f"{path}, its metadata")


_TENSORS = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}


def _from_bfloat16(path: Path, offset: int, shape: Sequence[int]) -> NDArray[Any]:
    """A tensor of bfloat16, which are the upper halves of float32, and unknown to numpy."""
    if math.prod(shape) == 0:
        return np.zeros(tuple(shape), np.float32)
    halves = np.memmap(path, "<u2", "r", offset, (math.prod(shape),))
    parts = range(0, len(halves), _AT_ONCE)
    widened = ((halves[i : i + _AT_ONCE].astype("<u4") << 16).tobytes() for i in parts)
    return _copied(widened, np.dtype("<f4"), shape)


def _ids_of(metadata: Mapping[str, str], path: Path) -> list[str] | None:
    listed = metadata.get("ids")
    if listed is None:
        return None
    try:
        ids = json.loads(listed)
    except (ValueError, RecursionError):
        ids = None
    if not isinstance(ids, list):
        raise FormatError(f"{path}: the ids in its metadata are no JSON list", "json.dumps(ids)")
    return _texts(ids, f"{path}, its metadata")


# All of them


def _is_table(dtype: np.dtype[Any], ndim: int) -> bool:
    return dtype.kind == "f" and ndim == 2


def _chosen(names: Sequence[str], known: Iterable[str], fitting: Sequence[str]) -> str | None:
    """The one of `known` that has the first of `names`, or the only fitting one."""
    by_name = {name.casefold(): name for name in reversed(list(known))}
    named = next((by_name[name] for name in names if name in by_name), None)
    if named is not None:
        return named
    return fitting[0] if len(fitting) == 1 else None


def _nothing(
    path: Path, what: str, name: str, kind: str, found: Mapping[str, object]
) -> FormatError:
    listed = ", ".join(f"{key} ({_in_words(value)})" for key, value in list(found.items())[:10])
    return FormatError(
        f"{path} has no {what} {name} {kind}, nor a single one that could be meant",
        f"It has: {listed or 'nothing'}. Name the {what} of vectors {name!r}.",
    )


def _in_words(kind: object) -> str:
    return f"{kind[0]}, {kind[1]} axes" if isinstance(kind, tuple) else str(kind)


def _texts(values: Any, where: str) -> list[str]:
    """Ids as text; whole numbers are written as such.

    Raises:
        FormatError: One of them is neither.
    """
    if isinstance(values, np.ndarray):
        values = values.ravel().tolist()
    texts = []
    for row, value in enumerate(values):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if isinstance(text, bool) or not isinstance(text, (str, int)):
            raise FormatError(f"{where}, row {row}: {value!r} is no id", "Give texts or numbers.")
        texts.append(str(text))
    return texts
