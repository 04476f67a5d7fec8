"""Who may come in: callers with a key, and without keys only local names and own pages."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from fastapi import Security
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.keys import LABEL_STUDIO, Keys, role_for
from service.problems import Problem, send_problem

if TYPE_CHECKING:
    from service.middleware.oidc import Tokens

_BEARER = HTTPBearer(scheme_name="bearer", auto_error=False)
_HEADER = APIKeyHeader(scheme_name="header", name="X-API-Key", auto_error=False)

#: Dependencies that describe the keys in the OpenAPI document; `RequireKey` checks them.
KEY_SCHEMES = [Security(_BEARER), Security(_HEADER)]


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
