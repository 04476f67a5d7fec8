"""The server process: socket, uvicorn, signals, graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from annotator.errors import AnnotatorError
from service.app import create_app
from service.corrections import opened_for_writing
from service.engine import open_engine
from service.middleware.auth import read_keys
from service.middleware.connections import MAX_HEADER_BYTES, limited_protocol
from service.observability import configure_logging, log
from service.service import Service
from service.settings import Settings

KEEP_ALIVE_SECONDS = 15


def announce(url: str) -> None:
    """Print the address on stdout."""
    print(f"Serving on {url} (Ctrl-C stops it). Not for clinical use.", flush=True)


def serve(
    settings: Settings,
    started: Callable[[str], None] = announce,
    *,
    log_level: int = logging.INFO,
) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    Args:
        settings: Settings of the service.
        started: Called with the address once connections are accepted.
        log_level: Least level of the service's log.

    Raises:
        AnnotatorError: The address cannot be listened on, the key file is wrong, or the index
            cannot be served.
        IndexProblem: There is no index, or it is damaged.
    """
    early_reloads: list[int] = []
    signal.signal(signal.SIGHUP, lambda *_: early_reloads.append(1))  # until the server runs
    keys = read_keys(settings.api_key_file) if settings.api_key_file else None
    if settings.writable and not (keys and keys.have("correct")):
        raise AnnotatorError(
            f"No key in {settings.api_key_file} may correct anything.",
            "Write `correct:` before one: correct:KEY NAME",
        )
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_bind(settings.host, settings.port))  # before the work
        store = stack.enter_context(opened_for_writing(settings)) if settings.writable else None
        engine = open_engine(settings)
        configure_logging(log_level)
        app = create_app(settings, engine, keys, store)
        config = uvicorn.Config(
            app,
            http=limited_protocol(settings.read_timeout_s, settings.max_connections),
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
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        server = _Server(config, app.state.service, url, started, bool(early_reloads))
        server.run(sockets=[listener])
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
        config: Configuration of uvicorn.
        service: The service.
        url: The address.
        started: See `serve`.
        reload_first: Whether SIGHUP came while the index was opened.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        url: str,
        started: Callable[[str], None],
        reload_first: bool,
    ) -> None:
        super().__init__(config)
        self._service = service
        self._url = url
        self._started = started
        self._reload_first = reload_first

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, and announce it."""
        await super().startup(sockets)
        version = self._service.engine.stored.version
        log(logging.INFO, "serving", url=self._url, index=version)
        self._started(self._url)
        if self._reload_first:
            self._service.reload_soon()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals in the event loop; uvicorn would raise them again at its end."""
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self._drain,
            signal.SIGINT: self._drain,
            signal.SIGHUP: self._service.reload_soon,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, finish accepted requests, close."""
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
