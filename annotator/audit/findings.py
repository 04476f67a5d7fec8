"""What an audit found, as rows of a table."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal["exact", "near", "leak", "straddle", "label", "unlike", "copy", "close", "source"]

KINDS: tuple[str, ...] = get_args(Kind)
#: What a kind means, for people, as the heading of a list.
TITLES: dict[str, str] = {
    "leak": "Copies on both sides of the split",
    "straddle": "Groups on both sides of the split",
    "exact": "Exact duplicates",
    "near": "Near duplicates",
    "label": "Likely label errors",
    "unlike": "Images unlike any other",
    "copy": "Copies of an image of the other collection",
    "close": "Closer to an image of the other collection than its own images are to each other",
    "source": "Other images with their most likely sources",
}


@dataclass(frozen=True)
class Finding:
    """One row of the table.

    Attributes:
        kind: "exact" (same file or same pixels), "near" (the same picture after a change), "leak"
            (either, on two sides of a split), "straddle" (a group on two sides), "label" (concepts
            that its neighbours contradict), "unlike" (resembles nothing); against another
            collection "copy" (the same picture), "close" (more similar than usual) and "source"
            (the most similar one, no more).
        image_id: The image; for "straddle" one of the group.
        other_id: The other image, where there is one.
        score: 0..1, the higher the surer; what it is depends on the kind (docs/audit.md).
        detail: The rest, in words.
    """

    kind: Kind
    image_id: str
    other_id: str
    score: float
    detail: str


def to_csv(findings: Sequence[Finding]) -> str:
    """A table with a header; comma-separated, lines end in a line feed."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("kind", "id", "other_id", "score", "detail"))
    for f in findings:
        writer.writerow((f.kind, f.image_id, f.other_id, f"{f.score:.4f}", f.detail))
    return file.getvalue()


def to_dict(finding: Finding) -> dict[str, Any]:
    """As plain JSON types."""
    return {
        "kind": finding.kind,
        "id": finding.image_id,
        "other_id": finding.other_id,
        "score": round(finding.score, 4),
        "detail": finding.detail,
    }


def limited(findings: Sequence[Finding], limit: int) -> tuple[list[Finding], dict[str, int]]:
    """The first `limit` of each kind, and how many more there are of which kind."""
    shown, left_out = list[Finding](), dict[str, int]()
    seen = Counter[str]()
    for finding in findings:
        seen[finding.kind] += 1
        if seen[finding.kind] <= limit:
            shown.append(finding)
        else:
            left_out[finding.kind] = left_out.get(finding.kind, 0) + 1
    return shown, left_out
