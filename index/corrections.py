"""Corrections: who changed which image's labels, when, from what to what, and why.

A version of an index in a folder keeps those of its images as `history.jsonl`, one JSON object a
line, oldest first. Their numbers ascend, and the manifest names the last one that a version holds,
so a correction that comes twice counts once.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem

_TEXTS = ("id", "by", "at", "reason")


@dataclass(frozen=True)
class NewRow:
    """What belongs to an image that a correction adds, beside its labels.

    Attributes:
        vector: float32[dim] of unit norm, in the space of the index.
        content: sha256 of the image file.
        thumbnail: A JPEG; empty for none.
        columns: Further text by column name.
    """

    vector: NDArray[np.float32]
    content: bytes
    thumbnail: bytes = b""
    columns: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> NewRow:
        """Inverse of `to_dict`."""
        vector = np.frombuffer(base64.b64decode(fields["vector"], validate=True), "<f4")
        return cls(
            vector.astype(np.float32),
            bytes.fromhex(fields["content"]),
            base64.b64decode(fields["thumbnail"], validate=True),
            {str(name): str(text) for name, text in fields["columns"].items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "vector": base64.b64encode(self.vector.astype("<f4").tobytes()).decode("ascii"),
            "content": self.content.hex(),
            "thumbnail": base64.b64encode(self.thumbnail).decode("ascii"),
            "columns": dict(self.columns),
        }


@dataclass(frozen=True)
class Correction:
    """A change of one image's labels.

    Attributes:
        number: Ascending; the first one of an index is 1.
        image_id: Of the image.
        before: Its concepts before, ascending; None if the index did not have the image.
        after: Its concepts after, ascending; None if the image was removed.
        by: Who made it.
        at: When, in UTC, such as "2026-11-30T13:05:09Z".
        reason: Why; "" if nobody said so.
        names: Names of concepts that the index may not know.
        row: Of an image that is added; not kept in a history.
    """

    number: int
    image_id: str
    before: tuple[str, ...] | None
    after: tuple[str, ...] | None
    by: str
    at: str
    reason: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    row: NewRow | None = None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Correction:
        """Inverse of `to_dict`.

        Raises:
            IndexProblem: It is no correction.
        """
        try:
            if not all(isinstance(fields[name], str) for name in _TEXTS):
                raise TypeError
            row = fields.get("row")
            return cls(
                number=int(fields["number"]),
                image_id=fields["id"],
                before=_labels(fields["before"]),
                after=_labels(fields["after"]),
                by=fields["by"],
                at=fields["at"],
                reason=fields["reason"],
                names={str(cui): str(name) for cui, name in fields.get("names", {}).items()},
                row=None if row is None else NewRow.from_dict(row),
            )
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
            raise IndexProblem("A correction is damaged.") from error

    def to_dict(self, *, with_row: bool = False) -> dict[str, Any]:
        """Plain JSON types."""
        fields = {
            "number": self.number,
            "id": self.image_id,
            "before": self.before,
            "after": self.after,
            "by": self.by,
            "at": self.at,
            "reason": self.reason,
        }
        if self.names:
            fields["names"] = dict(self.names)
        if with_row and self.row is not None:
            fields["row"] = self.row.to_dict()
        return fields


def _labels(listed: object) -> tuple[str, ...] | None:
    if listed is None:
        return None
    if not isinstance(listed, list) or not all(isinstance(cui, str) for cui in listed):
        raise TypeError
    return tuple(listed)


def now() -> str:
    """The time in UTC, to the second, as corrections have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def history_to_bytes(corrections: Iterable[Correction]) -> bytes:
    """The lines of a history."""
    lines = (json.dumps(one.to_dict(), ensure_ascii=False) for one in corrections)
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")


def history_from_bytes(data: bytes) -> list[Correction]:
    """Inverse of `history_to_bytes`.

    Raises:
        IndexProblem: It is damaged.
    """
    try:
        return [Correction.from_dict(json.loads(line)) for line in data.splitlines()]
    except ValueError as error:
        raise IndexProblem("The history is damaged: a line is no JSON.") from error


@dataclass(frozen=True)
class Changes:
    """What some corrections come to.

    Attributes:
        labels: New concepts by image id, of images that the index has.
        removed: Ids of images that the index has and that go; those that are added anew as well.
        added: The last correction of each image that comes, with its row.
        names: Name of each concept that the corrections name.
    """

    labels: Mapping[str, tuple[str, ...]]
    removed: frozenset[str]
    added: Sequence[Correction]
    names: Mapping[str, str]

    @classmethod
    def of(cls, corrections: Sequence[Correction], present: Collection[str]) -> Changes:
        """Sum up corrections, oldest first.

        Args:
            corrections: Of any images; those of images that are neither there nor added come to
                nothing.
            present: Ids of the images that the index has.
        """
        after: dict[str, tuple[str, ...] | None] = {}
        rows: dict[str, NewRow] = {}
        names: dict[str, str] = {}
        for one in corrections:
            after[one.image_id] = one.after
            if one.after is None:
                rows.pop(one.image_id, None)
            elif one.row is not None:
                rows[one.image_id] = one.row
            names |= one.names
        last = {one.image_id: one for one in corrections}
        added = [replace(last[id_], row=row) for id_, row in rows.items()]
        return cls(
            labels={
                id_: cuis
                for id_, cuis in after.items()
                if cuis is not None and id_ not in rows and id_ in present
            },
            removed=frozenset(
                id_
                for id_, cuis in after.items()
                if id_ in present and (cuis is None or id_ in rows)
            ),
            added=added,
            names=names,
        )
