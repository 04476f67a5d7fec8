"""The images of the served index as a list: by concept, group and id, in an order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from service.answers import names_of, picture_path
from service.engine import Engine
from service.problems import Problem
from service.queue import MOST_JUDGED, STALE
from service.service import Service

if TYPE_CHECKING:
    from index.folder.store import StoredIndex
    from service.schemas import ImagesQuery

_MOST_FACETS = 100  # concepts, and groups


class _Judged(NamedTuple):
    """What is known of the images of a version: F1 to be gained of each, and its familiarity."""

    version: str
    corrections: int
    doubts: Mapping[str, float]
    familiarities: Mapping[str, float]


class Catalogue:
    """Lists the images of the served index, and keeps what they were judged by."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._judged: _Judged | None = None
        self._judging = asyncio.Lock()

    async def list(self, request: Request, query: ImagesQuery) -> dict[str, Any]:
        """A part of the list, as `schemas.ImagesOut`.

        Raises:
            Problem: As `Service.search`; 409, the index is on a server.
        """
        judged = None
        if query.sort != "stored":
            async with self._judging:  # once for all who wait
                judged = await self._service.search(request, self._judge)
        return await self._service.search(request, lambda engine: _listed(engine, query, judged))

    def _judge(self, engine: Engine) -> _Judged:
        from annotator.knn.familiarity import familiarity_of_cases
        from annotator.queue.rank import doubts_of

        stored = _stored(engine)
        known, corrections = self._judged, stored.manifest.corrections
        same = known is not None and known.version == stored.version
        if known is not None and same and corrections - known.corrections < STALE:
            return known
        self._judged = judged = _Judged(
            stored.version,
            corrections,
            _by_id(stored, doubts_of(stored, engine.annotator.voting, most=MOST_JUDGED)),
            _by_id(stored, familiarity_of_cases(stored, engine.annotator.metadata)),
        )
        return judged


def _stored(engine: Engine) -> StoredIndex:
    from index.folder.store import StoredIndex

    if not isinstance(engine.stored, StoredIndex):
        raise Problem(
            409,
            "no_list",
            "An index on a server does not list its images.",
            "Search for them: GET /v1/search.",
        )
    return engine.stored


def _by_id(stored: StoredIndex, values: NDArray[np.float64]) -> dict[str, float]:
    """Values of rows by image id; nan for unknown ones."""
    return dict(zip(stored.ids, values.tolist(), strict=True))


def _listed(engine: Engine, query: ImagesQuery, judged: _Judged | None) -> dict[str, Any]:
    stored = _stored(engine)
    rows = _in_order(stored, _filtered(stored, query), query.sort, judged)
    some = rows[query.offset : query.offset + query.limit].tolist()
    concepts = [stored.labels.row(row) for row in some]
    groups = stored.columns.get("groups")
    images = [
        {
            "id": stored.ids[row],
            "concepts": list(labels),
            "group": groups[row] if groups else "",
            "thumbnail": picture_path(engine, stored.ids[row]),
            "doubt": _known(judged.doubts if judged else {}, stored.ids[row]),
            "familiarity": _known(judged.familiarities if judged else {}, stored.ids[row]),
        }
        for row, labels in zip(some, concepts, strict=True)
    ]
    facets = _facets(stored, rows) if query.facets else {"concepts": [], "groups": []}
    named = [cui for labels in concepts for cui in labels]
    named += [*query.concept, *(one["cui"] for one in facets["concepts"])]
    return {
        "index_version": stored.version,
        "total": len(rows),
        "images": images,
        "facets": facets,
        "names": names_of(engine, named),
    }


def _known(values: Mapping[str, float], id_: str) -> float | None:
    value = values.get(id_, np.nan)
    return None if np.isnan(value) else round(float(value), 4)


def _filtered(stored: StoredIndex, query: ImagesQuery) -> NDArray[np.int64]:
    """The rows that have all of the concepts, the group, and the text in their ids."""
    kept = np.ones(len(stored), bool)
    for cui in query.concept:
        holders = np.zeros(len(stored), bool)
        holders[stored.labels.holders(cui)] = True
        kept &= holders
    rows = np.flatnonzero(kept)
    if query.group:
        groups: Sequence[str] = stored.columns.get("groups", ())
        rows = np.array(
            [row for row in rows.tolist() if groups and groups[row] == query.group], int
        )
    if query.q:
        wanted = query.q.casefold()
        rows = np.array([row for row in rows.tolist() if wanted in stored.ids[row].casefold()], int)
    return rows.astype(np.int64)


def _in_order(
    stored: StoredIndex, rows: NDArray[np.int64], sort: str, judged: _Judged | None
) -> NDArray[np.int64]:
    """The rows, the most doubtful or the least familiar first; unknown ones last."""
    if judged is None:
        return rows
    of, sign = (judged.doubts, -1) if sort == "doubt" else (judged.familiarities, 1)
    values = np.array([of.get(stored.ids[row], np.nan) for row in rows.tolist()], np.float64)
    return rows[np.argsort(sign * values, kind="stable")]


def _facets(stored: StoredIndex, rows: NDArray[np.int64]) -> dict[str, Any]:
    """How many of the rows have each concept, and are of each group; the most frequent first."""
    labels = stored.labels
    counts = np.bincount(labels.indices[labels.entries(rows)], minlength=len(labels.cuis))
    most = [j for j in np.argsort(-counts, kind="stable")[:_MOST_FACETS].tolist() if counts[j]]
    groups: list[dict[str, Any]] = []
    if column := stored.columns.get("groups"):
        names, sizes = np.unique([column[row] for row in rows.tolist()], return_counts=True)
        order = np.argsort(-sizes, kind="stable")[:_MOST_FACETS].tolist()
        groups = [{"group": str(names[j]), "images": int(sizes[j])} for j in order if names[j]]
    return {
        "concepts": [{"cui": labels.cuis[j], "images": int(counts[j])} for j in most],
        "groups": groups,
    }
