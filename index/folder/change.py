"""Rows that come and go after the build, each change as a new version that shares what it can.

An `add` writes the new rows as a segment of their own, a `remove` writes which rows are gone, and
`compact` writes one segment anew without them. Readers are not disturbed by any of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from index.folder.publish import Draft, next_version
from index.folder.store import StoredIndex, open_index
from index.folder.writer import IndexType, structure_for
from index.manifest import REMOVED
from index.search.base import check_unit
from index.segments import Segment, check_rows, check_segment, joined, npy_header, write_rows

_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Changed:
    """What a change did.

    Attributes:
        version: The current version.
        rows: Rows that the index has now.
        added: Rows that came.
        removed: Rows that went.
    """

    version: str
    rows: int
    added: int = 0
    removed: int = 0


def add_rows(directory: Path, rows: Segment, *, of: str, over: bool = False) -> Changed:
    """Add rows to the index, at a cost that does not grow with the rows that it has.

    Small segments are merged when they are as large together as the next one, so there are only a
    few, and a row is written again only a few times.

    Args:
        directory: The index.
        rows: New rows; columns that the index does not have are left out, missing ones are empty.
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
    with next_version(directory, of=of) as draft:
        stored = open_index(directory)
        check_unit(rows.vectors[:1], stored.manifest["dim"], "vectors")
        there = set(rows.ids) & set(stored.ids)
        if there and not over:
            raise IndexProblem(
                f"{len(there)} of the {len(rows.ids)} images are in the index already, such as "
                f"{min(there)}.",
                "Leave them out, or take the new ones for them with --replace.",
            )
        gone = ~stored.live
        gone[_stored_rows(stored, there)] = True
        columns = {
            name: rows.columns.get(name, [""] * len(rows.ids))
            for name in stored.manifest["columns"]
        }
        new = replace(rows, columns=columns)
        check_segment(new, len(new), stored.manifest["dim"])
        segments = list(stored.manifest["segments"])
        # Merge with the segments before that are not larger, and with what they have grown to.
        while segments and segments[-1]["rows"] <= len(new):
            segments.pop()
            last = stored.segments[1 + len(segments)]
            start = int(stored.starts[1 + len(segments)])
            lives = np.flatnonzero(~gone[start : start + len(last)])
            new = joined([last, new], [lives, np.arange(len(new))])
            gone = gone[:start]
        prefix = f"added-{_next_number(stored):06d}."
        _write_vectors(draft.folder / f"{prefix}vectors.npy", new.vectors)
        write_rows(draft.folder, new, prefix)
        entry = {"prefix": prefix, "rows": len(new), "arrays": sorted(new.arrays)}
        draft.keep(_files_without(stored.manifest, segments))
        return _publish(draft, [*segments, entry], gone, len(new), len(rows.ids), len(there))


def remove_rows(directory: Path, ids: Collection[str], *, missing_ok: bool = False) -> Changed:
    """Remove images from the index: no search finds them any more.

    They are gone from the disk only after `compact`.

    Args:
        directory: The index.
        ids: Of the images.
        missing_ok: Ids that the index does not have are no error.

    Raises:
        IndexProblem: The index does not have some of them, or no others; or another process writes.
    """
    wanted = set(ids)
    with next_version(directory) as draft:
        stored = open_index(directory)
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
                "No image would be left.", f"Delete the folder {directory} to remove the index."
            )
        gone = ~stored.live
        gone[_stored_rows(stored, known)] = True
        draft.keep(_files_without(stored.manifest, stored.manifest["segments"]))
        return _publish(draft, stored.manifest["segments"], gone, 0, 0, len(known))


def compact(
    directory: Path,
    *,
    of: str | None = None,
    index_type: IndexType | None = None,
    target_recall: float | None = None,
    arrays: Mapping[str, NDArray[Any]] | None = None,
) -> Changed:
    """Write the rows anew as one segment, without those that were removed.

    Every other version of the index is deleted, so that nothing of the removed rows is left on
    disk; readers that have one open keep it until they close it.

    Args:
        directory: The index.
        of: The version that `arrays` were made for; a newer one is not written over.
        index_type: Another kind of index; None for the same.
        target_recall: For approximate kinds; None for the same.
        arrays: Instead of those of the index: what refers to rows by their number has to be
            numbered anew (`StoredIndex.renumber`).

    Raises:
        IndexProblem: There is no index, it is damaged, or another process writes to it.
    """
    with next_version(directory, of=of) as draft:
        stored = open_index(directory, whole=True)
        search = stored.manifest["search"]
        live = np.split(stored.live, stored.starts[1:-1])
        rows = joined(
            [_without_vectors(segment) for segment in stored.segments],
            [np.flatnonzero(part) for part in live],
        )
        with (draft.folder / "vectors.npy").open("wb") as file:
            file.write(npy_header(len(rows), stored.manifest["dim"]))
            for segment, kept_rows in zip(stored.segments, live, strict=True):
                for low in range(0, len(segment), _ROWS_AT_ONCE):
                    some = slice(low, low + _ROWS_AT_ONCE)
                    file.write(segment.vectors[some][kept_rows[some]].tobytes())
        kept = dict(stored.arrays if arrays is None else arrays)
        write_rows(draft.folder, replace(rows, arrays={**rows.arrays, **kept}))
        made = structure_for(
            draft.folder,
            index_type or stored.manifest["index_type"],
            target_recall or search.get("target_recall"),
        )
        if index_type is None:
            made["search"]["reason"] = search.get("reason", "as before")
        count = {"n": len(rows), "rows": len(rows), "removed": 0, "segments": []}
        names = sorted({*rows.arrays, *kept})
        version = draft.publish({**made, **count, "arrays": names}, only=True)
        return Changed(version, len(rows), removed=stored.manifest["removed"])


def _stored_rows(stored: StoredIndex, ids: Collection[str]) -> NDArray[np.int64]:
    rows = np.array([row for row, id_ in enumerate(stored.ids) if id_ in ids], np.int64)
    return rows if stored.stored_rows is None else stored.stored_rows[rows]


def _publish(
    draft: Draft,
    segments: Sequence[Mapping[str, Any]],
    gone: NDArray[np.bool_],
    written: int,
    added: int,
    removed: int,
) -> Changed:
    """Publish what was linked and written, with the list of removed rows."""
    rows = np.flatnonzero(gone)
    if len(rows):
        np.save(draft.folder / REMOVED, rows, allow_pickle=False)
    n = len(gone) + written - len(rows)
    version = draft.publish({"n": n, "removed": len(rows), "segments": list(segments)})
    return Changed(version, n, added, removed)


def _files_without(manifest: Mapping[str, Any], segments: Sequence[Mapping[str, Any]]) -> list[str]:
    """Files of a version but the list of removed rows and segments other than these."""
    dropped = {s["prefix"] for s in manifest["segments"]} - {s["prefix"] for s in segments}
    return [
        name
        for name in manifest["files"]
        if name != REMOVED and not any(name.startswith(prefix) for prefix in dropped)
    ]


def _next_number(stored: StoredIndex) -> int:
    """A number for a segment that no file of the version has."""
    prefixes = [segment["prefix"] for segment in stored.manifest["segments"]]
    return max((int(prefix[len("added-") : -1]) for prefix in prefixes), default=0) + 1


def _without_vectors(segment: Segment) -> Segment:
    return replace(segment, vectors=np.empty((len(segment), 0), np.float32))


def _write_vectors(path: Path, vectors: NDArray[np.float32]) -> None:
    with path.open("wb") as file:
        file.write(npy_header(*vectors.shape))
        file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
