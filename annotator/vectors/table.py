"""Tables of vectors as a source of images: found, matched and read as images are."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from annotator.errors import AnnotatorError, FormatError, ImageError
from annotator.ids import has_controls, image_extension, image_id, natural_key, path_id, printable
from annotator.images.ref import ImageRef, unusable
from annotator.images.sources import FoundImages, IdFrom
from annotator.vectors.encoder import UNNAMED, VectorEncoder
from annotator.vectors.formats import Stored, read_row_ids, read_stored

if TYPE_CHECKING:
    from annotator.encoders.cache import EmbeddingCache
    from annotator.encoders.embedder import Embedder
    from annotator.encoders.local_runner import Embedded
    from annotator.images.notes import Note

#: What is wrong with a vector that cannot be scaled to unit norm, and what to do.
NO_DIRECTION = ("its vector is zero or not finite", "Encode the image again, or leave it out.")

#: Beginning of the content key of a row of vectors, whose image file is not known.
NO_FILE = bytes(16)

_AT_ONCE = 256
# Rows whose norms differ less from 1 stay as they are, to the last bit.
_UNIT = 1e-5
# Rows whose norms differ more from 1 were not meant to be of unit norm; float16 explains less.
_ROUNDING = 1e-2


@dataclass(frozen=True, slots=True)
class VectorRef(ImageRef):
    """Reference to a row of a table of vectors, which is no image and cannot be read as one.

    Attributes:
        row: Number of the row, from 0.
    """

    row: int


@dataclass(frozen=True, eq=False)
class VectorTable:
    """Vectors of images with their ids, in a file or in memory.

    Attributes:
        rows: float16, float32 or float64 [n, dim]; of any norm.
        ids: Id of each row, as given; they may be paths or repeat (see `found`).
        source: The file, for messages.
        encoder: The encoder of the vectors; None if it is not known.
        ids_in: Where the ids are, for messages.
    """

    rows: NDArray[np.floating[Any]]
    ids: Sequence[str]
    source: str = "vectors"
    encoder: VectorEncoder | None = None
    ids_in: str = ""

    @classmethod
    def of(
        cls,
        rows: NDArray[np.floating[Any]] | Sequence[Sequence[float]],
        ids: Sequence[str] | None = None,
        *,
        encoder: str | None = None,
    ) -> VectorTable:
        """Vectors in memory.

        Args:
            rows: Floats [n, dim], n and dim at least 1: an array, or what numpy makes one of.
            ids: Id of each row; None for vector-1, vector-2, …
            encoder: What the user calls their encoder.

        Raises:
            AnnotatorError: They are no such floats, or there are not as many ids.
        """
        array = np.asarray(rows)
        if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
            raise AnnotatorError(
                f"The vectors are {array.dtype} {list(array.shape)}, not floats [n, dim].",
                "Give one row for each image.",
            )
        if array.dtype not in (np.float16, np.float32, np.float64):
            array = array.astype(np.float64)
        ids = [f"vector-{row}" for row in range(1, len(array) + 1)] if ids is None else list(ids)
        if len(ids) != len(array):
            raise AnnotatorError(
                f"There are {len(ids)} ids, but {len(array)} vectors.", "Give one for each row."
            )
        known = None if encoder is None else VectorEncoder.own(encoder, array.shape[1])
        return cls(array, ids, "vectors", known, "the ids given")

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(self.rows.shape[1])

    @property
    def understood(self) -> str:
        """What was read, in one line."""
        of = f" of {self.encoder.name}" if self.encoder else ""
        return (
            f"{self.source}: {len(self.rows)} vectors of length {self.dim}{of} "
            f"({self.rows.dtype}); ids from {self.ids_in}, such as {self.ids[0]!r}"
        )

    @property
    def embedder(self) -> VectorEncoder:
        """The encoder of the vectors, as a build records it: the user's, unless they say."""
        return self.encoder or VectorEncoder.own(UNNAMED, self.dim)

    def found(
        self, *, on_duplicate: Literal["fail", "first"] = "fail", id_from: IdFrom = "auto"
    ) -> FoundImages:
        """The rows as `find_images` would find their images, in the natural order of ids.

        Args:
            on_duplicate: What to do when two rows have the same id: "fail", or take the "first".
            id_from: What the ids of the images are: the file "name" or the "path" in the ids of the
                rows, less an image extension; "auto": if all of them are names of image files, the
                name if it is unique, else the path, and if they are not, the ids as they are.

        Raises:
            AnnotatorError: An id is not unique, or as `id_from` says.
            FormatError: A row has no id.
        """
        rows: dict[str, list[int]] = {}
        for row, id_ in enumerate(self._image_ids(id_from)):
            if not id_.strip():
                raise FormatError(f"{self.ids_in}: row {row} has no id", "Give one for each row.")
            rows.setdefault(id_, []).append(row)
        repeated = {id_: places for id_, places in rows.items() if len(places) > 1}
        if repeated and on_duplicate == "fail":
            id_, places = next(iter(repeated.items()))
            raise AnnotatorError(
                f"{len(repeated)} ids occur more than once in {self.ids_in}, such as "
                f"{printable(id_)} (rows {', '.join(map(str, places[:3]))}).",
                "Keep one row for each, or take the first with `--on-duplicate first`.",
            )
        return FoundImages(
            images=[self._reference(id_, rows[id_][0]) for id_ in sorted(rows, key=natural_key)],
            duplicates={
                id_: [self._where(row) for row in places]
                for id_, places in sorted(repeated.items())
            },
        )

    def in_rows(self) -> list[ImageRef]:
        """References to all rows in their own order, with the ids as given."""
        return [self._reference(id_, row) for row, id_ in enumerate(self.ids)]

    def embed(
        self,
        refs: Sequence[ImageRef],
        embedder: Embedder,
        *,
        cache: EmbeddingCache | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> Generator[Embedded, None, None]:
        """Yield the vectors of `refs` in their order; a `Runner` that reads instead of encoding.

        A vector that is zero or not finite is that image's error. Others are scaled to unit norm,
        with a note if they were not (beyond rounding).

        Args:
            refs: From `found`; others fail as images that cannot be read.
            embedder: Has vectors of the length of these.
            cache: Not used.
            batch_size: Not used.
            workers: Not used.

        Raises:
            AnnotatorError: The embedder has vectors of another length.
        """
        if embedder.dim != self.dim:
            raise AnnotatorError(
                f"{self.source} has vectors of length {self.dim}, {embedder.name} has "
                f"{embedder.dim}.",
                "Give vectors of the same encoder.",
            )
        for start in range(0, len(refs), _AT_ONCE):
            block = refs[start : start + _AT_ONCE]
            rows = [ref.row for ref in block if isinstance(ref, VectorRef)]
            units = iter(to_units(self.rows[rows]) if rows else ())
            for ref in block:
                yield _embedded(ref, next(units) if isinstance(ref, VectorRef) else None)

    def _image_ids(self, id_from: IdFrom) -> list[str]:
        if id_from == "sop":
            raise AnnotatorError("Vectors have no SOPInstanceUID.", "Leave out --id.")
        if id_from == "path":
            return [path_id(id_) for id_ in self.ids]
        names = [image_id(id_.replace("\\", "/")) for id_ in self.ids]
        if id_from == "name":
            return names
        if not all(map(image_extension, self.ids)):
            return list(self.ids)
        return names if len(set(names)) == len(names) else self._image_ids("path")

    def _where(self, row: int) -> str:
        return f"{printable(self.source)} row {row}"

    def _reference(self, id_: str, row: int) -> ImageRef:
        where = self._where(row)
        if has_controls(id_):  # an index and a run are files of lines
            message = "its id holds a line end or another control character"
            return unusable(id_, where, message, "Change the id.")
        return VectorRef(id_, where, _no_picture, row)


def read_vectors(
    path: Path | str,
    ids: Path | str | Sequence[str] | None = None,
    *,
    encoder: str | None = None,
    prefer_own_ids: bool = False,
) -> VectorTable:
    """Read a file of vectors: .npy, .npz, Parquet or safetensors (`read_stored`).

    Args:
        path: The file.
        ids: Id of each row, in order, or a file of them: a list, a table with them in its first
            column, or an .npy file; None if the file has them.
        encoder: What the user calls the encoder of the vectors, unless the file names it.
        prefer_own_ids: Ignore `ids` if the file has its own; otherwise this is an error.

    Raises:
        FormatError: A file cannot be read, or there are not as many ids as vectors.
        AnnotatorError: There are no ids, or two of them for each row; or the file names another
            encoder.
    """
    path = Path(path)
    stored = read_stored(path)
    dim = stored.rows.shape[1]
    known = None if encoder is None else VectorEncoder.own(encoder, dim)
    if stored.encoder is not None:
        try:
            known = VectorEncoder.from_json(stored.encoder, dim)
        except AnnotatorError as error:
            raise FormatError(f"{path}: {error.message}", error.hint) from None
        if encoder is not None and encoder != known.name:
            raise AnnotatorError(
                f"{path} has vectors of {known.name!r}, not of {encoder!r}.",
                "Leave out the name: the file has it.",
            )
    if prefer_own_ids and stored.ids is not None:
        ids = None
    given, ids_in = _ids(stored, path, ids)
    if len(given) != len(stored.rows):
        raise FormatError(
            f"{ids_in} has {len(given)} ids, but {path} has {len(stored.rows)} vectors",
            "Give one id for each row, in the order of the rows.",
        )
    return VectorTable(stored.rows, given, str(path), known, ids_in)


def _ids(
    stored: Stored, path: Path, ids: Path | str | Sequence[str] | None
) -> tuple[Sequence[str], str]:
    """The ids, and where they are."""
    if ids is None:
        if stored.ids is None:
            raise AnnotatorError(
                f"{path} does not say which image each of its {len(stored.rows)} rows is of.",
                "Give --ids FILE: one id a line, in the order of the rows.",
            )
        return stored.ids, stored.ids_in
    if stored.ids is not None:
        raise AnnotatorError(
            f"{path} has ids of its own ({stored.ids_in}).", "Leave out the other ones."
        )
    if not isinstance(ids, (str, Path)):
        return list(ids), "the ids given"
    return read_row_ids(Path(ids)), str(ids)


def to_units(
    rows: NDArray[np.floating[Any]],
) -> list[tuple[NDArray[np.float32] | None, bool]]:
    """Scale rows to unit norm.

    Args:
        rows: Floats [n, dim] of any norm.

    Returns:
        For each row float32[dim] of unit norm, or None if it is zero or not finite; and whether its
        norm was another one, beyond rounding.
    """
    values = rows.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        largest = np.abs(values).max(axis=1)
    usable = np.isfinite(largest) & (largest > 0)
    values[~usable] = 0
    scale = np.where(usable, largest, 1)
    values /= scale[:, None]  # no square is too large or too small then
    lengths = np.linalg.norm(values, axis=1)
    with np.errstate(over="ignore"):
        off = np.abs(lengths * scale - 1)
    units: list[tuple[NDArray[np.float32] | None, bool]] = []
    for i in range(len(rows)):
        if not usable[i]:
            units.append((None, False))
        elif off[i] <= _UNIT:
            units.append((np.array(rows[i], np.float32), False))
        else:
            units.append(((values[i] / lengths[i]).astype(np.float32), bool(off[i] > _ROUNDING)))
    return units


def _embedded(ref: ImageRef, unit: tuple[NDArray[np.float32] | None, bool] | None) -> Embedded:
    from annotator.encoders.local_runner import Embedded  # torch comes with it

    try:
        vector, scaled = unit or (None, False)
        if unit is None:
            ref.read()  # says why there is none
        if vector is None:
            raise ImageError(*NO_DIRECTION, "no_vector")
    except ImageError as error:
        return Embedded(ref, None, error=error)
    notes: tuple[Note, ...] = ("vector_scaled",) if scaled else ()
    digest = hashlib.sha256(vector.astype("<f4").tobytes()).digest()
    return Embedded(ref, vector, content=NO_FILE + digest[len(NO_FILE) :], notes=notes)


def _no_picture() -> bytes:
    raise ImageError("there is no picture, only its vector", "Give the images.", "no_vector")
