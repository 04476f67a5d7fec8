"""The process: socket, uvicorn, signals, and an end that drops nobody's request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator

import uvicorn

from annotator.errors import AnnotatorError
from service.app import create_app
from service.engine import EngineHolder, open_engine
from service.logs import configure_logging, log
from service.middleware.auth import read_keys
from service.middleware.protocol import MAX_HEADER_BYTES, http_protocol
from service.service import Service
from service.settings import Settings

KEEP_ALIVE_SECONDS = 15


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    Raises:
        AnnotatorError: The address cannot be listened on, the key file is wrong, or the index
            cannot be served.
        IndexProblem: There is no index, or it is damaged.
    """
    reload_asked: list[int] = []
    signal.signal(signal.SIGHUP, lambda *_: reload_asked.append(1))  # until the server runs
    keys = read_keys(settings.api_key_file) if settings.api_key_file else None
    with _bind(settings.host, settings.port) as listener:  # refuse before the work is done
        engine = open_engine(settings.index, settings.device)
        configure_logging()
        app = create_app(settings, EngineHolder(settings.index, settings.device, engine), keys)
        config = uvicorn.Config(
            app,
            http=http_protocol(settings.read_timeout_s, settings.max_connections),
            loop="asyncio",
            ws="none",
            lifespan="on",
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(settings.read_timeout_s + settings.timeout_s) + 5,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        )
        server = _Server(config, app.state.service, bool(reload_asked))
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        server.run_at(listener, url)
    return 0


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # asyncio turns Nagle's delay off only on sockets that say they are TCP: without it, every
        # answer on a kept connection waits 40 ms for the client's acknowledgement of its headers.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise AnnotatorError(
            f"Cannot listen on {host}, port {port}: {error.strerror}.",
            "Choose another --port (0 takes a free one) or --host.",
        ) from error
    return listener


class _Server(uvicorn.Server):
    """uvicorn with our signals: SIGHUP reloads, SIGTERM and SIGINT drain and exit with 0.

    Args:
        config: uvicorn's.
        service: Told when it is to drain.
        reload_first: Whether SIGHUP came while the index was opened.
    """

    def __init__(self, config: uvicorn.Config, service: Service, reload_first: bool) -> None:
        super().__init__(config)
        self._service = service
        self._reload_first = reload_first
        self._url = ""
        self._reloads: set[asyncio.Task[None]] = set()

    def run_at(self, listener: socket.socket, url: str) -> None:
        """Serve on a bound socket, and say so on stdout once connections are accepted."""
        self._url = url
        self.run(sockets=[listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept."""
        await super().startup(sockets)
        log(logging.INFO, "serving", url=self._url, index=self._service.holder.current.version)
        print(f"Serving on {self._url} (Ctrl-C stops it). Not for clinical use.", flush=True)
        if self._reload_first:
            self._reload()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals in the event loop; uvicorn would end by raising them again."""
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self._drain,
            signal.SIGINT: self._drain,
            signal.SIGHUP: self._reload,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let what was accepted finish, close."""
        for server in self.servers:
            server.close()
        # A request that came with the last connections is read before idle ones are closed.
        await asyncio.sleep(0.1)
        await super().shutdown(sockets)
        log(logging.INFO, "stopped")

    def _drain(self) -> None:
        if self._service.draining:
            self.force_exit = self.should_exit = True  # asked twice: do not wait
            return
        self._service.draining = True
        delay = self._service.settings.shutdown_delay_s
        log(logging.INFO, "draining", delay_s=delay)
        asyncio.get_running_loop().call_later(delay, setattr, self, "should_exit", True)

    def _reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._service.reload_on_signal())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)
