"""API keys, and which requests need none."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import stat
from collections.abc import Collection, Sequence
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from annotator.errors import AnnotatorError
from service.problems import Problem, send_problem

MIN_KEY_LENGTH = 16


class Keys:
    """The accepted API keys, as hashes.

    Args:
        keys: At least one.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def accept(self, key: bytes) -> bool:
        """Whether `key` is one of them, in a time that tells nothing of how nearly it is."""
        digest = _digest(key)
        accepted = False
        for known in self._digests:
            accepted |= hmac.compare_digest(digest, known)
        return accepted


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def read_keys(path: Path) -> Keys:
    """Read a file of API keys: one a line; empty lines and lines that begin with # are passed over.

    Raises:
        AnnotatorError: The file cannot be read, others may read it, or a key is not one.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise AnnotatorError(
            f"{path} cannot be read: {error.strerror}.",
            f"Make one: (umask 077; openssl rand -hex 32 > {path})",
        ) from error
    except UnicodeDecodeError as error:
        raise AnnotatorError(f"{path} is not text.", "Write one key a line.") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise AnnotatorError(
            f"{path} holds API keys, and users other than its owner may read or change it.",
            f"chmod 600 {path}",
        )
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        # Never quoted: these messages end up in logs.
        if len(key) < MIN_KEY_LENGTH:
            raise AnnotatorError(
                f"{path}, line {number}: the key has fewer than {MIN_KEY_LENGTH} characters.",
                "Make one: openssl rand -hex 32",
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise AnnotatorError(
                f"{path}, line {number}: a key is of printable ASCII characters without spaces.",
                "Make one: openssl rand -hex 32",
            )
        keys.append(key)
    if not keys:
        raise AnnotatorError(f"{path} holds no key.", "Write one key a line.")
    return Keys(keys)


class RequireKey:
    """Middleware: everything but the public paths needs a key.

    Args:
        app: What is behind it.
        keys: None to let everybody in.
        public: Paths that need no key.
    """

    def __init__(self, app: ASGIApp, keys: Keys | None, public: Collection[str]) -> None:
        self._app = app
        self._keys = keys
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if (
            scope["type"] != "http"
            or self._keys is None
            or scope["path"] in self._public
            or self._keys.accept(_given_key(Headers(scope=scope)))
        ):
            await self._app(scope, receive, send)
            return
        problem = Problem(
            401,
            "unauthorized",
            "This needs a valid API key.",
            "Send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
            {"WWW-Authenticate": 'Bearer realm="annotator"'},
        )
        await send_problem(problem, scope, receive, send)


def _given_key(headers: Headers) -> bytes:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        key = headers.get("x-api-key", "")
    return key.strip().encode("latin-1")


class LocalNamesOnly:
    """Middleware: refuse requests whose Host is not this machine's own name for itself.

    Without keys, being reachable from this machine alone is what protects the service. A web page
    could get around that by letting its own host name resolve to 127.0.0.1 (DNS rebinding); the
    Host header gives it away.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 421."""
        if scope["type"] != "http" or _is_local(Headers(scope=scope).get("host", "")):
            await self._app(scope, receive, send)
            return
        problem = Problem(
            421,
            "unknown_host",
            "Without API keys, the service answers to localhost and 127.0.0.1 alone.",
            "Start it with --api-key-file, or with --insecure if a proxy keeps strangers out.",
        )
        await send_problem(problem, scope, receive, send)


def _is_local(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
