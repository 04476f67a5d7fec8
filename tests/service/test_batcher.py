from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from annotator.errors import AnnotatorError, ImageError
from service.batcher import Batcher
from service.engine import Engine
from service.observability import Metrics

LIMITS: dict[str, Any] = {"max_batch": 4, "batch_wait": 0.5, "workers": 2, "encoders": 1}


def with_batcher(use: Callable[[Batcher], Awaitable[Any]], **limits: Any) -> tuple[Any, Metrics]:
    metrics = Metrics()

    async def run() -> Any:
        async with Batcher(metrics, **(LIMITS | limits)) as batcher:
            return await asyncio.wait_for(use(batcher), 20)

    return asyncio.run(run()), metrics


def batches(metrics: Metrics) -> tuple[int, int]:
    """How many, and how many images in all."""
    value = metrics.registry.get_sample_value
    return (
        int(value("annotator_batch_images_count") or 0),
        int(value("annotator_batch_images_sum") or 0),
    )


def test_images_of_many_requests_go_together(engine: Engine, drawing: Callable[..., bytes]) -> None:
    async def use(batcher: Batcher) -> list[Any]:
        voting = engine.annotator.voting
        work = [batcher.annotate(engine, drawing(100 + i), voting) for i in range(8)]
        return await asyncio.gather(*work)

    results, metrics = with_batcher(use)
    assert batches(metrics) == (2, 8)
    for i, (annotation, seconds) in enumerate(results):
        pixels = engine.decode(drawing(100 + i))
        (alone,), _ = engine.annotate([pixels], [engine.annotator.voting], 1)
        assert annotation.cuis == alone.cuis
        assert seconds.keys() == {"queue", "decode", "encode", "search", "vote"}


def test_a_lone_image_does_not_wait(engine: Engine, drawing: Callable[..., bytes]) -> None:
    async def use(batcher: Batcher) -> float:
        _, seconds = await batcher.annotate(engine, drawing(0), engine.annotator.voting)
        return float(seconds["queue"])

    queued, _ = with_batcher(use, batch_wait=5.0)
    assert queued < 1


def test_what_waits_is_shared_between_free_encoders(
    engine: Engine, drawing: Callable[..., bytes]
) -> None:
    async def use(batcher: Batcher) -> None:
        voting = engine.annotator.voting
        await asyncio.gather(*(batcher.annotate(engine, drawing(i), voting) for i in range(4)))

    _, metrics = with_batcher(use, encoders=2)
    assert batches(metrics) == (2, 4)


def test_a_batch_never_mixes_engines(engine: Engine, drawing: Callable[..., bytes]) -> None:
    other = replace(engine)

    async def use(batcher: Batcher) -> None:
        voting = engine.annotator.voting
        engines = [engine, other, engine, other]
        await asyncio.gather(*(batcher.annotate(e, drawing(1), voting) for e in engines))

    _, metrics = with_batcher(use)
    assert batches(metrics) == (2, 4)


def test_a_bad_image_costs_no_other(engine: Engine, drawing: Callable[..., bytes]) -> None:
    async def use(batcher: Batcher) -> list[Any]:
        files = [drawing(0), b"no image", drawing(2)[:200], drawing(1)]
        work = [batcher.annotate(engine, file, engine.annotator.voting) for file in files]
        return await asyncio.gather(*work, return_exceptions=True)

    results, metrics = with_batcher(use)
    assert [isinstance(r, ImageError) for r in results] == [False, True, True, False]
    assert batches(metrics)[1] == 2


def test_an_image_that_the_encoder_fails_on_costs_no_other(
    directionless: Engine, black: bytes, drawing: Callable[..., bytes]
) -> None:
    async def use(batcher: Batcher) -> list[Any]:
        voting = directionless.annotator.voting
        files = [drawing(0), black, drawing(1)]
        work = [batcher.annotate(directionless, file, voting) for file in files]
        return await asyncio.gather(*work, return_exceptions=True)

    results, metrics = with_batcher(use)
    assert [isinstance(r, AnnotatorError) for r in results] == [False, True, False]
    assert batches(metrics) == (2, 2)  # the good ones, again and alone


def test_cancelled_images_are_dropped(engine: Engine, drawing: Callable[..., bytes]) -> None:
    async def use(batcher: Batcher) -> int:
        voting = engine.annotator.voting
        work = [
            asyncio.create_task(batcher.annotate(engine, drawing(i), voting)) for i in range(40)
        ]
        await asyncio.sleep(0)  # all are on their way, none is done
        for task in work[1:]:
            task.cancel()
        results = await asyncio.gather(*work, return_exceptions=True)
        assert not isinstance(results[0], BaseException)
        assert all(isinstance(r, asyncio.CancelledError) for r in results[1:])
        return batcher.queued

    queued, metrics = with_batcher(use, workers=1)
    assert queued == 0 and batches(metrics) == (1, 1)


class Gated(Engine):
    """An engine whose encoder does not begin before the gate is open."""

    gate = threading.Event()

    def annotate(self, *arguments: Any) -> Any:
        self.gate.wait(20)
        return super().annotate(*arguments)


def test_images_cancelled_in_the_queue_are_dropped(
    engine: Engine, drawing: Callable[..., bytes]
) -> None:
    gated = Gated(**vars(engine))

    async def use(batcher: Batcher) -> None:
        voting = engine.annotator.voting
        work = []
        for queued in (0, 1, 2, 3):  # the first one is being encoded, three wait
            work.append(asyncio.create_task(batcher.annotate(gated, drawing(1), voting)))
            await asyncio.sleep(0.05)
            while batcher.queued < queued:
                await asyncio.sleep(0.005)
        work[1].cancel()
        work[3].cancel()
        await asyncio.sleep(0)
        Gated.gate.set()
        results = await asyncio.gather(*work, return_exceptions=True)
        assert [isinstance(r, BaseException) for r in results] == [False, True, False, True]

    _, metrics = with_batcher(use, batch_wait=0)
    assert batches(metrics) == (2, 2)
