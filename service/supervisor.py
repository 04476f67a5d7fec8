"""Several processes that serve one index on one port.

Python computes in one thread at a time: decoding and encoding give that up, but the rest of a
request does not. Each process has a listening socket of its own on the port, between which the
system divides connections (SO_REUSEPORT). The supervisor holds them all, so that what waits on the
socket of a process that died is answered by the one that takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from service.observability import log
from service.settings import Settings

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_SECRETS = {"api_keys", "label_studio_token"}  # which processes have from the environment


def supervise(
    settings: Settings,
    listeners: Sequence[socket.socket],
    metrics: socket.socket | None,
    started: Callable[[], None],
    log_level: int,
) -> int:
    """Serve by a process for each socket until SIGTERM or SIGINT; returns the exit code.

    Args:
        settings: Of the service.
        listeners: Bound to the same port; closed here.
        metrics: Socket of the metrics, which all share.
        started: Called once all processes accept connections.
        log_level: Least level of the service's log.
    """
    with tempfile.TemporaryDirectory(prefix="annotator-") as folder:
        return asyncio.run(
            _Supervisor(settings, listeners, metrics, started, log_level, folder).run()
        )


class _Supervisor:
    def __init__(
        self,
        settings: Settings,
        listeners: Sequence[socket.socket],
        metrics: socket.socket | None,
        started: Callable[[], None],
        log_level: int,
        folder: str,
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._metrics = metrics
        self._started = started
        self._log_level = log_level
        self._folder = folder
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._ready: set[int] = set()  # processes that have announced themselves
        self._reload: set[int] = set()  # those that have to reload once they are ready
        self._changed = asyncio.Event()
        self._stopped = asyncio.Event()
        self._serving = self._stopping = False
        self._code = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_all)
        everyone = range(len(self._listeners))
        # The first one alone: it may find that nothing can be served, and it converts the encoder.
        tasks = [asyncio.create_task(self._keep(0))]
        await self._until(lambda: 0 in self._ready)
        tasks += [asyncio.create_task(self._keep(number)) for number in everyone[1:]]
        await self._until(lambda: len(self._ready) == len(everyone))
        if not self._stopping:
            self._serving = True
            self._started()
        await asyncio.gather(*tasks)
        return self._code

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition() and not self._stopping:
            self._changed.clear()
            await self._changed.wait()

    async def _keep(self, number: int) -> None:
        """Run a process, and another in its place whenever it ends, until all are to end."""
        pause = _FIRST_PAUSE_S
        while not self._stopping:
            code = await self._run(number)
            if self._stopping:
                return
            if not self._serving:
                self._code = code if code > 0 else 1
                self._stop()
                return
            log(logging.ERROR, "a process ended and is started again", number=number, code=code)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            self._reload.add(number)  # others may be told to while this one opens the index

    async def _run(self, number: int) -> int:
        """Run a process to its end; returns its exit code."""
        loop = asyncio.get_running_loop()
        announced, announces = os.pipe()
        sockets = [self._listeners[number], *([self._metrics] if self._metrics else [])]
        job: dict[str, Any] = {
            "settings": self._settings.model_dump(mode="json", exclude=_SECRETS),
            "sockets": [one.fileno() for one in sockets],
            "announces": announces,
            "folder": self._folder,
            "number": number,
            "log_level": self._log_level,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "service.worker",  # -P: not from where one is
            stdin=asyncio.subprocess.PIPE,  # stays open: its end tells that we are gone
            pass_fds=[*job["sockets"], announces],
            process_group=0,  # Ctrl-C is for us
        )  # fmt: skip
        os.close(announces)
        assert process.stdin is not None
        process.stdin.write(json.dumps(job).encode() + b"\n")
        self._running[number] = process

        def hear() -> None:
            loop.remove_reader(announced)
            if os.read(announced, 1):
                self._ready.add(number)
                if number in self._reload:
                    self._reload.discard(number)
                    process.send_signal(signal.SIGHUP)
            os.close(announced)
            self._changed.set()

        loop.add_reader(announced, hear)
        code = await process.wait()
        del self._running[number]
        self._ready.discard(number)
        self._changed.set()
        return code

    def _reload_all(self) -> None:
        for number, process in self._running.items():
            if number in self._ready:
                process.send_signal(signal.SIGHUP)
            else:  # it does not listen to signals yet
                self._reload.add(number)

    def _stop(self) -> None:
        """Let all drain; asked twice, end them."""
        self._stopping = True
        self._stopped.set()
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        for listener in self._listeners:
            listener.close()  # now the processes decide how long they accept
        if self._metrics is not None:
            self._metrics.close()
        self._changed.set()
