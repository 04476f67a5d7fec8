"""What is known of the labels of the served index: one judgement, for the queue and the lists."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import Request

from index.locations import locate
from service.engine import Engine
from service.observability import log
from service.schemas import MOST_QUEUED
from service.service import Service

if TYPE_CHECKING:
    from annotator.queue.rank import Queue
    from index.folder.store import StoredIndex

STALE = 20  # corrections after which the images are judged anew
MOST_JUDGED = 5000  # images without neighbour lists; more are sampled


class Judged(NamedTuple):
    """What is known of the images of an index.

    Attributes:
        stored: The index, as it was judged.
        doubts: F1 to be gained of each image, by id; nan for unknown.
        familiarities: Of each, likewise.
        queue: Which to review next.
    """

    stored: StoredIndex
    doubts: Mapping[str, float]
    familiarities: Mapping[str, float]
    queue: Queue


class Judgements:
    """Judges the images of the served index, and keeps that while it is about right."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._judged: Judged | None = None
        self._first = asyncio.Lock()
        self._again: asyncio.Task[None] | None = None
        self._published: tuple[str, frozenset[str]] = ("", frozenset())

    async def take(self, request: Request) -> Judged:
        """The judgement of the served index, which must be in a folder.

        The first request waits for it. After some corrections there is a new one, which is made in
        the background; until then the one before is taken.

        Raises:
            Problem: As `Service.search`.
        """
        judged = self._of(self._service.engine)
        if judged is None:
            async with self._first:  # once for all who wait
                judged = self._of(self._service.engine)
                if judged is None:
                    judged = await self._service.search(request, self._judge, long=True)
        elif self._is_stale(judged, self._service.engine):
            self._judge_again()
        return judged

    async def reviewed(self) -> frozenset[str]:
        """Ids of the images whose labels somebody has corrected or given."""
        return await asyncio.to_thread(self._reviewed)

    def _of(self, engine: Engine) -> Judged | None:
        """The judgement that is known of an index, which may have more corrections by now."""
        judged = self._judged
        is_other = (
            judged is not None
            and self._service.corrections is None
            and engine.stored.version != judged.stored.version
        )
        return None if is_other else judged

    def _is_stale(self, judged: Judged, engine: Engine) -> bool:
        corrections = engine.stored.manifest.corrections - judged.stored.manifest.corrections
        return not 0 <= corrections < STALE

    def _judge(self, engine: Engine) -> Judged:
        from annotator.knn.familiarity import familiarity_of_cases
        from annotator.queue.rank import Judgement, rank_judged
        from index.folder.store import StoredIndex

        known = self._of(engine)  # made for a request that did not wait for it
        if known is not None and not self._is_stale(known, engine):
            return known
        stored = engine.stored
        assert isinstance(stored, StoredIndex)
        judgement = Judgement.of(stored, engine.annotator.voting, most=MOST_JUDGED)
        familiarities = familiarity_of_cases(stored, engine.annotator.metadata)
        self._judged = judged = Judged(
            stored,
            dict(zip(stored.ids, judgement.doubts(len(stored)).tolist(), strict=True)),
            dict(zip(stored.ids, familiarities.tolist(), strict=True)),
            rank_judged(stored, judgement, MOST_QUEUED, reviewed=self._reviewed()),
        )
        return judged

    def _judge_again(self) -> None:
        if self._again is None or self._again.done():
            self._again = asyncio.create_task(self._try_to_judge())

    async def _try_to_judge(self) -> None:
        try:
            await self._service.batcher.judge(partial(self._judge, self._service.engine))
        except Exception as error:  # the judgement before serves on
            log(logging.ERROR, "the images could not be judged", error)

    def _reviewed(self) -> frozenset[str]:
        corrections = self._service.corrections
        version = self._service.engine.stored.version
        if self._published[0] != version:
            history = locate(self._service.settings.index).history()
            self._published = version, frozenset(one.image_id for one in history)
        waiting = frozenset[str]() if corrections is None else corrections.corrected_since
        return self._published[1] | waiting
