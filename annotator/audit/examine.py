"""An audit as one call: images in, findings out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from annotator.audit.candidates import Views, looks_projection
from annotator.audit.duplicates import (
    LEAST_SCORE,
    Duplicate,
    find_duplicates,
    merged_groups,
    strongest_links,
)
from annotator.audit.findings import Finding, Kind
from annotator.audit.labels import Doubt, doubtful, lists_within
from annotator.audit.material import Material
from annotator.audit.splits import straddling
from annotator.audit.stored import Cases
from annotator.audit.unlike import distances_to, distances_within, strangers
from annotator.encoders.embedder import Embedder
from annotator.knn.cross_validation import LEAST_IMAGES
from index import LabelTable

_ORDER = ("leak", "straddle", "exact", "near", "label", "unlike")


@dataclass(frozen=True)
class Given:
    """What is known of the images of an audit, each by image id where it is known.

    Attributes:
        concepts: CUIs; None for no check of concepts.
        names: Name by CUI.
        groups: Patient, study or figure.
        sides: Side of a split.
    """

    concepts: Mapping[str, tuple[str, ...]] | None
    names: Mapping[str, str]
    groups: Mapping[str, str]
    sides: Mapping[str, str]


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        findings: By kind, in each kind the surest first.
        notes: What could not be checked, in sentences.
    """

    findings: Sequence[Finding]
    notes: Sequence[str]


def examine(
    material: Material,
    given: Given,
    embedder: Embedder,
    *,
    cases: Cases | None = None,
    least: float = LEAST_SCORE,
    workers: int = 1,
) -> Audit:
    """Look for everything that may be wrong with a collection.

    Args:
        material: The images.
        given: What is known of them.
        embedder: Made the vectors.
        cases: An index; images are then unlike if they resemble nothing in it, and it judges the
            concepts, unless it holds the images itself.
        least: Score of a near duplicate.
        workers: Threads.
    """
    ids, notes = material.ids, list[str]()
    projection = looks_projection(material.vectors, embedder.blocks)
    looks = projection.apply(material.vectors) if projection else np.array(material.vectors)
    duplicates = find_duplicates(
        material.images,
        material.contents,
        Views(looks, material.glances),
        least=least,
        workers=workers,
    )
    findings = _of_duplicates(duplicates, ids, given)
    for s in straddling(ids, given.groups, given.sides):
        counts = ", ".join(f"{n} in {side}" for side, n in s.sides)
        detail = f"group {s.group}: {counts}"
        findings.append(Finding("straddle", s.first, s.other, s.share, detail))
    # A copy says nothing of what an image resembles, nor which concepts are right.
    groups = merged_groups(ids, given.groups, duplicates)
    within = cases is None or 2 * len(set(ids) & set(cases.ids)) >= len(ids)
    if given.concepts is not None:
        doubts = _doubts(material, given, groups, embedder.blocks, None if within else cases)
        if doubts is None:
            notes.append(
                f"Concepts were not checked: that takes {LEAST_IMAGES} images with concepts, of "
                "several groups."
            )
        findings += [_of_doubt(doubt, ids, given.names) for doubt in doubts or ()]
    findings += _unlike(material, groups, cases, embedder.fingerprint.digest, notes)
    order = {kind: i for i, kind in enumerate(_ORDER)}
    return Audit(sorted(findings, key=lambda f: order[f.kind]), notes)


def _of_duplicates(
    duplicates: Sequence[Duplicate], ids: Sequence[str], given: Given
) -> list[Finding]:
    """All pairs that lie on two sides; of the others as many as hold together what is one.

    Pairs within one known group come last: who splits by group knows them to belong together.
    """
    kept = {(d.row, d.other) for d in strongest_links(duplicates, len(ids))}
    findings, known = list[Finding](), list[Finding]()
    for d in duplicates:
        a, b = ids[d.row], ids[d.other]
        sides = given.sides.get(a, ""), given.sides.get(b, "")
        leaks = "" not in sides and sides[0] != sides[1]
        if not leaks and (d.row, d.other) not in kept:
            continue
        details = [d.how]
        if leaks:
            details.append(f"{sides[0]} and {sides[1]}")
        group = given.groups.get(a, "")
        same_group = group != "" and group == given.groups.get(b, "")
        if same_group:
            details.append(f"both of group {group}")
        if given.concepts is not None:
            ours, theirs = set(given.concepts.get(a, ())), set(given.concepts.get(b, ()))
            if a in given.concepts and b in given.concepts and ours != theirs:
                details.append(f"concepts differ: {_listed(ours ^ theirs, given.names)}")
        kind: Kind = "leak" if leaks else "exact" if d.exact else "near"
        finding = Finding(kind, a, b, d.score, "; ".join(details))
        (known if same_group else findings).append(finding)
    return findings + known


def _doubts(
    material: Material,
    given: Given,
    groups: Sequence[str],
    blocks: tuple[int, ...],
    cases: Cases | None,
) -> list[Doubt] | None:
    """Doubtful concepts, by row of `material`; None where there is too little to judge by."""
    concepts = given.concepts or {}
    rows = np.array([row for row, id_ in enumerate(material.ids) if id_ in concepts], np.int64)
    if not len(rows):
        return None
    ids = [material.ids[row] for row in rows]
    sets = [concepts[id_] for id_ in ids]
    vectors = material.vectors if len(rows) == len(material.ids) else material.vectors[rows]
    if cases is not None:
        lists = cases.lists(vectors, ids, [given.groups.get(id_, "") for id_ in ids])
        if lists is None:
            return None
        doubts = doubtful(lists, cases.labels, sets, voting=cases.voting)
    else:
        of_rows = [groups[row] for row in rows]
        lists = lists_within(vectors, sets, of_rows, blocks=blocks)
        if lists is None:
            return None
        doubts = doubtful(lists, LabelTable.from_sets(sets), sets)
    return [Doubt(int(rows[d.row]), d.score, d.lacks, d.holds) for d in doubts]


def _of_doubt(doubt: Doubt, ids: Sequence[str], names: Mapping[str, str]) -> Finding:
    parts = []
    for word, concepts in (("lacks", doubt.lacks), ("holds", doubt.holds)):
        if concepts:
            shown = ", ".join(f"{_named(c, names)} ({share:.0%} of votes)" for c, share in concepts)
            parts.append(f"{word} {shown}")
    return Finding("label", ids[doubt.row], "", doubt.score, "; ".join(parts))


def _unlike(
    material: Material,
    groups: Sequence[str],
    cases: Cases | None,
    fingerprint: str,
    notes: list[str],
) -> list[Finding]:
    if cases is not None:
        known = cases.vectors(fingerprint)
        if known is None:
            notes.append(
                "Unlike images were not looked for: the vectors of the index's images are not in "
                "its cache."
            )
            return []
        # An image that the index holds is not compared with itself.
        ids, vectors = known
        number = {id_: n for n, id_ in enumerate(ids)}
        own = np.array([number.get(id_, -1) for id_ in material.ids])
        theirs = np.arange(len(ids))
        distances = distances_to(vectors, material.vectors, theirs, own)
        typical = distances_to(vectors, vectors, theirs, theirs)
        where = "case of the index"
    elif len(material.images) < LEAST_IMAGES:
        notes.append(f"Unlike images were not looked for: that takes {LEAST_IMAGES} images.")
        return []
    else:
        typical = distances = distances_within(material.vectors, groups)
        where = "other image"
    return [
        Finding(
            "unlike",
            material.ids[s.row],
            "",
            min(s.distance / 2, 1.0),
            f"distance {s.distance:.3f} to its fifth nearest {where}; from {s.threshold:.3f} on is "
            "unusual",
        )
        for s in strangers(distances, typical)
    ]


def _listed(cuis: set[str], names: Mapping[str, str]) -> str:
    return ", ".join(_named(cui, names) for cui in sorted(cuis))


def _named(cui: str, names: Mapping[str, str]) -> str:
    return f"{cui} {names[cui]}" if names.get(cui) else cui
