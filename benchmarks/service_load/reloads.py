"""Reloads under load, half of them of a damaged index: they must cost nobody a request."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.service_load.client import (
    Connection,
    answered,
    closed_loop,
    image_request,
    post,
    quantile,
    statuses,
)
from benchmarks.service_load.server import Server
from index import VersionWriter, open_index
from index.manifest import number_of

_CLIENTS = 8


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


class Publisher:
    """Publishes versions of an index that differ in their image ids, which begin with its number.

    Args:
        index: Folder with a sound version.
    """

    def __init__(self, index: Path) -> None:
        self._index, self._stored = index, open_index(index)
        self._vectors = self._stored.vectors(np.arange(len(self._stored)))
        self._number = number_of(self._stored.version)

    def publish(self, *, damaged: bool = False) -> str:
        """Publish a version, and cut its vectors if it is to be damaged; returns its name.

        Raises:
            SystemExit: It was not given the number that was expected.
        """
        stored = self._stored
        self._number += 1
        with VersionWriter(self._index) as writer:
            writer.add(self._vectors)
            version = writer.publish(
                [f"{self._number}-{row:06d}" for row in range(len(stored))],
                stored.labels,
                names=stored.names,
                columns=stored.columns,
                about=stored.manifest.about,
                arrays=stored.arrays,
            )
        if number_of(version) != self._number:
            raise SystemExit(f"{version} was published as number {self._number}")
        if damaged:
            vectors = self._index / version / "vectors.npy"
            vectors.write_bytes(vectors.read_bytes()[:-4])
        return version


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
            mixed += not all(near["id"].startswith(f"{number_of(version)}-") for near in neighbors)

    stop = asyncio.Event()
    load = asyncio.create_task(
        closed_loop(server.address, requests, _CLIENTS, until=stop, seen=look)
    )
    control = Connection(server.address)
    outcomes: Counter[str] = Counter()
    wrong, seconds = 0, []
    for number in range(n):
        damaged = number % 2 == 1
        version = await asyncio.to_thread(publisher.publish, damaged=damaged)
        started = time.perf_counter()
        status, body = await control.ask(post("/v1/reload", [header]))
        seconds.append(time.perf_counter() - started)
        outcomes[f"{'damaged' if damaged else 'sound'}: {status}"] += 1
        if damaged:
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
        "rss_mib": server.mib("VmRSS"),
    }
