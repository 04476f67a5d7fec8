"""Whether a stored index is sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from index.errors import IndexProblem
from index.folder.store import StoredIndex, open_index
from index.manifest import check_files, read_manifest
from index.search.base import check_unit

_PROBES = 100
_ROWS_AT_ONCE = 8192


def problems(directory: Path) -> list[str]:
    """Everything that is wrong with the current version, as sentences; empty if it is sound.

    Checks the manifest, the size and sha256 of each file, that vectors, ids and labels have the
    same rows, that every vector is finite and of unit norm, and that a search for the vectors of
    some rows finds those rows. Repairs nothing.
    """
    try:
        version, manifest = read_manifest(directory)
    except IndexProblem as problem:
        return [problem.message]
    found = [f"{version}/{p}" for p in check_files(directory / version, manifest)]
    if found:
        return found
    try:
        stored = open_index(directory)
        for segment in stored.segments:
            for start in range(0, len(segment), _ROWS_AT_ONCE):
                part = segment.vectors[start : start + _ROWS_AT_ONCE]
                check_unit(part, manifest["dim"], "vectors")
        found += _lost(stored)
    except IndexProblem as problem:
        found.append(problem.message)
    return found


def _lost(stored: StoredIndex) -> list[str]:
    """Rows that a search for their own vectors does not find."""
    probes = np.unique(np.linspace(0, len(stored.ids) - 1, _PROBES).astype(np.int64))
    found = stored.index.search(stored.vectors(probes), 1)
    # A row with the same vector (a copy of the image) may come first instead.
    lost = probes[(found.rows[:, 0] != probes) & (found.similarities[:, 0] < 1 - 1e-5)]
    if stored.manifest["index_type"] in ("flat", "scan"):
        return [f"A search for row {row} ({stored.ids[row]}) does not find it." for row in lost]
    # An approximate search may miss some.
    if len(lost) > len(probes) // 10:
        return [f"Searches for {len(probes)} of its own rows do not find {len(lost)} of them."]
    return []
