"""What an index is, and whether it is sound."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from annotator.record import recorded_encoder, recorded_voting
from index import IndexProblem, StoredIndex, open_index
from index.backends.protocol import check_unit
from index.manifest import check_files, read_manifest

_PROBES = 100
_ROWS_AT_ONCE = 8192


def describe(stored: StoredIndex, directory: Path) -> dict[str, Any]:
    """What `annotator info` shows, as plain JSON types.

    Raises:
        AnnotatorError: The index does not say how it was built.
    """
    manifest, labels = stored.manifest, stored.labels
    encoder, fingerprint = recorded_encoder(stored)
    top = np.argsort(-labels.frequencies, kind="stable")[:10]
    return {
        "index": str(directory),
        "version": stored.version,
        "images": len(stored.ids),
        "concepts": len(labels.cuis),
        "concepts_per_image": round(float(labels.sizes.mean()), 3),
        "index_type": manifest["index_type"],
        "search": dict(manifest["search"]),
        "added": sum(segment["rows"] for segment in manifest["segments"]),
        "removed": manifest["removed"],
        "dim": manifest["dim"],
        "bytes": sum(file["bytes"] for file in manifest["files"].values()),
        "embedder": encoder,
        "fingerprint": fingerprint.digest,
        "precision": fingerprint.precision,
        "voting": asdict(recorded_voting(stored)),
        "columns": sorted(stored.columns),
        "most_frequent": [
            {
                "cui": labels.cuis[j],
                "name": stored.names.get(labels.cuis[j], ""),
                "images": int(labels.frequencies[j]),
            }
            for j in top
        ],
        "written_by": manifest["libraries"],
    }


def verify(directory: Path) -> list[str]:
    """Everything that is wrong with the current version, as sentences; empty if it is sound.

    Checks the manifest, the size and sha256 of each file, that vectors, ids and labels have the
    same rows, that every vector is finite and of unit norm, and that a search for the vectors of
    some rows finds those rows. Repairs nothing.
    """
    try:
        version, manifest = read_manifest(directory)
    except IndexProblem as problem:
        return [problem.message]
    problems = [f"{version}/{p}" for p in check_files(directory / version, manifest)]
    if problems:
        return problems
    try:
        stored = open_index(directory)
        for segment in stored.segments:
            for start in range(0, len(segment), _ROWS_AT_ONCE):
                part = segment.vectors[start : start + _ROWS_AT_ONCE]
                check_unit(part, manifest["dim"], "vectors")
        problems += _lost(stored)
    except IndexProblem as problem:
        problems.append(problem.message)
    return problems


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
