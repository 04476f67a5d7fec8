"""What an index is, in words."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from annotator.indexing.metadata import recorded_encoder, recorded_voting
from index.protocols import Index, IndexLocation


def describe(stored: Index, place: IndexLocation) -> dict[str, Any]:
    """What `annotator info` shows, as plain JSON types.

    Raises:
        AnnotatorError: The index does not say how it was built.
    """
    manifest, concepts = stored.manifest, stored.concepts
    encoder, fingerprint = recorded_encoder(stored)
    top = sorted(concepts.items(), key=lambda concept: (-concept[1], concept[0]))[:10]
    return {
        "index": str(place),
        "version": stored.version,
        "images": len(stored),
        "concepts": len(concepts),
        "concepts_per_image": round(sum(concepts.values()) / len(stored), 3),
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
        "columns": sorted(manifest["columns"]),
        "most_frequent": [
            {"cui": cui, "name": stored.names.get(cui, ""), "images": images} for cui, images in top
        ],
        "written_by": manifest["libraries"],
    }
