from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from asking import drawing

from annotator.errors import AnnotatorError, ImageError
from index.corrections import Correction
from index.folder.store import StoredIndex, corrected
from service.batcher import Batcher
from service.engine import Ballot, Engine
from service.observability import Metrics

LIMITS: dict[str, Any] = {
    "max_batch": 4,
    "batch_wait": 0.5,
    "workers": 2,
    "encoders": 1,
    "decode_bytes": 1 << 30,
    "decode_seconds": 20,
}


def with_batcher(use: Callable[[Batcher], Awaitable[Any]], **limits: Any) -> tuple[Any, Metrics]:
    metrics = Metrics()

    async def run() -> Any:
        async with Batcher(metrics, **(LIMITS | limits)) as batcher:
            return await asyncio.wait_for(use(batcher), 20)

    return asyncio.run(run()), metrics


def annotated(
    files: Sequence[bytes], engines: Sequence[Engine], **limits: Any
) -> tuple[list[Any], Metrics]:
    """What comes of files that are sent at once, each for its engine."""

    async def use(batcher: Batcher) -> list[Any]:
        work = [
            batcher.annotate(engine, file, Ballot(engine.annotator.voting))
            for file, engine in zip(files, engines, strict=True)
        ]
        return await asyncio.gather(*work, return_exceptions=True)

    return with_batcher(use, **limits)


def batches(metrics: Metrics) -> tuple[int, int]:
    """How many, and how many images in all."""
    value = metrics.registry.get_sample_value
    return (
        int(value("annotator_batch_images_count") or 0),
        int(value("annotator_batch_images_sum") or 0),
    )


def test_images_of_many_requests_go_together(engine: Engine) -> None:
    files = [drawing(100 + i) for i in range(8)]
    results, metrics = annotated(files, [engine] * 8)
    assert batches(metrics) == (2, 8)
    for file, (annotation, seconds) in zip(files, results, strict=True):
        (alone,), _ = engine.annotate(
            [engine.decode(file)[0]], [Ballot(engine.annotator.voting)], 1
        )
        assert alone.annotation is not None and annotation.cuis == alone.annotation.cuis
        assert seconds.keys() == {"queue", "decode", "encode", "search", "vote"}


def test_a_lone_image_does_not_wait(engine: Engine) -> None:
    # Longer than `with_batcher` waits for the result.
    ((_, seconds),), _ = annotated([drawing(0)], [engine], batch_wait=60.0)
    assert seconds.keys() >= {"queue"}


def test_waiting_images_are_shared_between_free_encoders(engine: Engine) -> None:
    _, metrics = annotated([drawing(i) for i in range(4)], [engine] * 4, encoders=2)
    assert batches(metrics) == (2, 4)


def test_a_batch_never_mixes_engines(engine: Engine) -> None:
    _, metrics = annotated([drawing(1)] * 4, [engine, replace(engine)] * 2)
    assert batches(metrics) == (2, 4)


def test_a_bad_image_costs_no_other(engine: Engine) -> None:
    files = [drawing(0), b"no image", drawing(2)[:200], drawing(1)]
    results, metrics = annotated(files, [engine] * 4)
    assert [isinstance(r, ImageError) for r in results] == [False, True, True, False]
    assert batches(metrics)[1] == 2


def test_an_image_that_the_encoder_fails_on_costs_no_other(
    directionless: Engine, black: bytes
) -> None:
    results, metrics = annotated([drawing(0), black, drawing(1)], [directionless] * 3)
    assert [isinstance(r, AnnotatorError) for r in results] == [False, True, False]
    assert batches(metrics) == (2, 2)  # the good ones, again and alone


def test_cancelled_images_are_dropped(engine: Engine) -> None:
    async def use(batcher: Batcher) -> int:
        ballot = Ballot(engine.annotator.voting)
        work = [
            asyncio.create_task(batcher.annotate(engine, drawing(i), ballot)) for i in range(40)
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

    began, gate = threading.Event(), threading.Event()

    def annotate(self, *arguments: Any) -> Any:
        self.began.set()
        self.gate.wait(20)
        return super().annotate(*arguments)


def test_images_cancelled_in_the_queue_are_dropped(engine: Engine) -> None:
    gated = Gated(**vars(engine))

    async def use(batcher: Batcher) -> None:
        work = []
        for queued in range(4):  # the first one is being encoded, three wait
            image = batcher.annotate(gated, drawing(1), Ballot(engine.annotator.voting))
            work.append(asyncio.create_task(image))
            await asyncio.to_thread(Gated.began.wait, 20)
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


def votes(engines: Sequence[Engine], ballots: Sequence[Ballot]) -> list[Any]:
    """What comes of votes that are asked for while a search is under way."""

    async def use(batcher: Batcher) -> list[Any]:
        over = threading.Event()
        under_way = asyncio.create_task(batcher.search(over.wait))
        vectors = [
            np.eye(1, engine.annotator.embedder.dim, i, np.float32)
            for i, engine in enumerate(engines)
        ]
        asked = zip(engines, vectors, ballots, strict=True)
        work = [asyncio.create_task(batcher.vote(*one)) for one in asked]
        await asyncio.sleep(0)
        over.set()
        await under_way
        return await asyncio.gather(*work, return_exceptions=True)

    return with_batcher(use)[0]


def test_votes_that_wait_for_a_search_are_held_together_on_the_labels_of_now(
    engine: Engine, clip_engine: Engine
) -> None:
    stored = engine.stored
    assert isinstance(stored, StoredIndex)
    first = Correction(1, stored.ids[0], stored.labels.row(0), ("C9999999",), "me", "now")
    later = engine.over(corrected(stored, [first]))
    ballot = Ballot(engine.annotator.voting)
    found = votes([engine, later, clip_engine, later], [ballot] * 4)
    assert [one.engine for one in found] == [later, later, clip_engine, later]
    assert found[0].seconds is found[1].seconds is found[3].seconds
    for i in (0, 1, 3):
        vector = np.eye(1, engine.annotator.embedder.dim, i, np.float32)
        (alone,), _ = later.vote(vector, [ballot])
        assert found[i].annotations[0].cuis == alone.cuis
        assert found[i].annotations[0].neighbors[0].cuis == alone.neighbors[0].cuis


def test_a_vote_that_fails_costs_the_others_nothing(engine: Engine) -> None:
    voting = engine.annotator.voting
    bad = Ballot(replace(voting, decider="macro-f1", macro_thresholds=None))
    found = votes([engine] * 4, [Ballot(voting), Ballot(voting), bad, Ballot(voting)])
    assert [isinstance(one, Exception) for one in found] == [False, False, True, False]


def test_a_search_does_not_wait_for_what_takes_long() -> None:
    async def use(batcher: Batcher) -> None:
        over = threading.Event()
        judged = asyncio.create_task(batcher.judge(over.wait))
        assert await batcher.search(lambda: "found") == "found" and not judged.done()
        over.set()
        await judged

    with_batcher(use)
