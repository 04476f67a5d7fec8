"""The images of the served index as a list: by concept, group and id, in an order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from index.sampling import sample_rows
from service.answers import names_of, picture_path
from service.engine import Engine
from service.judgements import Judged, Judgements
from service.problems import Problem, no_such_image
from service.service import Service

if TYPE_CHECKING:
    from index.folder.store import StoredIndex
    from service.schemas import ImagesQuery, MapQuery

_MOST_FACETS = 100  # concepts, and groups
_MOST_MAPPED = 100_000  # points of an answer


class _Mapped(NamedTuple):
    """Where rows lie: int64[n, 2] from 0 to below `MAP_SIZE`, and what the axes are."""

    of: object
    points: NDArray[np.int64]
    axes: tuple[str, str]


class Catalogue:
    """Lists the images of the served index; keeps where they lie."""

    def __init__(self, service: Service, judgements: Judgements) -> None:
        self._service = service
        self._judgements = judgements
        self._mapped: _Mapped | None = None
        self._mapping = asyncio.Lock()

    async def list(self, request: Request, query: ImagesQuery) -> dict[str, Any]:
        """A part of the list, as `schemas.ImagesOut`.

        Raises:
            Problem: As `Service.search`; 409, the index is on a server.
        """
        judged = mapped = None
        if query.sort != "stored" and not query.like:
            _stored(self._service.engine)  # else there is nothing to judge
            judged = await self._judgements.take(request)
        if query.region:
            mapped = await self._map_of_all(request)
        return await self._service.search(
            request, lambda engine: _listed(engine, query, judged, mapped)
        )

    async def map(self, request: Request, query: MapQuery) -> dict[str, Any]:
        """Where images lie, as `schemas.MapOut`.

        Raises:
            Problem: As `list`.
        """
        mapped = await self._map_of_all(request)
        return await self._service.search(request, lambda engine: _drawn(engine, query, mapped))

    async def _map_of_all(self, request: Request) -> _Mapped:
        async with self._mapping:
            if known := self._known_map(self._service.engine):
                return known  # without waiting for what takes long
            return await self._service.search(request, self._lay_out, long=True)

    def _known_map(self, engine: Engine) -> _Mapped | None:
        known = self._mapped
        return known if known is not None and known.of is _stored(engine).index else None

    def _lay_out(self, engine: Engine) -> _Mapped:
        from annotator.map.layout import pca
        from service.schemas import MAP_SIZE

        if known := self._known_map(engine):  # made for a request that did not wait for it
            return known
        stored = _stored(engine)
        layout = pca(stored.blocks)
        lowest = layout.positions.min(axis=0)
        extent = np.maximum(layout.positions.max(axis=0) - lowest, 1e-12)
        points = np.rint((layout.positions - lowest) / extent * (MAP_SIZE - 1)).astype(np.int64)
        self._mapped = mapped = _Mapped(stored.index, points, layout.axes)
        return mapped


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


def _drawn(engine: Engine, query: MapQuery, mapped: _Mapped) -> dict[str, Any]:
    stored = _stored(engine)
    rows = _filtered(stored, query)
    rows = rows[rows < len(mapped.points)]  # later ones are on the next map
    points = mapped.points[rows[sample_rows(len(rows), _MOST_MAPPED)]]
    return {
        "index_version": stored.version,
        "total": len(rows),
        "axes": list(mapped.axes),
        "x": points[:, 0].tolist(),
        "y": points[:, 1].tolist(),
    }


def _listed(
    engine: Engine, query: ImagesQuery, judged: Judged | None, mapped: _Mapped | None
) -> dict[str, Any]:
    stored = _stored(engine)
    rows = _filtered(stored, query)
    if mapped is not None:
        rows = rows[rows < len(mapped.points)]
        corners = np.array(query.region.split(","), np.int64).reshape(-1, 2)
        rows = rows[_inside(mapped.points[rows], corners)]
    rows = _in_order(stored, rows, query.sort, judged)
    similarities: NDArray[np.float64] | None = None
    if query.like:
        rows, similarities = _by_similarity(stored, rows, query.like)
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
            "similarity": None if similarities is None else round(float(similarities[row]), 4),
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


def _filtered(stored: StoredIndex, query: ImagesQuery | MapQuery) -> NDArray[np.int64]:
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


def _inside(points: NDArray[np.int64], corners: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which points, int64[m, 2], lie within a polygon, int64[c, 2], or on its lower left edges.

    A ray to the right crosses the edges of the polygon an odd number of times (even-odd rule;
    Haines 1994, "Point in polygon strategies").
    """
    inside = np.zeros(len(points), bool)
    x, y = points.T
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        crossed = (y0 <= y) != (y1 <= y)
        # In whole numbers: (x - x0) (y1 - y0) against (y - y0) (x1 - x0), by the edge's direction.
        side = (x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)
        inside ^= crossed & ((side < 0) if y1 > y0 else (side > 0))
    return inside


def _by_similarity(
    stored: StoredIndex, rows: NDArray[np.int64], image_id: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows by falling similarity to an image, the first of them; similarities of all, float64[n].

    Raises:
        Problem: 404, there is no such image.
    """
    row = stored.row_of.get(image_id)
    if row is None:
        raise no_such_image("GET /v1/search finds images.")
    (vector,) = stored.vectors(np.array([row], np.int64))
    similarities = np.concatenate([block @ vector for block in stored.blocks()]).astype(np.float64)
    similarities[row] = 1.0
    rows = rows[np.argsort(-similarities[rows] - (rows == row), kind="stable")]
    return rows, similarities


def _in_order(
    stored: StoredIndex, rows: NDArray[np.int64], sort: str, judged: Judged | None
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
