from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

import service.middleware.headers as headers_module
from service.middleware.headers import CloseInDoubt, DrainBody


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("no", 413)(scope, receive, send)


def answered(headers: dict[bytes, bytes], pieces: list[Message]) -> tuple[list[Message], int]:
    """What is sent to a client that sends `pieces`, and how many of them were read."""
    sent: list[Message] = []
    left = list(pieces)

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()  # the client says nothing more
        return left.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Any = {"type": "http", "headers": list(headers.items())}
    asyncio.run(DrainBody(refuse)(scope, receive, send))
    return sent, len(pieces) - len(left)


def piece(size: int, more: bool) -> Message:
    return {"type": "http.request", "body": bytes(size), "more_body": more}


def test_the_rest_of_a_refused_body_is_read_after_the_answer() -> None:
    sent, read = answered({b"content-length": b"30"}, [piece(20, True), piece(10, False)])
    assert read == 2
    assert (b"connection", b"close") in sent[0]["headers"]
    assert [m.get("body") for m in sent[1:]] == [b"no", b""]
    assert [m.get("more_body", False) for m in sent[1:]] == [True, False]


def test_requests_without_a_body_are_left_alone() -> None:
    sent, read = answered({}, [piece(0, False)])
    assert read == 0 and len(sent) == 2
    assert b"connection" not in dict(sent[0]["headers"])


def test_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = {b"transfer-encoding": b"chunked"}
    _, read = answered(headers, [piece(1 << 20, True)] * 40)
    assert read == 16
    monkeypatch.setattr(headers_module, "_DRAIN_SECONDS", 0.05)
    sent, _ = answered(headers, [])  # the client says nothing more
    assert sent[-1] == {"type": "http.response.body", "body": b""}


def test_a_client_that_leaves() -> None:
    sent, read = answered({b"content-length": b"9"}, [{"type": "http.disconnect"}])
    assert read == 1 and len(sent) == 3


@pytest.mark.parametrize("ending", [False, True])
def test_answers_of_the_last_minute_say_that_the_connection_is_closed(ending: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("yes")(scope, receive, send)

    client = TestClient(CloseInDoubt(app, lambda: ending))
    assert client.get("/").headers.get("connection") == ("close" if ending else None)
