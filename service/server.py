"""The server process: socket, uvicorn, signals, graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import math
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import uvicorn

from annotator.errors import AnnotatorError
from service.app import create_app
from service.corrections import Store, opened_for_writing
from service.engine import open_engine
from service.keys import Keys, read_keys
from service.middleware.connections import (
    ACCEPTED_AT_ONCE,
    BACKLOG,
    Connections,
    allowed_connections,
)
from service.observability import configure_logging, log
from service.service import Service
from service.settings import Settings
from service.siblings import Siblings
from service.supervisor import supervise
from service.tracing import tracing_of

KEEP_ALIVE_SECONDS = 15

_UNSENT_BYTES = 128 << 10

_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_ACCEPT_FAILED_EVERY_S = 60.0


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
    early_reloads = remember_reloads()
    keys = read_keys(settings)
    if settings.writable and not (settings.oidc_issuer or (keys and keys.have("correct"))):
        raise AnnotatorError(
            "No key may correct anything.", "Write `correct:` before one: correct:KEY NAME"
        )
    with contextlib.ExitStack() as stack:
        # Refuse before the work is done.
        several = settings.processes > 1
        listeners = [stack.enter_context(_bind(settings.host, settings.port, shared=several))]
        port = listeners[0].getsockname()[1]
        for _ in range(1, settings.processes):
            listeners.append(stack.enter_context(_bind(settings.host, port, shared=True)))
        metrics = None
        if settings.metrics_port is not None:
            metrics = stack.enter_context(_bind(settings.host, settings.metrics_port))
        if several:
            configure_logging(log_level)
            url = _url_of(listeners[0])
            return supervise(settings, listeners, metrics, lambda: started(url), log_level)
        store = stack.enter_context(opened_for_writing(settings)) if settings.writable else None
        sockets = listeners if metrics is None else [*listeners, metrics]
        run(
            settings, keys, sockets, started,
            log_level=log_level, early_reloads=early_reloads, store=store,
        )  # fmt: skip
    return 0


def remember_reloads() -> list[int]:
    """A list that grows with each SIGHUP until the server runs."""
    reloads: list[int] = []
    signal.signal(signal.SIGHUP, lambda *_: reloads.append(1))
    return reloads


def run(
    settings: Settings,
    keys: Keys | None,
    sockets: Sequence[socket.socket],
    started: Callable[[str], None],
    *,
    log_level: int,
    early_reloads: Sequence[int],
    store: Store | None = None,
    siblings: Siblings | None = None,
    lifeline: int | None = None,
) -> None:
    """Serve in this process.

    Args:
        settings: Settings of the service.
        keys: The accepted API keys.
        sockets: Bound: that of the service, and that of the metrics if they have one of their own.
        started: See `serve`.
        log_level: See `serve`.
        early_reloads: Of `remember_reloads`.
        store: Takes corrections.
        siblings: The other processes of the service.
        lifeline: A file whose end means that the supervisor is gone.

    Raises:
        AnnotatorError, IndexProblem: The index cannot be served.
    """
    tracing = tracing_of()
    engine = open_engine(settings)
    configure_logging(log_level)
    metrics_port = int(sockets[1].getsockname()[1]) if len(sockets) > 1 else None
    app = create_app(settings, engine, keys, store, metrics_port, siblings, tracing)
    service: Service = app.state.service
    connections = _connections(settings, service)
    config = uvicorn.Config(
        app,
        http=connections.protocol(),
        backlog=ACCEPTED_AT_ONCE,  # the loop accepts as many in one turn
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
    )
    urls = [_url_of(one) for one in sockets]
    server = _Server(
        config, service, keys, connections, urls, started, bool(early_reloads), lifeline
    )
    gc.collect()
    gc.freeze()  # what is there now stays: the collector need not go through it each time
    try:
        server.run(sockets=list(sockets))
    finally:
        tracing.close()


def _connections(settings: Settings, service: Service) -> Connections:
    """The limits on connections, lowered where the process may not open so many files."""
    limit = allowed_connections(settings.max_connections)
    if limit < settings.max_connections:
        log(
            logging.WARNING,
            "fewer connections than max_connections: RLIMIT_NOFILE (ulimit -n) is too low",
            max_connections=settings.max_connections,
            connections=limit,
        )
    metrics = service.metrics
    connections = Connections(
        limit,
        settings.header_timeout_s,
        settings.send_timeout_s,
        lambda reason: metrics.closed_connections.labels(reason).inc(),
    )
    metrics.connections.set_function(lambda: len(connections))
    return connections


def _bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket on a port, which others that are `shared` may have as well."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # asyncio turns Nagle's delay off only on sockets that say they are TCP: without it, every
        # answer on a kept connection waits 40 ms for the client's acknowledgement of its headers.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Of what a client does not take, the system would else store megabytes.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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


def _url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn with our signals: SIGHUP reloads, SIGTERM and SIGINT drain and exit with 0.

    Args:
        config: Configuration of uvicorn.
        service: The service.
        keys: The accepted API keys, which SIGHUP reads again.
        connections: Its connections.
        urls: The address, and that of the metrics if they have one of their own.
        started: See `serve`.
        reload_first: Whether SIGHUP came while the index was opened.
        lifeline: See `run`.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        keys: Keys | None,
        connections: Connections,
        urls: Sequence[str],
        started: Callable[[str], None],
        reload_first: bool,
        lifeline: int | None = None,
    ) -> None:
        super().__init__(config)
        self._service = service
        self._connections = connections
        self._accept_failed = -math.inf
        self._keys = keys
        self._urls = urls
        self._started = started
        self._reload_first = reload_first
        self._lifeline = lifeline

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, and announce it."""
        asyncio.get_running_loop().set_exception_handler(self._handle_exception)
        await super().startup(sockets)
        for one in sockets or ():
            one.listen(BACKLOG)
        version = self._service.engine.stored.version
        url, *metrics = self._urls
        where: dict[str, Any] = {"metrics": f"{metrics[0]}/metrics"} if metrics else {}
        log(logging.INFO, "serving", url=url, index=version, **where)
        self._started(url)
        if self._reload_first:
            self._service.reload_soon()
        if self._lifeline is not None:
            asyncio.get_running_loop().add_reader(self._lifeline, self._drain_alone)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals in the event loop; uvicorn would raise them again at its end."""
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
        """Stop accepting, finish accepted requests, close."""
        for server in self.servers:
            server.close()
        self._connections.drain()
        # A request that came with the last connections is read before idle ones are closed.
        await asyncio.sleep(0.1)
        await super().shutdown(sockets)
        log(logging.INFO, "stopped")

    def _reload(self) -> None:
        """Read the keys again, and the index; what cannot be read stays as it was."""
        try:
            keys = read_keys(self._service.settings)
        except AnnotatorError as error:
            log(logging.ERROR, "keys not reloaded", reason=error.message, hint=error.hint)
        else:
            if keys is not None and self._keys is not None:
                self._keys.replace_by(keys)
        self._service.reload_soon()

    def _handle_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what failed in the loop; that connections cannot be accepted, once a minute."""
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _OUT_OF_RESOURCES):
            loop.default_exception_handler(context)
        elif loop.time() - self._accept_failed >= _ACCEPT_FAILED_EVERY_S:
            self._accept_failed = loop.time()
            reason = errno.errorcode[error.errno]
            log(logging.ERROR, "connections cannot be accepted", errno=error.errno, reason=reason)

    def _drain_alone(self) -> None:
        """Drain when the supervisor is gone."""
        assert self._lifeline is not None
        asyncio.get_running_loop().remove_reader(self._lifeline)
        if not self._service.draining:
            self._drain()

    def _drain(self) -> None:
        if self._service.draining:
            self.force_exit = self.should_exit = True  # asked twice: do not wait
            return
        self._service.draining = True
        delay = self._service.settings.shutdown_delay_s
        log(logging.INFO, "draining", delay_s=delay)
        asyncio.get_running_loop().call_later(delay, setattr, self, "should_exit", True)
