from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from asking import build, cpu_settings
from starlette.requests import Request
from starlette.types import Message
from versions import numbered, version_folder

from index.errors import IndexProblem, IndexUnreachable
from service.engine import Engine, open_engine
from service.problems import Problem
from service.service import Service

if TYPE_CHECKING:
    from annotator.encoders.torch_embedder import TorchEmbedder


def request(*messages: Message) -> Request:
    """A request whose client sends these messages, and then nothing."""
    left = list(messages)

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    return Request({"type": "http"}, receive)


def searched(service: Service, asked: Request, work: Callable[[Engine], Any]) -> Any:
    async def run() -> Any:
        async with service.batcher:
            return await asyncio.wait_for(service.search(asked, work), 20)

    return asyncio.run(run())


LEAVES: Message = {"type": "http.disconnect"}


@pytest.mark.parametrize(
    ("messages", "timeout_s", "status"),
    [([LEAVES], 20, 499), ([{"type": "http.request"}, LEAVES], 20, 499), ([], 0.05, 503)],
)
def test_work_is_dropped_when_the_client_leaves_or_the_time_is_up(
    engine: Engine, messages: list[Message], timeout_s: float, status: int
) -> None:
    service = Service(cpu_settings(Path("index"), timeout_s=timeout_s), engine)
    began, may_end = threading.Event(), threading.Event()

    async def run() -> None:
        async with service.batcher:
            busy = asyncio.create_task(asyncio.to_thread(began.wait, 20))
            first = asyncio.create_task(
                service.batcher.search(lambda: (began.set(), may_end.wait(20)))
            )
            await busy
            ran: list[int] = []
            with pytest.raises(Problem) as caught:
                await service.search(request(*messages), lambda engine: ran.append(1))
            assert caught.value.status == status
            assert service.admission.images == 0
            may_end.set()
            await first
            assert await service.batcher.search(lambda: list(ran)) == []  # it never began

    asyncio.run(run())


def test_a_search_that_is_done_in_time(engine: Engine) -> None:
    service = Service(cpu_settings(Path("index")), engine)
    assert searched(service, request(), lambda given: given is engine)


@pytest.mark.parametrize(
    ("error", "reloads"), [(IndexUnreachable("away"), False), (IndexProblem("dropped"), True)]
)
def test_a_version_that_is_gone_from_its_server_is_reloaded(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: IndexProblem, reloads: bool
) -> None:
    service = Service(cpu_settings(Path("index")), engine)
    asked: list[int] = []
    monkeypatch.setattr(service, "reload_soon", lambda: asked.append(1))

    def fail(engine: Engine) -> None:
        raise error

    with pytest.raises(Problem) as caught:
        searched(service, request(), fail)
    assert (caught.value.status, caught.value.code) == (503, "index_unreachable")
    assert bool(asked) == reloads


@pytest.fixture
def changing(tmp_path: Path, tiny_embedder: TorchEmbedder) -> Service:
    """A service over an index of its own."""
    build(tmp_path / "index", tiny_embedder)
    given = cpu_settings(tmp_path / "index")
    return Service(given, open_engine(given, tiny_embedder))


def test_reloading_keeps_the_weights_and_swaps_the_index(
    changing: Service, tiny_embedder: TorchEmbedder
) -> None:
    first = changing.engine
    assert not asyncio.run(changing.reload()) and changing.engine is first
    build(Path(changing.settings.index), tiny_embedder, n=9)
    assert asyncio.run(changing.reload())
    assert (numbered(changing.engine.stored.version), len(changing.engine.stored)) == ("v000002", 9)
    assert changing.engine.annotator.embedder is tiny_embedder
    assert len(first.stored) == 12  # requests under way go on with it


def test_a_bad_version_leaves_the_old_one(changing: Service, tiny_embedder: TorchEmbedder) -> None:
    first = changing.engine
    build(Path(changing.settings.index), tiny_embedder, n=9)
    vectors = version_folder(Path(changing.settings.index), 2) / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-4])
    with pytest.raises(Problem) as caught:
        asyncio.run(changing.reload())
    assert caught.value.code == "reload_failed" and "vectors.npy has" in caught.value.detail
    assert changing.engine is first


def test_reloads_do_not_overtake_each_other(
    changing: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2)

    def opening(*_: Any) -> Engine:
        with pytest.raises(threading.BrokenBarrierError):
            together.wait(0.1)  # for another one that never comes
        together.reset()
        return changing.engine

    monkeypatch.setattr("service.service.open_engine", opening)

    async def run() -> list[bool]:
        return await asyncio.gather(changing.reload(), changing.reload())

    assert asyncio.run(run()) == [False, False]


def test_many_reloads_are_one_under_way_and_one_after_it(
    changing: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    go_on = threading.Event()

    def opening(*_: Any) -> Engine:
        begun.append(1)
        assert go_on.wait(20)
        return changing.engine

    monkeypatch.setattr("service.service.open_engine", opening)

    async def run() -> None:
        changing.reload_soon()
        while not begun:
            await asyncio.sleep(0.001)
        for _ in range(500):
            changing.reload_soon()
        waiting = asyncio.create_task(changing.reload())
        await asyncio.sleep(0.05)
        go_on.set()
        assert await waiting is False
        changing.reload_soon()  # and it goes on
        await changing.reload()

    asyncio.run(run())
    assert len(begun) == 3
