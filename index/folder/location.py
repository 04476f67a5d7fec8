"""An index in a folder: opening it, and changing it by publishing a new version.

`add_rows` writes the new rows as a segment of their own, `remove_rows` writes which rows are gone,
`correct` writes the labels of segments anew, and `compact` writes one segment without the rows that
are gone. A new version shares with the one before what it
can, and readers are not disturbed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from index.corrections import Changes, Correction, history_from_bytes, history_to_bytes
from index.errors import IndexProblem
from index.folder.journal import Journal
from index.folder.publish import Draft, next_version, only_writer
from index.folder.store import StoredIndex, read_version, relabelled, segment_of
from index.folder.writer import VersionWriter
from index.manifest import (
    HISTORY,
    REBUILD,
    REMOVED,
    Manifest,
    SegmentEntry,
    check_files,
    is_current,
    read_manifest,
)
from index.protocols import PATIENCE_S, Changed, Device
from index.sampling import sample_rows
from index.search.base import check_unit
from index.search.build import EXACT, KINDS, IndexType, build_search
from index.segments import (
    LABEL_FILES,
    Segment,
    check_rows,
    check_segment,
    joined,
    npy_header,
    write_labels,
    write_rows,
)

_TRIES = 20  # to open a version while others come and go
_ROWS_AT_ONCE = 8192
_PROBES = 100


@dataclass(frozen=True)
class FolderLocation:
    """An index in a folder (`index.protocols.IndexLocation`).

    Attributes:
        folder: That folder.
        held: This object's holder is its only writer (`hold`).
    """

    folder: Path
    held: bool = False
    disk = "the disk"
    after_compact = "are gone from the disk"

    def __str__(self) -> str:
        return str(self.folder)

    def open(
        self, *, whole: bool = False, device: Device = "cpu", patience: float = PATIENCE_S
    ) -> StoredIndex:
        """Open the current version, after checking its files against the manifest.

        Files over 512 MiB, which are the vectors of large indexes, are read through only if `whole`
        is set: that takes as long as reading them from disk, where opening takes a moment. Their
        size is always checked, and so is every byte of what is parsed.

        Args:
            whole: Check the digest of large files, too.
            device: "cuda" searches the base segment on the GPUs; rows that were added since the
                last compaction are searched on the CPU. "auto" is the CPU.
            patience: Not used: a folder does not have to be waited for.

        Raises:
            IndexProblem: There is no index, or it is damaged, or of a newer format; says where.
        """
        for tried in range(_TRIES):
            manifest = read_manifest(self.folder)
            try:
                return read_version(self.folder / manifest.version, manifest, whole, device)
            except IndexProblem:
                # Its files may have gone with the version, when others were published meanwhile.
                if tried + 1 == _TRIES or is_current(self.folder, manifest.version):
                    raise
        raise AssertionError

    def manifest(self) -> Manifest:
        """The manifest of the current version, without opening it."""
        return read_manifest(self.folder)

    def check_index_type(self, index_type: str) -> None:
        """Refuse an index type that a folder cannot have.

        Raises:
            IndexProblem: Says which there are.
        """
        if index_type not in ("auto", *KINDS):
            raise IndexProblem(
                f"A folder has no index of the type {index_type}.", f"It has: {', '.join(KINDS)}."
            )

    def writer(self) -> VersionWriter:
        """Begin to write an index; leaving it without `publish` changes nothing for readers."""
        return VersionWriter(self.folder)

    def add_rows(self, rows: Segment, *, of: str, over: bool = False) -> Changed:
        """Add rows to the index, at a cost that does not grow with the rows that it has.

        Small segments are merged when they are as large together as the next one, so there are only
        a few, and a row is written again only a few times.

        Args:
            rows: New rows; columns that the index does not have are left out, missing ones are
                empty.
            of: The version that they were made for.
            over: Remove the rows that have their ids; otherwise that is refused.

        Raises:
            IndexProblem: Ids that are there already, parts that do not fit together or the index,
                another version by now, or another process that writes.
        """
        check_unit(rows.vectors, None, "vectors")
        check_rows(len(rows.vectors), rows.ids, rows.labels, rows.columns)
        if len(rows) == 0:
            raise IndexProblem("There is nothing to add; at least one row is needed.")
        with next_version(self.folder, of=of, held=self.held) as draft:
            stored = self.open()
            check_unit(rows.vectors[:1], stored.manifest.dim, "vectors")
            there = set(rows.ids) & set(stored.ids)
            if there and not over:
                raise IndexProblem(
                    f"{len(there)} of the {len(rows.ids)} images are in the index already, such as "
                    f"{min(there)}.",
                    "Leave them out, or take the new ones for them with --replace.",
                )
            gone = ~stored.live
            gone[stored.stored([stored.row_of[id_] for id_ in there])] = True
            columns = {
                name: rows.columns.get(name, [""] * len(rows.ids))
                for name in stored.manifest.columns
            }
            new = replace(rows, columns=columns)
            check_segment(new, len(new), stored.manifest.dim)
            segments, gone, written = _add_segment(draft, stored, stored.segments, gone, new)
            draft.keep(_files_without(stored.manifest, segments))
            return _publish(draft, segments, gone, written, len(rows.ids), len(there))

    def remove_rows(self, ids: Collection[str], *, missing_ok: bool = False) -> Changed:
        """Remove images from the index: no search finds them any more.

        They are gone from the disk only after `compact`.

        Args:
            ids: Of the images.
            missing_ok: Ids that the index does not have are no error.

        Raises:
            IndexProblem: The index does not have some of them, or no others; or another process
                writes.
        """
        wanted = set(ids)
        with next_version(self.folder, held=self.held) as draft:
            stored = self.open()
            unknown = wanted - set(stored.ids)
            if unknown and not missing_ok:
                raise IndexProblem(
                    f"{len(unknown)} of the {len(wanted)} images are not in the index, such as "
                    f"{min(unknown)}.",
                    "Check the ids, or pass over those that are not there with --missing-ok.",
                )
            known = wanted - unknown
            if len(known) == len(stored.ids):
                raise IndexProblem(
                    "No image would be left.",
                    f"Delete the folder {self.folder} to remove the index.",
                )
            gone = ~stored.live
            gone[stored.stored([stored.row_of[id_] for id_ in known])] = True
            draft.keep(_files_without(stored.manifest, stored.manifest.segments))
            return _publish(draft, stored.manifest.segments, gone, 0, 0, len(known))

    def correct(self, corrections: Sequence[Correction], *, of: str | None = None) -> Changed:
        """Publish corrections as one version, with those before them in its history.

        Vectors are not touched, and rows keep their places. Corrections that the index has already
        are passed over, and so are those of images that it does not have.

        Args:
            corrections: Oldest first.
            of: The version that they were made for; None for whichever is current.

        Raises:
            IndexProblem: No image would be left, a concept or an id cannot be written, another
                version by now, or another process that writes.
        """
        with next_version(self.folder, of=of, held=self.held) as draft:
            stored, before = self.open(), draft.before
            new = [one for one in corrections if one.number > before.corrections]
            if not new:
                return Changed(before.version, before.n)
            changes = Changes.of(new, stored.row_of)
            if len(changes.removed) - len(changes.added) >= len(stored):
                raise IndexProblem(
                    "No image would be left.",
                    f"Delete the folder {self.folder} to remove the index.",
                )
            parts = relabelled(stored, changes)
            gone = ~stored.live
            gone[stored.stored([stored.row_of[id_] for id_ in changes.removed])] = True
            segments, written = list(before.segments), 0
            if changes.added:
                rows = replace(segment_of(changes.added, stored), names=changes.names)
                check_rows(len(rows.vectors), rows.ids, rows.labels, rows.columns)
                check_segment(rows, len(rows), before.dim)
                check_unit(rows.vectors, before.dim, "vectors")
                segments, gone, written = _add_segment(draft, stored, parts, gone, rows)
            anew = {HISTORY}
            for part, own, prefix in zip(
                parts, stored.segments, ["", *(s.prefix for s in segments)], strict=False
            ):
                if part is not own:
                    check_rows(len(part), part.ids, part.labels, {})
                    write_labels(draft.folder, part, prefix)
                    anew |= {f"{prefix}{name}" for name in LABEL_FILES}
            known = self.folder / before.version / HISTORY
            history = known.read_bytes() if before.corrections else b""
            (draft.folder / HISTORY).write_bytes(history + history_to_bytes(new))
            draft.keep(name for name in _files_without(before, segments) if name not in anew)
            return _publish(
                draft,
                segments,
                gone,
                written,
                len(changes.added),
                len(changes.removed),
                corrections=new[-1].number,
            )

    def history(self) -> list[Correction]:
        """The corrections of the current version, oldest first."""
        return self._history(read_manifest(self.folder))

    def _history(self, manifest: Manifest) -> list[Correction]:
        if not manifest.corrections:
            return []
        return history_from_bytes((self.folder / manifest.version / HISTORY).read_bytes())

    def settle(self) -> None:
        """Publish what a service that was killed has left in its journal.

        Raises:
            IndexProblem: Another process writes to the index.
        """
        if Journal.is_empty(self.folder):
            return
        with self.hold() as held, Journal(self.folder) as journal:
            held.publish_left(journal)

    def publish_left(self, journal: Journal) -> None:
        """Publish what was left in the journal when it was opened.

        Raises:
            IndexProblem: As `correct`.
        """
        self.correct(journal.left)
        journal.drop(read_manifest(self.folder).corrections)

    @contextmanager
    def hold(self) -> Iterator[FolderLocation]:
        """Be the only writer for longer than a change: by the location that is yielded.

        Raises:
            IndexProblem: Another process writes to the index.
        """
        read_manifest(self.folder)
        with only_writer(self.folder):
            yield replace(self, held=True)

    def compact(
        self,
        *,
        of: str | None = None,
        index_type: IndexType | None = None,
        target_recall: float | None = None,
        arrays: Mapping[str, NDArray[Any]] | None = None,
    ) -> Changed:
        """Write the rows anew as one segment, without those that were removed.

        Every other version of the index is deleted, and the corrections of removed images go from
        its history, so that nothing of these is left on disk; readers that have one open keep it
        until they close it.

        Args:
            of: The version that `arrays` were made for; a newer one is not overwritten.
            index_type: Another kind of index; None for the same.
            target_recall: For approximate kinds; None for the same.
            arrays: Instead of the index's own: those that refer to rows by number have to be
                renumbered (`Index.renumber`).

        Raises:
            IndexProblem: There is no index, it is damaged, or another process writes to it.
        """
        with next_version(self.folder, of=of, held=self.held) as draft:
            stored = self.open(whole=True)
            live = np.split(stored.live, stored.starts[1:-1])
            rows = joined(
                [_without_vectors(segment) for segment in stored.segments],
                [np.flatnonzero(part) for part in live],
            )
            with (draft.folder / "vectors.npy").open("wb") as file:
                file.write(npy_header(len(rows), stored.manifest.dim))
                for segment, kept_rows in zip(stored.segments, live, strict=True):
                    for low in range(0, len(segment), _ROWS_AT_ONCE):
                        some = slice(low, low + _ROWS_AT_ONCE)
                        file.write(segment.vectors[some][kept_rows[some]].tobytes())
            kept = dict(stored.arrays if arrays is None else arrays)
            write_rows(draft.folder, replace(rows, arrays={**rows.arrays, **kept}))
            if stored.manifest.corrections:
                history = [c for c in self._history(stored.manifest) if c.image_id in stored.row_of]
                (draft.folder / HISTORY).write_bytes(history_to_bytes(history))
            kind: Any = index_type or stored.manifest.index_type
            if kind not in get_args(IndexType):  # of an earlier version
                kind = "auto"
            kind, search = build_search(
                draft.folder, kind, target_recall or stored.manifest.search.get("target_recall")
            )
            if kind == stored.manifest.index_type and index_type is None:
                search["reason"] = stored.manifest.search.get("reason", "as before")
            version = draft.publish(
                only=True,
                index_type=kind,
                search=search,
                n=len(rows),
                rows=len(rows),
                removed=0,
                segments=(),
                arrays=tuple(sorted({*rows.arrays, *kept})),
            )
            return Changed(version, len(rows), removed=stored.manifest.removed)

    def change_about(self, about: Mapping[str, Any], *, of: str) -> str:
        """Publish the current version again with another `about`; files are shared, not copied.

        Args:
            about: As for `VersionWriter.publish`.
            of: The version that `about` was made for; a newer one is not overwritten.

        Returns:
            The name of the new version, or of the current one if it says the same already.

        Raises:
            IndexProblem: There is no index, it is damaged, or another process writes to it.
        """
        with next_version(self.folder, of=of, held=self.held) as draft:
            before = self.folder / draft.before.version
            problems = check_files(before, draft.before)
            if problems:
                raise IndexProblem(f"{before}: {problems[0]}", REBUILD)
            draft.keep(draft.before.files)
            return draft.publish(about=json.loads(json.dumps(about)))

    def problems(self) -> list[str]:
        """Everything that is wrong with the current version, as sentences; empty if it is sound.

        Checks the manifest, the size and sha256 of each file, that vectors, ids and labels have the
        same rows, that every vector is finite and of unit norm, and that a search for the vectors
        of some rows finds those rows. Repairs nothing.
        """
        try:
            manifest = read_manifest(self.folder)
        except IndexProblem as problem:
            return [problem.message]
        version = manifest.version
        found = [f"{version}/{p}" for p in check_files(self.folder / version, manifest)]
        if found:
            return found
        try:
            stored = self.open()
            for segment in stored.segments:
                for start in range(0, len(segment), _ROWS_AT_ONCE):
                    part = segment.vectors[start : start + _ROWS_AT_ONCE]
                    check_unit(part, manifest.dim, "vectors")
            found += _lost(stored)
        except IndexProblem as problem:
            found.append(problem.message)
        return found


def open_index(directory: Path, *, whole: bool = False, device: Device = "cpu") -> StoredIndex:
    """Open the index in a folder; see `FolderLocation.open`."""
    return FolderLocation(directory).open(whole=whole, device=device)


def _lost(stored: StoredIndex) -> list[str]:
    """Rows that a search for their own vectors does not find."""
    probes = sample_rows(len(stored), _PROBES)
    found = stored.index.search(stored.vectors(probes), 1)
    # A row with the same vector (a copy of the image) may come first instead.
    lost = probes[(found.rows[:, 0] != probes) & (found.similarities[:, 0] < 1 - 1e-5)]
    if stored.index.kind in EXACT:
        return [f"A search for row {row} ({stored.ids[row]}) does not find it." for row in lost]
    # An approximate search may miss some.
    if len(lost) > len(probes) // 10:
        return [f"Searches for {len(probes)} of its own rows do not find {len(lost)} of them."]
    return []


def _add_segment(
    draft: Draft,
    stored: StoredIndex,
    parts: Sequence[Segment],
    gone: NDArray[np.bool_],
    new: Segment,
) -> tuple[list[SegmentEntry], NDArray[np.bool_], int]:
    """Write new rows as a segment, merged with the ones before that are not larger.

    Args:
        draft: The version that is being made.
        stored: The version before.
        parts: Its segments, perhaps with other labels.
        gone: bool[n stored], which of its rows are removed.
        new: The rows.

    Returns:
        All segments but the base, `gone` for the rows of those that are not written anew, and how
        many rows were written.
    """
    segments = list(stored.manifest.segments)
    # Merge also with what they have grown to.
    while segments and segments[-1].rows <= len(new):
        segments.pop()
        last = parts[1 + len(segments)]
        start = int(stored.starts[1 + len(segments)])
        lives = np.flatnonzero(~gone[start : start + len(last)])
        new = joined([last, new], [lives, np.arange(len(new))])
        gone = gone[:start]
    prefix = f"added-{_next_number(stored):06d}."
    _write_vectors(draft.folder / f"{prefix}vectors.npy", new.vectors)
    write_rows(draft.folder, new, prefix)
    entry = SegmentEntry(len(new), prefix, tuple(sorted(new.arrays)))
    return [*segments, entry], gone, len(new)


def _publish(
    draft: Draft,
    segments: Sequence[SegmentEntry],
    gone: NDArray[np.bool_],
    written: int,
    added: int,
    removed: int,
    **changes: Any,
) -> Changed:
    """Publish what was linked and written, with the list of removed rows."""
    rows = np.flatnonzero(gone)
    if len(rows):
        np.save(draft.folder / REMOVED, rows, allow_pickle=False)
    n = len(gone) + written - len(rows)
    version = draft.publish(n=n, removed=len(rows), segments=tuple(segments), **changes)
    return Changed(version, n, added, removed)


def _files_without(manifest: Manifest, segments: Sequence[SegmentEntry]) -> list[str]:
    """Files of a version but the list of removed rows and segments other than these."""
    dropped = {s.prefix for s in manifest.segments} - {s.prefix for s in segments}
    return [
        name
        for name in manifest.files
        if name != REMOVED and not any(name.startswith(prefix) for prefix in dropped)
    ]


def _next_number(stored: StoredIndex) -> int:
    """A number for a segment that no file of the version has."""
    prefixes = [segment.prefix for segment in stored.manifest.segments]
    return max((int(prefix[len("added-") : -1]) for prefix in prefixes), default=0) + 1


def _without_vectors(segment: Segment) -> Segment:
    return replace(segment, vectors=np.empty((len(segment), 0), np.float32))


def _write_vectors(path: Path, vectors: NDArray[np.float32]) -> None:
    with path.open("wb") as file:
        file.write(npy_header(*vectors.shape))
        file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
