"""Access control: API keys, and trusted host names without them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import stat
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastapi import Security
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from annotator.errors import AnnotatorError
from service.problems import Problem, send_problem
from service.settings import Settings

if TYPE_CHECKING:
    from service.middleware.oidc import Tokens

MIN_KEY_LENGTH = 16

_BEARER = HTTPBearer(scheme_name="bearer", auto_error=False)
_HEADER = APIKeyHeader(scheme_name="header", name="X-API-Key", auto_error=False)

#: Dependencies that describe the keys in the OpenAPI document; `RequireKey` checks them.
KEY_SCHEMES = [Security(_BEARER), Security(_HEADER)]


#: Where Label Studio finds its back end: it knows no other way to send a key than HTTP Basic.
LABEL_STUDIO = "/label-studio"
WEBHOOK = f"{LABEL_STUDIO}/webhook"

#: What a key may do; each may do what those before it may, too.
ROLES = ("read", "annotate", "correct")
_OF_A_BARE_KEY = "annotate"
_READS = ("GET", "HEAD", "OPTIONS")


class Caller(NamedTuple):
    """Who calls: the name of a key or in a token, and its role; "" for none."""

    name: str
    role: str

    def may(self, role: str) -> bool:
        """Whether the caller's role is this one, or one that may do more."""
        return self.role in ROLES and ROLES.index(self.role) >= ROLES.index(role)


class Keys:
    """The accepted API keys, as hashes.

    Args:
        keys: "KEY", "ROLE:KEY" or "ROLE:KEY NAME" each.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._callers: list[tuple[bytes, Caller]] = []
        for line in keys:
            role, key, name = parse_key(line)
            digest = _digest(key.encode())
            self._callers.append((digest, Caller(name or f"key {digest.hex()[:8]}", role)))

    def caller(self, key: bytes) -> Caller | None:
        """Who has a key, in constant time; None for nobody."""
        digest = _digest(key)
        found: Caller | None = None
        for known, caller in self._callers:
            if hmac.compare_digest(digest, known):
                found = caller
        return found

    def have(self, role: str) -> bool:
        """Whether there is a key with this role."""
        return any(caller.role == role for _, caller in self._callers)

    def replace_by(self, other: Keys) -> None:
        """Accept the keys of another object instead."""
        self._callers = other._callers


def parse_key(line: str) -> tuple[str, str, str]:
    """Role, key and name in a line of a key file."""
    role, colon, rest = line.strip().partition(":")
    if not colon or role not in ROLES:
        return _OF_A_BARE_KEY, line.strip(), ""
    key, _, name = rest.strip().partition(" ")
    return role, key, name.strip()


def role_for(method: str, path: str) -> str:
    """The role that a request needs."""
    if method in _READS:
        return "read"
    corrects = path in ("/v1/images", WEBHOOK) or path.startswith("/v1/images/")
    return "correct" if corrects else "annotate"


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def read_keys(settings: Settings) -> Keys | None:
    """The keys in the file and in the environment; None if no key is asked for.

    A key may have its role before it, and then its owner's name after it: "correct:KEY Ada". A bare
    one has the role annotate.

    Raises:
        AnnotatorError: The file cannot be read, strangers can read or change it, there is no key,
            or a key is too short or malformed.
    """
    keys = []
    if settings.api_key_file is not None:
        keys += _keys_in_file(settings.api_key_file)
    if settings.api_keys is not None:
        parts = map(str.strip, re.split(r"[,\n]", settings.api_keys.get_secret_value()))
        given = [(f"key {i}", part) for i, part in enumerate(filter(None, parts), 1)]
        keys += _checked("ANNOTATOR_API_KEYS", given)
    return Keys(keys) if settings.has_keys else None


def _keys_in_file(path: Path) -> list[str]:
    """One key a line; empty lines and comments (#) are skipped."""
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
    # Its group may read it: so the secrets of a cluster are given to a process.
    if mode & (stat.S_IWGRP | stat.S_IRWXO):
        raise AnnotatorError(
            f"{path} holds API keys, and users other than its owner may change it, or others than "
            "its group read it.",
            f"chmod 600 {path} (or 640)",
        )
    lines = [(f"line {i}", line.strip()) for i, line in enumerate(text.splitlines(), 1)]
    return _checked(str(path), [pair for pair in lines if pair[1] and pair[1][0] != "#"])


def _checked(source: str, given: Sequence[tuple[str, str]]) -> list[str]:
    """Keys, each with its place; never quoted, since these messages end up in logs."""
    for place, line in given:
        _, key, name = parse_key(line)
        if len(key) < MIN_KEY_LENGTH:
            raise AnnotatorError(
                f"{source}, {place}: the key has fewer than {MIN_KEY_LENGTH} characters.",
                "Make one: openssl rand -hex 32",
            )
        if not (key.isascii() and key.isprintable() and name.isprintable()) or " " in key:
            raise AnnotatorError(
                f"{source}, {place}: a key is of printable ASCII characters without spaces.",
                "Make one: openssl rand -hex 32",
            )
    if not given:
        raise AnnotatorError(f"{source} holds no key.", "Give one: openssl rand -hex 32")
    return [line for _, line in given]


class RequireKey:
    """Middleware: answer 401 to requests without a valid key, except on the public paths.

    Those whose key may not do what they want get 403. The caller is `request.state.caller`.

    A middleware, not a dependency of the routes, so that nothing can be forgotten: it also covers
    unknown paths, wrong methods, redirects and /openapi.json, which FastAPI answers before any
    dependency runs, and it refuses before a body is read.

    Args:
        app: The application behind it.
        keys: The accepted keys.
        public: Paths without a key.
        tokens: The tokens of an identity provider that are accepted in place of a key.
    """

    def __init__(
        self, app: ASGIApp, keys: Keys, public: Collection[str], tokens: Tokens | None = None
    ) -> None:
        self._app = app
        self._keys = keys
        self._tokens = tokens
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._public:
            await self._app(scope, receive, send)
            return
        given = await _given_key(Request(scope))
        caller = self._keys.caller(given)
        if caller is None and self._tokens is not None:
            try:
                caller = await self._tokens.caller(given.decode("latin-1"))
            except Problem as no_keys:
                await send_problem(no_keys, scope, receive, send)
                return
        role = role_for(scope["method"], scope["path"])
        if caller is not None and caller.may(role):
            scope.setdefault("state", {})["caller"] = caller
            await self._app(scope, receive, send)
            return
        problem = (
            Problem(
                403,
                "forbidden",
                f"This key may not do that: its role is {caller.role or 'none'}, and {role} is "
                "needed.",
                f"Use a key with that role (`{role}:KEY` in the service's key file), or a token.",
            )
            if caller is not None
            else Problem(
                401,
                "unauthorized",
                "This needs a valid API key.",
                "Send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
                {"WWW-Authenticate": 'Bearer realm="annotator"'},
            )
        )
        await send_problem(problem, scope, receive, send)


async def _given_key(request: Request) -> bytes:
    if request.url.path.startswith(f"{LABEL_STUDIO}/"):
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            return _password(value)
    bearer = await _BEARER(request)
    key = bearer.credentials if bearer else await _HEADER(request) or ""
    return key.encode("latin-1")


def _password(credentials: str) -> bytes:
    """The password in credentials of HTTP Basic (RFC 7617), b"" in others."""
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""


class TrustedHost:
    """Middleware: Starlette's check of the Host header, with a problem for its answer.

    Without keys, being reachable from this machine alone is what protects the service. A web page
    could get around that by letting its own host name resolve to 127.0.0.1 (DNS rebinding); the
    Host header gives it away.

    Args:
        app: The application behind it.
        allowed_hosts: Without ports; IPv6 addresses in brackets.
        public: Paths that are answered to any name: those who check a server's health use its
            address.
    """

    def __init__(
        self, app: ASGIApp, allowed_hosts: Sequence[str], public: Collection[str] = ()
    ) -> None:
        self._app = app
        self._allowed_hosts = allowed_hosts
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def accept(scope: Scope, receive: Receive, _: Send) -> None:
            await self._app(scope, receive, send)

        async def refuse(message: Message) -> None:
            if message["type"] == "http.response.start":  # in place of Starlette's plain text
                await send_problem(_unknown_host(), scope, receive, send)

        if scope["type"] == "http" and scope["path"] in self._public:
            await self._app(scope, receive, send)
            return
        check = TrustedHostMiddleware(accept, self._allowed_hosts, www_redirect=False)
        await check(scope, receive, refuse)


class OwnPages:
    """Middleware: refuse requests that a browser makes for a page of another site.

    Without keys, anything that runs on an allowed machine may call the service, and a browser runs
    the pages of strangers. They cannot read the answers, but what they ask for would be done.
    Browsers tell by Sec-Fetch-Site, or at least by Origin; programs send neither.

    Args:
        app: The application behind it.
        allowed_origin: An origin whose pages may call the service.
        public: Paths that links on any page may lead to.
    """

    def __init__(
        self, app: ASGIApp, allowed_origin: str | None = None, public: Collection[str] = ()
    ) -> None:
        self._app = app
        self._allowed_origin = allowed_origin
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_allowed(scope["path"], Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        problem = Problem(
            403,
            "cross_site",
            "A page of another site made this request.",
            "Start the service with --cors-origin to allow the pages of one origin, or with keys.",
        )
        await send_problem(problem, scope, receive, send)

    def _is_allowed(self, path: str, headers: Headers) -> bool:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if path in self._public or (origin is not None and origin == self._allowed_origin):
            return True
        if site is not None:
            return site in ("same-origin", "none")
        return origin is None or origin.partition("://")[2] == headers.get("host")


def _unknown_host() -> Problem:
    return Problem(
        421,
        "unknown_host",
        "Without API keys, the service answers to localhost and 127.0.0.1 alone.",
        "Start it with --api-key-file, or with --insecure if a proxy keeps strangers out.",
    )
