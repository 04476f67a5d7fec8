"""The images of the index to review next."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from service.judgements import Judgements
from service.problems import Problem
from service.service import Service


class ReviewQueue:
    """Offers the images of the served index, by what is known of their labels."""

    def __init__(self, service: Service, judgements: Judgements) -> None:
        self._service = service
        self._judgements = judgements

    async def take(self, request: Request, limit: int) -> dict[str, Any]:
        """The first images that nobody has reviewed, as `schemas.QueueOut`.

        Raises:
            Problem: As `Service.search`; 409, the index is on a server.
        """
        from index.folder.store import StoredIndex

        if not isinstance(self._service.engine.stored, StoredIndex):
            raise Problem(
                409,
                "no_queue",
                "An index on a server does not list its images, so nobody knows which to review.",
                "Queue new images by it (annotator queue IMAGES), or give an index in a folder.",
            )
        queue = (await self._judgements.take(request)).queue
        reviewed = await self._judgements.reviewed()
        items = [item for item in queue.items if item.image_id not in reviewed]
        return {
            "items": [
                {"id": item.image_id, "gain": round(item.gain, 6), "reason": item.reason}
                for item in items[:limit]
            ],
            "total": queue.total - len(queue.items) + len(items),
        }
