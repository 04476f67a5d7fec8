"""Findings of an audit: one type for all kinds, and the table, JSON and limits of a report."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from annotator.tables.spreadsheets import harmless

if TYPE_CHECKING:
    from annotator.errors import ImageError
    from annotator.images.ref import ImageRef
    from index import StoredIndex

Kind = Literal["exact", "near", "leak", "straddle", "label", "unlike", "copy", "close", "source"]
Flag = Literal["copy", "close", "source"]

KINDS: tuple[Kind, ...] = get_args(Kind)
#: The kinds in the order of a report.
ORDER: tuple[Kind, ...] = (
    "leak", "straddle", "exact", "near", "label", "unlike", "copy", "close", "source",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """An image that another one may come from.

    Attributes:
        image_id: The source.
        flag: "copy" where the pixels agree, "close" where it is more similar than the
            collection's images are to each other, else "source".
        correlation: Of the fine structure, of a copy; else 0.
        similarity: Of the projected vectors, -1..1.
        closeness: Share of the collection's own images that are less similar than that to their
            nearest other image; 0..1.
        how: "changed", "mirrored" or "same pixels" for a copy; else empty.
    """

    image_id: str
    flag: Flag
    correlation: float
    similarity: float
    closeness: float
    how: str

    @property
    def score(self) -> float:
        """The correlation of a copy, the closeness of any other."""
        return self.correlation if self.flag == "copy" else self.closeness

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "id": self.image_id,
            "flag": self.flag,
            "correlation": round(self.correlation, 4),
            "similarity": round(self.similarity, 4),
            "closeness": round(self.closeness, 4),
        }


@dataclass(frozen=True)
class Finding:
    """One row of the table.

    Attributes:
        kind: "exact" (same file or same pixels), "near" (the same picture after a change), "leak"
            (either, on two sides of a split), "straddle" (a group on two sides), "label" (concepts
            that its neighbours contradict), "unlike" (an outlier); against another collection
            "copy" (the same picture), "close" (more similar than usual) and "source" (the most
            similar one, no more).
        image_id: The image; for "straddle" one of the group.
        other_id: The other image, where there is one.
        score: 0..1, the higher the surer; what it is depends on the kind (docs/audit.md).
        detail: The rest, in words.
        sources: Against another collection the image's most likely sources, ranked.
    """

    kind: Kind
    image_id: str
    other_id: str
    score: float
    detail: str
    sources: tuple[Source, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        row = {
            "kind": self.kind,
            "id": self.image_id,
            "other_id": self.other_id,
            "score": round(self.score, 4),
            "detail": self.detail,
        }
        if self.sources:
            row["sources"] = [source.to_dict() for source in self.sources]
        return row


@dataclass(frozen=True)
class AuditResult:
    """Findings of an audit.

    Attributes:
        images: The images that could be used.
        findings: In the order of `ORDER`, within each kind the surest first.
        notes: What could not be checked, in sentences.
        failed: Error by path of each image that could not be used.
        others: Images of `Finding.other_id`: others, those of an index, or None for `images`.
    """

    images: Sequence[ImageRef]
    findings: Sequence[Finding]
    notes: Sequence[str]
    failed: Mapping[str, ImageError]
    others: Sequence[ImageRef] | StoredIndex | None = None

    def to_dict(self, shown: Sequence[Finding]) -> dict[str, Any]:
        """As plain JSON types, with some of the findings."""
        return {
            "images": len(self.images),
            "counts": dict(Counter(finding.kind for finding in self.findings)),
            "notes": list(self.notes),
            "failed": {where: error.message for where, error in self.failed.items()},
            "findings": [finding.to_dict() for finding in shown],
        }


def to_csv(findings: Sequence[Finding]) -> str:
    """A table with a header; comma-separated, lines end in a line feed."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("kind", "id", "other_id", "score", "detail"))
    for f in findings:
        image_id, other_id, detail = map(harmless, (f.image_id, f.other_id, f.detail))
        writer.writerow((f.kind, image_id, other_id, f"{f.score:.4f}", detail))
    return file.getvalue()


def limited(findings: Sequence[Finding], limit: int) -> tuple[list[Finding], dict[str, int]]:
    """The first `limit` findings of each kind, and the number of the others by kind."""
    shown, left_out = list[Finding](), Counter[str]()
    seen = Counter[str]()
    for finding in findings:
        seen[finding.kind] += 1
        if seen[finding.kind] <= limit:
            shown.append(finding)
        else:
            left_out[finding.kind] += 1
    return shown, dict(left_out)
