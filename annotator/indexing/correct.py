"""Correct the labels of images that an index has, without their pictures."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from annotator.ids import by_image
from annotator.tables.corrections import WantedLabels
from index import StoredIndex
from index.corrections import Correction, now
from index.locations import locate
from index.protocols import Changed, IndexLocation


@dataclass(frozen=True)
class Relabelled:
    """Result of relabelling images.

    Attributes:
        change: Change of the index.
        corrections: What was changed.
        unchanged: Number of images that had the wanted concepts already.
        unknown: Ids that the index does not have.
        new_concepts: Concepts that no image of the index had before.
        notes: What is to be said of ids that differ from the index's own.
    """

    change: Changed
    corrections: tuple[Correction, ...]
    unchanged: int
    unknown: tuple[str, ...]
    new_concepts: tuple[str, ...]
    notes: tuple[str, ...]


def undone_corrections(place: IndexLocation) -> list[Correction]:
    """The last correction of each image that has other labels now, as after a new build."""
    last = {one.image_id: one for one in place.history()}
    if not last:
        return []
    found = place.open().with_ids(list(last))
    present = {id_: found.labels.row(row) for row, id_ in enumerate(found.ids)}
    return [one for id_, one in last.items() if id_ in present and one.after != present[id_]]


def relabel_images(
    directory: Path | str | IndexLocation,
    wanted: Mapping[str, WantedLabels],
    *,
    by: str | None = None,
    reason: str = "",
    names: Mapping[str, str] | None = None,
    source: Path | str = "the corrections",
) -> Relabelled:
    """Give images of an index other concepts, as one version, and keep who did it and why.

    Vectors, the projection and the voting parameters stay; the vote has the new concepts at once,
    and `tune_index` tunes on them.

    Args:
        directory: Index.
        wanted: By image id; file names will do (`annotator.ids`).
        by: Who makes the corrections; None for the user of this process.
        reason: Why, where `wanted` does not say.
        names: Names of concepts that the index may not know.
        source: Where they come from, for messages.

    Raises:
        IndexProblem: There is no index, it is one whose labels cannot be corrected, or another
            process is writing to it.
    """
    place = locate(directory)
    place.settle()
    stored = place.open()
    ids = stored.ids if isinstance(stored, StoredIndex) else list(wanted)
    notes: list[str] = []
    wanted = by_image(wanted, ids, source, notes)
    found = stored.with_ids(list(wanted))
    present = {id_: found.labels.row(row) for row, id_ in enumerate(found.ids)}
    at, by = now(), getpass.getuser() if by is None else by
    corrections: list[Correction] = []
    number = stored.manifest.corrections
    for id_, before in present.items():
        after = wanted[id_].of(before)
        if after != before:
            number += 1
            named = {cui: names[cui] for cui in after if names and cui in names}
            why = wanted[id_].reason or reason
            corrections.append(Correction(number, id_, before, after, by, at, why, named))
    given = {cui for one in corrections for cui in one.after or ()}
    return Relabelled(
        place.correct(corrections, of=stored.version),
        tuple(corrections),
        len(present) - len(corrections),
        tuple(id_ for id_ in wanted if id_ not in present),
        tuple(sorted(given - stored.concepts.keys())),
        tuple(notes),
    )
