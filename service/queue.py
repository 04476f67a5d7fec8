"""The images of the index to review next, ranked anew once enough was corrected."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.requests import Request

from annotator.errors import AnnotatorError
from index.errors import IndexProblem
from index.locations import locate
from index.protocols import Index
from service.engine import Engine
from service.observability import log
from service.problems import Problem
from service.schemas import MOST_QUEUED
from service.service import Service

if TYPE_CHECKING:
    from annotator.queue.rank import Queue

STALE = 20  # corrections after which the images are judged anew
MOST_JUDGED = 5000  # images without neighbour lists; more are sampled


class _Ranked(NamedTuple):
    stored: Index
    queue: Queue


class ReviewQueue:
    """Ranks the images of the served index, and keeps the ranking while it is about right."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ranked: _Ranked | None = None
        self._first = asyncio.Lock()
        self._again: asyncio.Task[None] | None = None
        self._published: tuple[str, frozenset[str]] = ("", frozenset())

    async def take(self, request: Request, limit: int) -> dict[str, Any]:
        """The first images that nobody has reviewed, as `schemas.QueueOut`.

        The first request waits until they are ranked. Later, the ranking before is taken until
        there is a new one.

        Raises:
            Problem: As `Service.search`; 409, the index is on a server.
        """
        ranked = self._ranked
        if ranked is None or self._is_other(ranked):
            async with self._first:
                ranked = self._ranked
                if ranked is None or self._is_other(ranked):
                    ranked = await self._service.search(request, self._rank, long=True)
        elif self._corrections - ranked.stored.manifest.corrections >= STALE:
            self._rank_again()
        reviewed = await asyncio.to_thread(self._reviewed)
        items = [item for item in ranked.queue.items if item.image_id not in reviewed]
        return {
            "items": [
                {"id": item.image_id, "gain": round(item.gain, 6), "reason": item.reason}
                for item in items[:limit]
            ],
            "total": ranked.queue.total - len(ranked.queue.items) + len(items),
        }

    def _is_other(self, ranked: _Ranked) -> bool:
        """Whether another index is served than was ranked: not the same one with corrections."""
        now = self._service.engine.stored
        return self._service.corrections is None and now.version != ranked.stored.version

    @property
    def _corrections(self) -> int:
        return self._service.engine.stored.manifest.corrections

    def _rank(self, engine: Engine) -> _Ranked:
        from annotator.queue.rank import rank_indexed

        try:
            queue = rank_indexed(
                engine.stored,
                engine.annotator.voting,
                MOST_QUEUED,
                reviewed=self._reviewed(),
                most=MOST_JUDGED,
            )
        except IndexProblem:
            raise
        except AnnotatorError as error:
            raise Problem(409, "no_queue", error.message, error.hint) from None
        self._ranked = _Ranked(engine.stored, queue)  # also for those after who waits no longer
        return self._ranked

    def _rank_again(self) -> None:
        if self._again is None or self._again.done():
            self._again = asyncio.create_task(self._try_to_rank())

    async def _try_to_rank(self) -> None:
        try:
            await self._service.batcher.judge(partial(self._rank, self._service.engine))
        except Exception as error:  # the ranking before serves on
            log(logging.ERROR, "the images could not be ranked", error)

    def _reviewed(self) -> frozenset[str]:
        """Ids of the images whose labels somebody has corrected or given."""
        corrections = self._service.corrections
        version = self._service.engine.stored.version
        if self._published[0] != version:
            history = locate(self._service.settings.index).history()
            self._published = version, frozenset(one.image_id for one in history)
        waiting = frozenset[str]() if corrections is None else corrections.corrected_since
        return self._published[1] | waiting
