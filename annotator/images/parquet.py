"""Images, concepts and captions in Parquet files, as ROCOv2 is published on the model hub.

Columns: ``image`` (struct<bytes, path> or plain bytes), ``image_id``, ``caption`` and ``cui`` (a
list of strings). Images are read on demand, with a few hundred of them in memory at most.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from typing import Any

from annotator.errors import AnnotatorError, FormatError, ImageError
from annotator.ids import image_id, printable
from annotator.images import remote
from annotator.images.ref import ImageRef, check_file_size

_SLICE = 64
_KEPT_ROWS = 256
_COLUMNS_HINT = "Expected are the columns image, image_id, caption and cui."


def parquet_images(paths: Sequence[str]) -> list[ImageRef]:
    """One `ImageRef` per row, in the order of paths and rows; images are not read.

    Raises:
        FormatError: A file is not Parquet, has no column ``image``, or a row without an id.
    """
    reader = _ImageReader(paths)
    refs = []
    for number, path in enumerate(paths):
        _check_image_column(path)
        for row, key in enumerate(_ids(path)):
            where = f"{printable(path)} row {row}"
            refs.append(ImageRef(key, where, partial(reader.read, number, row)))
    return refs


def read_concepts(paths: Sequence[str]) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Concepts and captions by image id; see `annotator.images.sources.parquet_concepts`."""
    from pyarrow import types

    concepts: dict[str, tuple[str, ...]] = {}
    captions: dict[str, str] = {}
    for path in paths:
        schema = _schema(path)
        kind = schema.field("cui").type if "cui" in schema.names else None
        if kind is None or not (types.is_list(kind) or types.is_large_list(kind)):
            raise FormatError(f"{printable(path)}: no lists in a column `cui`", _COLUMNS_HINT)
        ids = _ids(path)
        for key, cuis in zip(ids, _column(path, "cui"), strict=True):
            concepts.setdefault(key, tuple(str(cui) for cui in cuis or () if cui is not None))
        if "caption" in schema.names:
            for key, text in zip(ids, _column(path, "caption"), strict=True):
                captions.setdefault(key, str(text or ""))
    return dict(sorted(concepts.items())), dict(sorted(captions.items()))


class _ImageReader:
    """Reads single cells of the column ``image``, from any thread.

    A file is decoded in slices of rows, of which the newest are kept. As long as reading goes
    forward, give or take what is kept, each slice is decoded once; going back starts its row group
    again.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = tuple(paths)
        self._lock = threading.Lock()
        # File, first row and cells of each slice, the newest last, and how many rows these are.
        self._slices: deque[tuple[int, int, Any]] = deque()
        self._kept = 0
        self._file: tuple[int, Any, list[int]] | None = None  # number, file, first rows of groups
        self._place: tuple[int, int, int] | None = None  # file, row group, next row
        self._batches: Iterator[Any] = iter(())

    def __reduce__(self) -> tuple[Any, ...]:
        # Only the paths are sent to another process, which reads the files itself.
        return _reader_of_thread, (self._paths,)

    def read(self, number: int, row: int) -> bytes:
        """The bytes of the image in a row of the file with that number.

        Raises:
            ImageError: The file cannot be read any more, or the cell holds no image.
        """
        with self._lock:
            try:
                value = self._cell(number, row).as_py()
            except AnnotatorError:
                raise
            except Exception:  # pyarrow's, or those of the store that the file is in
                self._file = self._place = None  # the iterator is of no more use
                message = "its part of the Parquet file cannot be read"
                raise ImageError(message, "Check the file, and fetch it again.") from None
        content = value.get("bytes") if isinstance(value, dict) else value
        if not content:
            raise ImageError("no image in this row", "Leave the row out.", "empty")
        check_file_size(len(content))
        return bytes(content)

    def _cell(self, number: int, row: int) -> Any:
        for file, first, cells in self._slices:
            if file == number and first <= row < first + len(cells):
                return cells[row - first]
        source, starts = self._open(number)
        group = bisect_right(starts, row) - 1
        if self._place is None or self._place[:2] != (number, group) or self._place[2] > row:
            self._batches = source.iter_batches(_SLICE, row_groups=[group], columns=["image"])
            self._place = (number, group, starts[group])
        while True:
            first = self._place[2]
            cells = next(self._batches).column(0)
            self._place = (number, group, first + len(cells))
            self._keep(number, first, cells)
            if row < first + len(cells):
                return cells[row - first]

    def _keep(self, number: int, first: int, cells: Any) -> None:
        self._slices.append((number, first, cells))
        self._kept += len(cells)
        while self._kept > _KEPT_ROWS and len(self._slices) > 1:
            self._kept -= len(self._slices.popleft()[2])

    def _open(self, number: int) -> tuple[Any, list[int]]:
        """The file and the first row of each of its row groups; one is open at a time."""
        if self._file is None or self._file[0] != number:
            source = _parquet_file(self._paths[number])
            groups = range(source.metadata.num_row_groups)
            sizes = (source.metadata.row_group(group).num_rows for group in groups)
            self._file = (number, source, [0, *accumulate(sizes)])
        return self._file[1:]


_of_thread = threading.local()


def _reader_of_thread(paths: tuple[str, ...]) -> _ImageReader:
    """This thread's reader of these files, with its slices and position."""
    if getattr(_of_thread, "paths", None) != paths:
        _of_thread.paths, _of_thread.reader = paths, _ImageReader(paths)
    reader: _ImageReader = _of_thread.reader
    return reader


def _parquet_file(path: str) -> Any:
    from pyarrow.parquet import ParquetFile

    # Read piece by piece: otherwise all the images of a row group would be in memory at once. Not
    # mapped into memory: a mapped file that shrinks ends the process.
    source = remote.open_file(path) if remote.is_url(path) else path
    return ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """An open file, whose failures become `FormatError`."""
    try:
        with _parquet_file(path) as file:
            yield file
    except AnnotatorError:
        raise
    except Exception:  # pyarrow's, or those of the store that the file is in
        message = f"{printable(path)} cannot be read as a Parquet file"
        raise FormatError(message, "Check its access rights, or fetch it again.") from None


def _schema(path: str) -> Any:
    with _opened(path) as file:
        return file.schema_arrow


def _read_table(path: str, column: str) -> Any:
    """One column as a table, which has no columns where the file has no such column."""
    with _opened(path) as file:
        return file.read(columns=[column])


def _column(path: str, name: str) -> list[Any]:
    return list(_read_table(path, name).column(0).to_pylist())


def _check_image_column(path: str) -> None:
    from pyarrow import types

    schema = _schema(path)
    kind = schema.field("image").type if "image" in schema.names else None
    if kind is not None and types.is_struct(kind):
        kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else None
    if kind is None or not (types.is_binary(kind) or types.is_large_binary(kind)):
        message = f"{printable(path)}: no column `image` of bytes or struct<bytes, path>"
        raise FormatError(message, _COLUMNS_HINT)


def _ids(path: str) -> list[str]:
    """The image id of each row: `image_id`, or else the name in the image's path."""
    table = _read_table(path, "image_id")
    if table.num_columns:
        values = table.column(0).to_pylist()
    else:
        table = _read_table(path, "image.path")
        if not table.num_columns:
            message = f"{printable(path)}: no column `image_id`, and no path in `image`"
            raise FormatError(message, _COLUMNS_HINT)
        values = [cell and cell["path"] for cell in table.column(0).to_pylist()]
    for row, value in enumerate(values):
        if value is None or value == "":
            raise FormatError(f"{printable(path)} row {row}: no image id", _COLUMNS_HINT)
    return [image_id(str(value)) for value in values]
