"""Score files: a probability, or share of votes, for each image and concept.

The format is NumPy's `.npz` with the arrays `ids` (text[n]), `concepts` (text[c]) and `scores`
(float32[n, c], in 0..1), as a classifier saves it with one call of `numpy.savez`.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.concept_ids import concept_id
from annotator.errors import AnnotatorError, FormatError
from annotator.ids import match_ids
from annotator.tables.table import read_table

_ID_NAMES = ("ids", "id", "image_ids", "images")
_CONCEPT_NAMES = ("concepts", "cuis", "labels", "classes")
_SCORE_NAMES = ("scores", "probs", "probabilities")
_MOST_BYTES = 4 * 2**30  # of an array
_TOLERANCE = 1e-3  # half-precision sigmoids and softmaxes may leave 0..1 by rounding
_EXPORT_HINT = (
    "Write it with numpy.savez(FILE, ids=ids, concepts=concepts, scores=probabilities): "
    "n ids, c concepts, n rows of c."
)


@dataclass(frozen=True)
class Scores:
    """Scores of n images and c concepts.

    Attributes:
        ids: n image ids, unique.
        concepts: c concept ids, unique.
        values: float32[n, c], in 0..1.
    """

    ids: tuple[str, ...]
    concepts: tuple[str, ...]
    values: NDArray[np.float32]

    @classmethod
    def from_shares(
        cls, rows: Iterable[tuple[str, Mapping[str, float]]], concepts: Sequence[str]
    ) -> Scores:
        """Make a dense table of rows that name their concepts; a concept not named has 0."""
        column = {concept: j for j, concept in enumerate(concepts)}
        ids: list[str] = []
        parts: list[NDArray[np.float32]] = []
        for image_id, shares in rows:
            row = np.zeros(len(column), np.float32)
            row[[column[concept] for concept in shares]] = list(shares.values())
            ids.append(image_id)
            parts.append(np.minimum(row, 1.0))
        values = np.stack(parts) if parts else np.zeros((0, len(column)), np.float32)
        return cls(tuple(ids), tuple(concepts), values)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row of each image id."""
        return {image_id: row for row, image_id in enumerate(self.ids)}

    def rows_of(
        self, ids: Sequence[str], source: Path | str, notes: list[str]
    ) -> NDArray[np.int64]:
        """Row of each image, int64[len(ids)]; -1 for an image without one.

        Args:
            ids: Unique image ids, with which those of the file are matched (`annotator.ids`).
            source: The file, for the notes.
            notes: Gets a line where ids differ.
        """
        match = match_ids(self.ids, ids)
        notes.extend(match.notes(source))
        row_of = {match.image_of.get(id_): row for row, id_ in enumerate(self.ids)}
        return np.array([row_of.get(id_, -1) for id_ in ids], np.int64)

    def only(
        self, ids: Sequence[str], concepts: Collection[str], source: Path | str, notes: list[str]
    ) -> Scores:
        """The scores of some images, under the ids given here, and of some concepts.

        Args:
            ids: Image ids, with which those of the file are matched; some may be missing.
            concepts: Concepts; some may be missing.
            source: The file, for messages.
            notes: Gets a line for ids that differ, images and concepts that are missing, and
                concepts that are left out.

        Raises:
            AnnotatorError: No image or no concept is in common.
        """
        rows = self.rows_of(ids, source, notes)
        has = rows >= 0
        kept = [j for j, concept in enumerate(self.concepts) if concept in concepts]
        if not has.any():
            raise _nothing_in_common(source, "image", self.ids[0], next(iter(ids), ""))
        if not kept:
            raise _nothing_in_common(source, "concept", self.concepts[0], min(concepts, default=""))
        found = {self.concepts[j] for j in kept}
        for what, names in (
            ("images without scores", [ids[i] for i in np.flatnonzero(~has).tolist()]),
            ("concepts without scores", sorted(set(concepts) - found)),
            ("concepts that are not in the index, left out", sorted(set(self.concepts) - found)),
        ):
            if names:
                more = ", …" if len(names) > 3 else ""
                notes.append(f"{source}: {len(names)} {what} ({', '.join(names[:3])}{more})")
        present = tuple(ids[i] for i in np.flatnonzero(has).tolist())
        columns = tuple(self.concepts[j] for j in kept)
        return Scores(present, columns, self.values[np.ix_(rows[has], np.array(kept))])

    def to_npz(self) -> bytes:
        """The `.npz` of these scores; the same scores give the same bytes."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            ids=np.array(self.ids, np.str_),
            concepts=np.array(self.concepts, np.str_),
            scores=self.values,
        )
        return buffer.getvalue()


def _nothing_in_common(source: Path | str, what: str, theirs: str, ours: str) -> AnnotatorError:
    return AnnotatorError(
        f"{source} has no {what} of those to annotate: it has {theirs!r}, not {ours!r}.",
        "Its scores have to be of these images, and of concepts of the index.",
    )


def is_scores(path: Path | str) -> bool:
    """Whether a file is a score file rather than a run: an `.npz`, or a CSV of numbers.

    Raises:
        FormatError: A text file cannot be read as a table.
    """
    if _is_npz(Path(path)):
        return True
    table = read_table(path)
    rows = table.rows if table.header else table.rows[1:]
    cells = [cell for record in rows for cell in record.cells[1:]]
    return bool(cells) and all(_number(cell) is not None for cell in cells)


def read_scores(path: Path | str) -> Scores:
    """Read the scores of an `.npz`, or of a CSV with a column for each concept.

    An `.npz` has the arrays `ids`, `concepts` (or `cuis`, `labels`, `classes`) and `scores` (or
    `probs`, `probabilities`). A CSV has ids in its first column and the concepts in its header.
    Labels in words become concept ids.

    Raises:
        FormatError: The file cannot be read; arrays are missing or do not fit together; an id or
            concept is repeated or empty; or a score is no number from 0 to 1.
    """
    path = Path(path)
    ids, labels, values = _read_npz(path) if _is_npz(path) else _read_csv(path)
    if not ids or not labels:
        raise FormatError(f"{path} holds {len(ids)} images and {len(labels)} concepts")
    return Scores(
        _unique(path, "image id", [id_.strip() for id_ in ids]),
        _unique(path, "concept", [_concept(path, label) for label in labels]),
        _checked(path, ids, labels, values),
    )


def _is_npz(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            starts_as_zip = file.read(4) == b"PK\x03\x04"
        if not starts_as_zip:
            return False
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except FileNotFoundError:
        raise FormatError(f"{path} does not exist", "Check the path.") from None
    except IsADirectoryError:
        raise FormatError(f"{path} is a folder", "Give the file in it, not the folder.") from None
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror})") from None
    except zipfile.BadZipFile:
        return path.suffix.lower() == ".npz"


def _read_npz(path: Path) -> tuple[list[str], list[str], NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            shapes = _array_shapes(path, archive)
        with np.load(path, allow_pickle=False) as arrays:
            ids = _texts(path, _named(path, shapes, _ID_NAMES, 1), arrays)
            concepts = _texts(path, _named(path, shapes, _CONCEPT_NAMES, 1), arrays)
            values = arrays[_named(path, shapes, _SCORE_NAMES, 2)]
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise FormatError(f"{path} is not a readable .npz ({error})", _EXPORT_HINT) from None
    return ids, concepts, values


def _array_shapes(path: Path, archive: zipfile.ZipFile) -> dict[str, int]:
    """Number of dimensions of each array, whose sizes are checked before anything is read."""
    dimensions: dict[str, int] = {}
    for info in archive.infolist():
        name, _, extension = info.filename.rpartition(".")
        if extension != "npy":
            continue
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(member)
        if dtype.hasobject:
            if name in (*_ID_NAMES, *_CONCEPT_NAMES, *_SCORE_NAMES):
                raise FormatError(
                    f"{path}: the array {name!r} holds Python objects, which are not read",
                    "Save it as text: numpy.array(list, dtype=str).",
                )
            continue
        size = dtype.itemsize
        for length in shape:
            size *= length
        if size > min(info.file_size, _MOST_BYTES):
            raise FormatError(
                f"{path}: the array {name!r} would take {size:,} bytes",
                f"Arrays of up to {_MOST_BYTES >> 30} GiB are read; write float32 or float16.",
            )
        dimensions[name] = len(shape)
    return dimensions


def _named(path: Path, shapes: Mapping[str, int], names: Sequence[str], dimensions: int) -> str:
    for name in names:
        if shapes.get(name) == dimensions:
            return name
    found = ", ".join(f"{name} ({count}-d)" for name, count in shapes.items()) or "nothing"
    raise FormatError(
        f"{path} has no {dimensions}-d array {names[0]!r} (found: {found})",
        f"{_EXPORT_HINT} Also taken for {names[0]!r}: {', '.join(names[1:])}.",
    )


def _texts(path: Path, name: str, arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    array = arrays[name]
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError:
            raise FormatError(f"{path}: the bytes of {name!r} are not UTF-8") from None
    if array.dtype.kind not in "Ui":
        raise FormatError(
            f"{path}: the array {name!r} has the type {array.dtype}, not text",
            "Save it as text: numpy.array(list, dtype=str).",
        )
    return [str(value) for value in array.tolist()]


def _read_csv(path: Path) -> tuple[list[str], list[str], NDArray[Any]]:
    table = read_table(path)
    rows = list(table.rows)
    line, header = 1, list(table.header or ())
    if not header:
        line, header = rows[0].line, [cell.strip() for cell in rows.pop(0).cells]
    values = np.zeros((len(rows), len(header) - 1), np.float64)
    for i, record in enumerate(rows):
        if len(record.cells) != len(header):
            raise table.error(
                record.line,
                f"{len(record.cells)} columns where the header has {len(header)}",
                "Give the id first and then a column for each concept, named in the header.",
            )
        for j, cell in enumerate(record.cells[1:]):
            number = _number(cell)
            if number is None:
                raise table.error(
                    record.line,
                    f"{cell!r} in column {header[j + 1]!r} is not a number",
                    "Give the id first and then a column of scores for each concept.",
                )
            values[i, j] = number
    if len(header) < 2:
        raise table.error(line, "only one column", "Give a column of scores for each concept.")
    return [record.cells[0] for record in rows], header[1:], values


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _concept(path: Path, label: str) -> str:
    try:
        return concept_id(label)
    except ValueError:
        raise FormatError(f"{path} has a concept without a name", "Name every column.") from None


def _unique(path: Path, what: str, texts: list[str]) -> tuple[str, ...]:
    seen: set[str] = set()
    for text in texts:
        if not text:
            raise FormatError(f"{path} has an empty {what}")
        if text in seen:
            raise FormatError(f"{path} has the {what} {text!r} twice", "Keep one of them.")
        seen.add(text)
    return tuple(texts)


def _checked(
    path: Path, ids: Sequence[str], labels: Sequence[str], values: NDArray[Any]
) -> NDArray[np.float32]:
    if values.dtype.kind not in "fiub":
        raise FormatError(f"{path}: the scores have the type {values.dtype}, not numbers")
    if values.shape != (len(ids), len(labels)):
        raise FormatError(
            f"{path} has {len(ids)} ids and {len(labels)} concepts, but scores of the shape "
            f"{' x '.join(map(str, values.shape))}",
            _EXPORT_HINT,
        )
    scores = values.astype(np.float32)
    bad = ~((scores >= -_TOLERANCE) & (scores <= 1 + _TOLERANCE))  # also NaN
    if bad.any():
        i, j = divmod(int(np.argmax(bad)), len(labels))
        raise FormatError(
            f"{path}: the score of image {ids[i]!r} and concept {labels[j]!r} is "
            f"{scores[i, j]:g}, not a probability from 0 to 1",
            "Logits become probabilities by the sigmoid: 1 / (1 + exp(-x)); percentages by / 100.",
        )
    return np.clip(scores, 0.0, 1.0)
