"""What must cost nobody a request: reloads, damaged indexes, an end; and what a kill leaves."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from index import VersionWriter, open_index
from serve_load_parts.client import (
    NO_ANSWER,
    REFUSED,
    Connection,
    Reply,
    closed_loop,
    image_request,
    post_request,
)
from serve_load_parts.server import Server, Shares
from serve_load_parts.speed import answered, quantile, statuses

_CLIENTS = 8


class Publisher:
    """Publishes versions of an index that differ in their image ids, which begin with the version.

    Args:
        index: Folder with a sound version.
    """

    DAMAGES = ("vectors cut", "a byte changed", "ids missing")

    def __init__(self, index: Path) -> None:
        self._index = index
        self._stored = open_index(index)
        self._vectors = np.load(index / self._stored.version / "vectors.npy")
        self._number = int(self._stored.version[1:])

    def publish(self, damage: str | None = None) -> str:
        """Publish a version, and damage it if `damage` (of `DAMAGES`) says how; returns its name.

        Raises:
            SystemExit: It was not given the name that was expected.
        """
        stored, rows = self._stored, range(len(self._stored.ids))
        self._number += 1
        version = f"v{self._number:06d}"
        with VersionWriter(self._index) as writer:
            writer.add(self._vectors)
            published = writer.publish(
                [f"{version}-{row:06d}" for row in rows],
                [stored.labels.row(row) for row in rows],
                names=stored.names,
                columns=stored.columns,
                about=stored.manifest.about,
                arrays=stored.arrays,
            )
        if published != version:
            raise SystemExit(f"{published} was published in place of {version}")
        vectors = self._index / version / "vectors.npy"
        if damage == "vectors cut":
            vectors.write_bytes(vectors.read_bytes()[:-4])
        elif damage == "a byte changed":
            data = bytearray(vectors.read_bytes())
            data[-1] ^= 1
            vectors.write_bytes(data)
        elif damage == "ids missing":
            (self._index / version / "ids.txt").unlink()
        return version


def reloads(
    index: Path, images: Sequence[bytes], arguments: Sequence[str], folder: Path, n: int
) -> dict[str, Any]:
    """f: n reloads while eight clients ask, every second one of a damaged index.

    Args:
        index: Given new versions, so not the caller's own.
        images: Asked about in turns.
        arguments: Of `annotator serve`.
        folder: For the file of keys.
        n: Reloads.
    """
    key = secrets.token_hex(16)
    keys = folder / "keys"
    keys.touch(mode=0o600)
    keys.write_text(key)
    header = f"X-API-Key: {key}"
    publisher = Publisher(index)
    publisher.publish()
    arguments = [*arguments, "--api-key-file", str(keys), "--allow-reload"]
    with Server(index, *arguments) as server:
        requests = [image_request(image, [header]) for image in images]
        return asyncio.run(_reloads(server, requests, header, publisher, n))


async def _reloads(
    server: Server, requests: Sequence[bytes], header: str, publisher: Publisher, n: int
) -> dict[str, Any]:
    mixed = 0
    served: Counter[str] = Counter()

    def look(status: int, body: bytes) -> None:
        nonlocal mixed
        if status == 200:
            answer = json.loads(body)
            version = answer["index_version"]
            served[version] += 1
            neighbors = answer["results"][0]["neighbors"]
            mixed += not all(near["id"].startswith(f"{version}-") for near in neighbors)

    stop = asyncio.Event()
    load = asyncio.create_task(
        closed_loop(server.address, requests, _CLIENTS, until=stop, seen=look)
    )
    control = Connection(server.address)
    outcomes: Counter[str] = Counter()
    wrong = 0
    seconds = []
    with Shares(server) as shares:
        for number in range(n):
            damage = publisher.DAMAGES[number // 2 % 3] if number % 2 else None
            version = await asyncio.to_thread(publisher.publish, damage)
            started = time.perf_counter()
            status, body = await control.ask(post_request("/v1/reload", [header]))
            seconds.append(time.perf_counter() - started)
            outcomes[f"{'damaged' if damage else 'sound'}: {status}"] += 1
            if damage:
                wrong += status != 409
            else:
                wrong += status != 200 or json.loads(body)["index_version"] != version
    stop.set()
    replies = await load
    control.close()
    return {
        "reloads": n,
        "outcomes": dict(outcomes),
        "wrong_outcomes": wrong,
        "reload_p50_ms": quantile(seconds, 0.5),
        "clients": _CLIENTS,
        "statuses": statuses(replies),
        "failed_requests": sum(reply.status != 200 for reply in replies),
        "mixed_answers": mixed,
        "versions_served": len(served),
        "p50_ms": quantile(answered(replies), 0.5),
        "p99_ms": quantile(answered(replies), 0.99),
        "rss_mib": server.rss_mib(),
        "cores": shares.cores,
    }


def kills(
    index: Path, requests: Sequence[bytes], arguments: Sequence[str], n: int, seconds: float = 1.0
) -> dict[str, Any]:
    """g, first half: n times `kill -9` and a new start under load, then `annotator verify`."""
    with Server(index, *arguments) as first:
        port = first.address[1]
        restarts, replies = asyncio.run(_kills(first, index, requests, arguments, n, seconds))
    verify = [sys.executable, "-m", "annotator", "verify", "--index", str(index)]
    done = subprocess.run(verify, capture_output=True, text=True)
    return {
        "kills": n,
        "clients": _CLIENTS,
        "port": port,
        "statuses": statuses(replies),
        "seconds_until_it_serves_again": restarts,
        "verify_exit_code": done.returncode,
        "verify": done.stderr.strip().rpartition("\n")[2].rpartition("/")[2],
    }


async def _kills(
    server: Server,
    index: Path,
    requests: Sequence[bytes],
    arguments: Sequence[str],
    n: int,
    seconds: float,
) -> tuple[list[float], list[Reply]]:
    stop = asyncio.Event()
    load = asyncio.create_task(closed_loop(server.address, requests, _CLIENTS, until=stop))
    restarts = []
    for _ in range(n):
        await asyncio.sleep(seconds)
        server.kill()
        server = await asyncio.to_thread(Server, index, *arguments, port=server.address[1])
        restarts.append(round(server.start_seconds, 3))
    await asyncio.sleep(seconds)
    stop.set()
    replies = await load
    server.kill()
    return restarts, replies


def termination(
    index: Path, requests: Sequence[bytes], arguments: Sequence[str], seconds: float = 2.0
) -> dict[str, Any]:
    """g, second half: SIGTERM under load, once with kept connections, once with one a request.

    Dropped are requests that were sent on a connection and not answered. On a kept connection one
    may cross the server's closing it, which HTTP foresees (RFC 9112, section 9.3.1: the client
    sends it again); on a new one there is no such excuse.
    """
    return {
        name: asyncio.run(_terminate(index, requests, arguments, seconds, keep))
        for name, keep in (("kept_connections", True), ("new_connections", False))
    }


async def _terminate(
    index: Path, requests: Sequence[bytes], arguments: Sequence[str], seconds: float, keep: bool
) -> dict[str, Any]:
    with Server(index, *arguments) as server:
        stop = asyncio.Event()
        load = asyncio.create_task(closed_loop(server.address, requests, 32, until=stop, keep=keep))
        await asyncio.sleep(seconds)
        asked = time.perf_counter()
        server.process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(server.end)
        ended = time.perf_counter()
        stop.set()
        replies = await load
    under_way = [r for r in replies if r.due + r.seconds >= asked and r.status != REFUSED]
    return {
        "clients": 32,
        "exit_code": code,
        "seconds_to_end": round(ended - asked, 3),
        "ended_after_sigterm": statuses(under_way),
        "dropped": sum(reply.status == NO_ANSWER for reply in under_way),
    }
