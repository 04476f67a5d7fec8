"""Rude and hostile clients, and what becomes of the others meanwhile.

    python -m benchmarks.service_load.attacks KIND HOST PORT

attacks until it is ended, at the lowest priority: attackers have cores of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.service_load.client import (
    Address,
    Connection,
    Reply,
    answered,
    closed_loop,
    image_request,
    post,
    quantile,
    request,
    statuses,
)
from benchmarks.service_load.server import Server

_HEALTH = request("GET", "/livez", ["Connection: close"])
_DOCUMENT = request("GET", "/openapi.json")
_SIDE = 3500
_PAUSE = 0.2  # before an attacker whose connection was closed comes again
_WARM_UP_S = 2.0  # of an attack, before others are looked at


async def _silent(address: Address) -> None:
    """A connection that begins a request and says no more."""
    reader, writer = await asyncio.open_connection(*address)
    with contextlib.closing(writer):
        writer.write(b"GET / HT")
        await reader.read(1)


async def _hostile_form(address: Address) -> None:
    """A form whose bytes look like its boundary at every sixth place."""
    await _form(address, b"\r\n--Bx")


async def _large_form(address: Address) -> None:
    """A form in which a boundary begins at every fourth byte, and is never there."""
    await _form(address, b"\r\n--")


async def _form(address: Address, content: bytes) -> None:
    start = b'--B\r\nContent-Disposition: form-data; name="i"; filename="a.png"\r\n\r\n'
    body = start + content * ((8 << 20) // len(content))
    connection = Connection(address)
    await connection.ask(
        post("/v1/annotate", ["Content-Type: multipart/form-data; boundary=B"], body)
    )
    connection.close()


async def _unread(address: Address) -> None:
    """A client that asks much and takes no answer."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    with client:
        await loop.sock_connect(client, address)
        await loop.sock_sendall(client, _DOCUMENT * 100)
        while True:  # the last of which has to wait
            await loop.sock_sendall(client, _DOCUMENT * 100)


async def _jpeg_2000(address: Address) -> None:
    """An image that takes seconds to decode."""
    connection = Connection(address)
    await connection.ask(image_request(_large_image()))
    connection.close()


@cache
def _large_image() -> bytes:
    import numpy as np
    from PIL import Image

    grey = np.random.default_rng(0).integers(0, 256, (_SIDE // 4, _SIDE // 4), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).resize((_SIDE, _SIDE)).save(file, "JPEG2000")
    return file.getvalue()


#: What is done, by how many at once.
KINDS: dict[str, tuple[Callable[[Address], Awaitable[None]], int]] = {
    "silent connections": (_silent, 1200),
    "hostile forms": (_hostile_form, 8),
    "large forms": (_large_form, 8),
    "clients that do not read": (_unread, 100),
    "JPEG 2000": (_jpeg_2000, 4),
}


def attacks(
    server: Server, requests: Sequence[bytes], seconds: float, rounds: int, kinds: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """h: the latency of others under attacks of these kinds, against the idle one, in turns.

    Two clients send images, and a third asks on a new connection each time whether the server is
    there.
    """
    _others(server, requests, seconds / 2)  # warm up
    for kind in kinds:
        replies: dict[str, dict[str, list[Reply]]] = {}
        for _ in range(rounds):
            for state in ("idle", "attacked"):
                with _attacking(kind, server) if state == "attacked" else contextlib.nullcontext():
                    for what, some in _others(server, requests, seconds).items():
                        replies.setdefault(state, {}).setdefault(what, []).extend(some)
        result: dict[str, Any] = {"attack": kind, "attackers": KINDS[kind][1]}
        for what in ("image", "health"):
            each = {state: answered(replies[state][what]) for state in replies}
            result[what] = {
                state: {
                    "statuses": statuses(replies[state][what]),
                    "p50_ms": quantile(some, 0.5),
                    "p99_ms": quantile(some, 0.99),
                }
                for state, some in each.items()
            }
            p99 = {state: quantile(some, 0.99) for state, some in each.items()}
            result[what]["p99_ratio"] = round(p99["attacked"] / p99["idle"], 2)
        yield result


def _others(server: Server, requests: Sequence[bytes], seconds: float) -> dict[str, list[Reply]]:
    async def main() -> dict[str, list[Reply]]:
        until = asyncio.Event()
        images = asyncio.create_task(closed_loop(server.address, requests, 2, until=until))
        health = asyncio.create_task(closed_loop(server.address, [_HEALTH], 1, until=until))
        await asyncio.sleep(seconds)
        until.set()
        return {"image": await images, "health": await health}

    return asyncio.run(main())


@contextmanager
def _attacking(kind: str, server: Server) -> Iterator[None]:
    host, port = server.address
    command = [sys.executable, "-m", "benchmarks.service_load.attacks", kind, host, str(port)]
    attacker = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert attacker.stdout is not None
    try:
        attacker.stdout.readline()  # it has begun
        time.sleep(_WARM_UP_S)
        yield
    finally:
        attacker.kill()
        attacker.communicate()
        time.sleep(_WARM_UP_S)  # for what it had under way


async def _attack(kind: str, address: Address) -> None:
    attack, n = KINDS[kind]

    async def attacker() -> None:
        while True:
            with contextlib.suppress(OSError):
                await attack(address)
            await asyncio.sleep(_PAUSE)

    await asyncio.gather(*(attacker() for _ in range(n)))


def main() -> None:
    """Attack until it is ended."""
    kind, host, port = sys.argv[1:]
    os.nice(19)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    _large_image()
    print("ready", flush=True)
    asyncio.run(_attack(kind, (host, int(port))))


if __name__ == "__main__":
    main()
