"""What the processes of one service ask each other: their metrics, and to reload.

Each listens on a socket of its own in a folder that only their user can enter. A question is one
line; the answer ends with the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from service.problems import Problem

_METRICS, _RELOAD = b"metrics\n", b"reload\n"
_METRICS_TIMEOUT_S = 5.0


class Siblings:
    """The other processes of a service.

    Args:
        folder: Where their sockets are.
        number: Of this process.
        count: Of all.
    """

    def __init__(self, folder: Path, number: int, count: int) -> None:
        self._own = folder / f"{number}.sock"
        self._others = [folder / f"{other}.sock" for other in range(count) if other != number]

    @asynccontextmanager
    async def answering(
        self, metrics: Callable[[], bytes], reload: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[None]:
        """Answer the others.

        Args:
            metrics: This process's metrics.
            reload: Reloads this process.
        """

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                question = await reader.readline()
                if question == _METRICS:
                    writer.write(metrics())
                elif question == _RELOAD:
                    writer.write(json.dumps(await _outcome(reload)).encode())
                await writer.drain()
            writer.close()

        self._own.unlink(missing_ok=True)  # of a process that was killed
        server = await asyncio.start_unix_server(answer, self._own)
        async with server:
            yield
        self._own.unlink(missing_ok=True)

    async def metrics(self) -> list[bytes]:
        """The metrics of the others, but of those that are just starting."""
        asked = (self._ask(path, _METRICS, _METRICS_TIMEOUT_S) for path in self._others)
        return [answer for answer in await asyncio.gather(*asked) if answer]

    async def reload(self) -> bool:
        """Have the others reload; whether one of them has another version now.

        Raises:
            Problem: One of them goes on with what it had.
        """
        asked = (self._ask(path, _RELOAD, None) for path in self._others)
        outcomes = [json.loads(answer) for answer in await asyncio.gather(*asked) if answer]
        for outcome in outcomes:
            if "problem" in outcome:
                problem = outcome["problem"]
                raise Problem(
                    problem["status"], problem["code"], problem["detail"], problem["hint"]
                )
        return any(outcome["changed"] for outcome in outcomes)

    async def _ask(self, path: Path, question: bytes, timeout_s: float | None) -> bytes:
        """The answer of another process; empty where there is none."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_unix_connection(path)
                try:
                    writer.write(question)
                    return await reader.read()
                finally:
                    writer.close()
        return b""


async def _outcome(reload: Callable[[], Awaitable[bool]]) -> dict[str, Any]:
    try:
        return {"changed": await reload()}
    except Problem as problem:
        return {"problem": problem.to_dict()}
