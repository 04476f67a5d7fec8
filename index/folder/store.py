"""An open version of an index in a folder.

    DIR/current                 the version that readers open: "v000001 <sha256 of its manifest>"
    DIR/v000001/manifest.json   format, counts, encoder, voting, and each file's size and sha256
    DIR/v000001/vectors.npy     float32[n, dim], unit norm; memory-mapped by readers
    DIR/v000001/labels.indptr.npy, labels.indices.npy
    DIR/v000001/cuis.tsv        the vocabulary in order, one "CUI<TAB>name" a line
    DIR/v000001/ids.txt         one image id a line, in row order
    DIR/v000001/COLUMN.jsonl    further text of each row, if given: captions, groups
    DIR/v000001/ARRAY.npy       further arrays, if given; memory-mapped by readers
    DIR/v000001/scan.*.npy, structure.faiss     what the kind of index needs beside the vectors
    DIR/v000001/added-000002.*  the same of rows that were added later
    DIR/v000001/removed.npy     int64[r]: rows that were removed
    DIR/v000001/history.jsonl   corrections of labels (`index.corrections`), oldest first

A version is written into a temporary folder, synced, renamed, and only then named by `current`,
which is replaced atomically. A reader keeps the version that it opened. Nothing is ever pickled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.corrections import Changes, Correction
from index.errors import IndexProblem
from index.labels import LabelTable
from index.manifest import (
    REBUILD,
    REMOVED,
    FileStamps,
    Manifest,
    SegmentEntry,
    check_files,
    load_array,
)
from index.protocols import Device
from index.rows import Rows, RowSubset, SearchResult
from index.sampling import sample_rows
from index.search.base import VectorIndex, import_faiss
from index.search.build import open_search
from index.search.flat import FlatIndex
from index.search.segmented import SegmentedIndex
from index.segments import (
    CONTENT,
    ROW_ARRAYS,
    THUMBNAIL_ENDS,
    THUMBNAILS,
    Segment,
    joined_names,
    read_segment,
)

_ROWS_AT_ONCE = 8192  # of `StoredIndex.blocks`


@dataclass(frozen=True)
class StoredIndex:
    """An opened version of an index, whose rows, ids and labels were checked to agree.

    Rows are numbered without those that were removed.

    Attributes:
        index: The vectors.
        ids: Image id of each row.
        labels: CUIs of each row.
        names: Name of each CUI that has one.
        columns: Further text of each row by column name ("captions", "groups").
        arrays: Further arrays by name, mapped read-only.
        manifest: The manifest as read; `manifest.about` is what the builder put there.
        segments: The rows as they are stored, those that were removed among them.
        stored_rows: int64[n], the stored row of each row; None where they are the same.
        stamps: Of the files that are mapped.
    """

    index: VectorIndex
    ids: tuple[str, ...]
    labels: LabelTable
    names: Mapping[str, str]
    columns: Mapping[str, tuple[str, ...]]
    arrays: Mapping[str, NDArray[Any]]
    manifest: Manifest
    segments: tuple[Segment, ...]
    stored_rows: NDArray[np.int64] | None = None
    stamps: FileStamps = field(default_factory=lambda: FileStamps({}))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def version(self) -> str:
        """Name of the version, such as "v000001"."""
        return self.manifest.version

    @property
    def concepts(self) -> Mapping[str, int]:
        """In how many images each CUI occurs, by CUI in ascending order."""
        return dict(zip(self.labels.cuis, self.labels.frequencies.tolist(), strict=True))

    @property
    def has_thumbnails(self) -> bool:
        """Whether rows have thumbnails."""
        return any(THUMBNAIL_ENDS in segment.arrays for segment in self.segments)

    def check_unchanged(self) -> None:
        """Refuse an index whose mapped files were written over since it was opened.

        Raises:
            IndexProblem: Says which.
        """
        if changed := self.stamps.changed():
            raise IndexProblem(changed, "Open the index again, and replace files by renaming.")

    def find(self, vectors: NDArray[np.float32], k: int) -> SearchResult:
        """The k nearest rows of each vector, float32[q, dim] of unit norm.

        Raises:
            IndexProblem: Vectors of another length or not of unit norm; k below 1; a file was
                written over.
        """
        self.check_unchanged()
        found = self.index.search(vectors, k)
        self.check_unchanged()  # or what was found may be of other images
        return SearchResult(found, self)

    def with_ids(self, ids: Sequence[str]) -> Rows:
        """The images with these ids, in their order; unknown ids are left out."""
        rows = [self.row_of[id_] for id_ in ids if id_ in self.row_of]
        return RowSubset(self, np.array(rows, np.int64))

    def with_concept(self, cui: str, most: int) -> Rows:
        """Images that hold a CUI by ascending row; of more than `most`, an even sample."""
        rows = self.labels.holders(cui)
        return RowSubset(self, rows[sample_rows(len(rows), most)])

    def thumbnail(self, row: int) -> bytes | None:
        """The thumbnail of a row, a JPEG; None where there is none.

        Raises:
            IndexProblem: A file was written over.
        """
        self.check_unchanged()
        segment, within = self._place(row)
        return segment.picture(within) or None

    def thumbnail_of(self, image_id: str) -> bytes | None:
        """The thumbnail of an image, a JPEG; None where there is none."""
        row = self.row_of.get(image_id)
        return None if row is None else self.thumbnail(row)

    def contents_of_only(self, ids: Collection[str]) -> set[bytes] | None:
        """The sha256 of the files of some images, without those that other images share.

        None where the index does not record its images' files.
        """
        if any(CONTENT not in segment.arrays for segment in self.segments):
            return None
        theirs, others = set[bytes](), set[bytes]()
        for row, id_ in enumerate(self.ids):
            (theirs if id_ in ids else others).add(self.content(row) or b"")
        return theirs - others

    def contents_of_removed(self) -> set[bytes] | None:
        """The sha256 of the files of removed rows that are still stored, less those in use.

        None where the index does not record its images' files.
        """
        if not self.manifest.removed:
            return set()
        if any(CONTENT not in segment.arrays for segment in self.segments):
            return None
        known = {key.tobytes() for segment in self.segments for key in segment.arrays[CONTENT]}
        return known - {self.content(row) for row in range(len(self))}

    def content(self, row: int) -> bytes | None:
        """The sha256 of the file of a row's image; None where it is not recorded."""
        segment, within = self._place(row)
        keys = segment.arrays.get(CONTENT)
        return None if keys is None else keys[within].tobytes()

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[m, dim]: the vectors of some rows."""
        result = np.empty((len(rows), self.manifest.dim), np.float32)
        for i, row in enumerate(rows.tolist()):
            segment, within = self._place(row)
            result[i] = segment.vectors[within]
        return result

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """The vectors of all rows in their order, float32[m, dim] at a time."""
        stored = np.arange(len(self)) if self.stored_rows is None else self.stored_rows
        for segment, start in zip(self.segments, self.starts.tolist(), strict=False):
            first, last = np.searchsorted(stored, [start, start + len(segment)]).tolist()
            for block in range(first, last, _ROWS_AT_ONCE):
                rows = stored[block : min(block + _ROWS_AT_ONCE, last)] - start
                yield np.asarray(segment.vectors[rows])

    def stored(self, rows: Sequence[int]) -> NDArray[np.int64]:
        """The stored rows, int64[m], of some rows."""
        numbers = np.array(rows, np.int64)
        return numbers if self.stored_rows is None else self.stored_rows[numbers]

    @property
    def live(self) -> NDArray[np.bool_]:
        """bool[n stored]: which of the stored rows were not removed."""
        live = np.full(int(self.starts[-1]), self.stored_rows is None)
        if self.stored_rows is not None:
            live[self.stored_rows] = True
        return live

    def renumber(self, stored: NDArray[np.int64]) -> NDArray[np.int64]:
        """Stored rows, int64 of any shape, as rows of this index; -1 for those removed."""
        if self.stored_rows is None:
            return stored
        number = np.full(int(self.starts[-1]), -1, np.int64)
        number[self.stored_rows] = np.arange(len(self.stored_rows))
        return number[stored]

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """The row of each image by its id."""
        return {id_: row for row, id_ in enumerate(self.ids)}

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """int64[segments + 1]: the first stored row of each segment, and how many there are."""
        return np.cumsum([0, *(len(segment) for segment in self.segments)])

    def _place(self, row: int) -> tuple[Segment, int]:
        if self.stored_rows is not None:
            row = int(self.stored_rows[row])
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.segments[part], row - int(self.starts[part])


def read_version(folder: Path, manifest: Manifest, whole: bool, device: Device) -> StoredIndex:
    """Open the version in `folder`; see `FolderLocation.open`.

    Raises:
        IndexProblem: It is damaged; says where.
    """
    stamps = FileStamps.of(folder, manifest)  # before the checks: later changes must show
    problems = check_files(folder, manifest, whole=whole)
    if problems:
        raise IndexProblem(f"{folder}: {problems[0]}", REBUILD)
    import_faiss()  # that it is missing is no fault of the index
    try:
        return replace(_read_version(folder, manifest, device), stamps=stamps)
    except IndexProblem as problem:
        raise IndexProblem(f"{folder}: {problem.message}", problem.hint or REBUILD) from problem
    except Exception as error:  # written wrong, or removed meanwhile: parsers fail in many ways
        reason = str(error) or type(error).__name__
        raise IndexProblem(f"{folder} cannot be read: {reason[:300]}", REBUILD) from error


def _read_version(folder: Path, manifest: Manifest, device: Device) -> StoredIndex:
    own = tuple(name for name in manifest.arrays if name in ROW_ARRAYS)
    segments = tuple(
        read_segment(
            folder,
            entry.prefix,
            rows=entry.rows,
            dim=manifest.dim,
            columns=manifest.columns,
            arrays=entry.arrays,
        )
        for entry in (SegmentEntry(manifest.rows, arrays=own), *manifest.segments)
    )
    arrays = {
        name: load_array(folder / f"{name}.npy")
        for name in manifest.arrays
        if name not in ROW_ARRAYS
    }
    searched = open_search(folder, manifest, segments[0].vectors, device)
    if len(segments) == 1 and not manifest.removed:
        (only,) = segments
        columns = {name: tuple(column) for name, column in only.columns.items()}
        return StoredIndex(
            searched, tuple(only.ids), only.labels, only.names, columns, arrays, manifest, segments
        )
    return _joined(manifest, segments, arrays, searched, _live(folder, manifest, segments))


def corrected(stored: StoredIndex, corrections: Sequence[Correction]) -> StoredIndex:
    """An opened version as it will be once corrections are published; in memory alone.

    Args:
        stored: As it was opened.
        corrections: Those after its own, oldest first.
    """
    changes = Changes.of(corrections, stored.row_of)
    last = max((one.number for one in corrections), default=stored.manifest.corrections)
    manifest = replace(stored.manifest, corrections=last)
    if not changes.removed and not changes.added:
        rows = {stored.row_of[id_]: cuis for id_, cuis in changes.labels.items()}
        labels = stored.labels.replaced(rows)
        names = {**stored.names, **changes.names}
        names = {cui: names[cui] for cui in labels.cuis if cui in names}
        changed = replace(stored, labels=labels, names=names, manifest=manifest)
        changed.__dict__["row_of"] = stored.row_of  # as costly as all the rest
        return changed
    segments, live = relabelled(stored, changes), stored.live
    live[stored.stored([stored.row_of[id_] for id_ in changes.removed])] = False
    if changes.added:
        new = segment_of(changes.added, stored)
        segments = (*segments, replace(new, names=changes.names))
        live = np.concatenate([live, np.ones(len(new), bool)])
        entry = SegmentEntry(len(new), arrays=tuple(sorted(new.arrays)))
        manifest = replace(manifest, segments=(*manifest.segments, entry))
    n = int(live.sum())
    manifest = replace(manifest, n=n, removed=len(live) - n)
    base = stored.index.parts[0] if isinstance(stored.index, SegmentedIndex) else stored.index
    joined = _joined(manifest, segments, stored.arrays, base, live)
    return replace(joined, stamps=stored.stamps)


def relabelled(stored: StoredIndex, changes: Changes) -> tuple[Segment, ...]:
    """The segments of an index, of which those with rows that got other labels are new ones."""
    rows = stored.stored([stored.row_of[id_] for id_ in changes.labels])
    of_segment = np.searchsorted(stored.starts, rows, side="right") - 1
    within = rows - stored.starts[of_segment]
    new: dict[int, dict[int, tuple[str, ...]]] = {}
    places = zip(of_segment.tolist(), within.tolist(), changes.labels.values(), strict=True)
    for segment, row, cuis in places:
        new.setdefault(segment, {})[row] = cuis
    names = {**joined_names(stored.segments), **changes.names}
    return tuple(
        replace(segment, labels=segment.labels.replaced(new[i]), names=names)
        if i in new
        else segment
        for i, segment in enumerate(stored.segments)
    )


def segment_of(added: Sequence[Correction], stored: StoredIndex) -> Segment:
    """Images that corrections add as rows of an index, with its columns."""
    rows = [one.row for one in added if one.row is not None]
    arrays: dict[str, NDArray[Any]] = {
        CONTENT: np.array([np.frombuffer(row.content, np.uint8) for row in rows])
    }
    if stored.has_thumbnails:
        arrays[THUMBNAILS] = np.frombuffer(b"".join(row.thumbnail for row in rows), np.uint8)
        arrays[THUMBNAIL_ENDS] = np.cumsum([len(row.thumbnail) for row in rows]).astype(np.int64)
    return Segment(
        vectors=np.stack([row.vector for row in rows]),
        ids=[one.image_id for one in added],
        labels=LabelTable.from_sets([one.after or () for one in added]),
        names={},
        columns={
            name: [row.columns.get(name, "") for row in rows] for name in stored.manifest.columns
        },
        arrays=arrays,
    )


def _joined(
    manifest: Manifest,
    segments: tuple[Segment, ...],
    arrays: Mapping[str, NDArray[Any]],
    searched: VectorIndex,
    live: NDArray[np.bool_],
) -> StoredIndex:
    """A version of several segments, without the rows that were removed."""
    kept = np.flatnonzero(live)
    parts = [searched, *(FlatIndex(segment.vectors) for segment in segments[1:])]
    labels = LabelTable.joined([segment.labels for segment in segments]).take(kept)
    ids = _kept([id_ for segment in segments for id_ in segment.ids], kept)
    if len(set(ids)) != len(ids):
        raise IndexProblem("Image ids repeat.")
    names = joined_names(segments)
    return StoredIndex(
        index=SegmentedIndex(parts, live),
        ids=ids,
        labels=labels,
        names={cui: names[cui] for cui in labels.cuis if cui in names},
        columns={
            name: _kept([text for segment in segments for text in segment.columns[name]], kept)
            for name in manifest.columns
        },
        arrays=arrays,
        manifest=manifest,
        segments=segments,
        stored_rows=kept,
    )


def _kept(texts: list[str], rows: NDArray[np.int64]) -> tuple[str, ...]:
    return tuple(texts[row] for row in rows.tolist())


def _live(folder: Path, manifest: Manifest, segments: tuple[Segment, ...]) -> NDArray[np.bool_]:
    """bool[n stored]: False for rows that were removed."""
    live = np.ones(sum(map(len, segments)), bool)
    if manifest.removed:
        removed = np.load(folder / REMOVED, allow_pickle=False)
        fits = (
            (removed.dtype, removed.shape) == (np.dtype(np.int64), (manifest.removed,))
            and int(removed[0]) >= 0
            and int(removed[-1]) < len(live)
            and bool(np.all(np.diff(removed) > 0))
        )
        if not fits:
            raise IndexProblem("The list of removed rows is damaged.")
        live[removed] = False
    return live
