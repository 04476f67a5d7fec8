"""Callers by OpenID Connect: bearer tokens (JWT, RFC 7519) that an identity provider has signed.

The provider's metadata (OpenID Connect Discovery 1.0) name its keys (JWKS, RFC 7517). Both are
fetched when the first token comes, without keeping others waiting, and again once an hour, or when
a token names a key that is not among them, at most once a minute: nobody can make the service ask
more often. Only asymmetric signatures count: neither `none`, nor HMAC, for which a public key would
do as the secret.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Mapping
from typing import Any

from annotator.errors import AnnotatorError
from index.distribution import pip_install
from service.keys import ROLES, Caller
from service.observability import log
from service.problems import Problem
from service.settings import Settings

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
)  # fmt: skip
#: Before roles of ours among others in a claim: "annotator:correct".
PREFIX = "annotator:"

_DISCOVERY = "/.well-known/openid-configuration"
_LEEWAY_S = 30  # between our clock and the provider's
_FETCHED_FOR_S = 3600.0
_ASKED_EVERY_S = 60.0
_FAILED_EVERY_S = 5.0
_TIMEOUT_S = 5.0
_MOST_BYTES = 1 << 20
_MOST_NAME = 200  # characters


class Tokens:
    """The tokens of one provider that are accepted.

    Args:
        settings: Issuer, audience and the claim with roles.

    Raises:
        AnnotatorError: Packages are missing.
    """

    def __init__(self, settings: Settings) -> None:
        try:
            import httpx  # noqa: F401
            import joserfc  # noqa: F401
        except ImportError as error:
            raise AnnotatorError(
                f"OpenID Connect needs the package {error.name}, which is not installed.",
                pip_install("oidc"),
            ) from None
        assert settings.oidc_issuer is not None and settings.oidc_audience is not None
        self._issuer = settings.oidc_issuer
        self._audience = settings.oidc_audience
        self._roles_claim = settings.oidc_roles_claim
        self._keys: list[Any] = []
        self._fetched = self._asked = -math.inf
        self._lock = asyncio.Lock()

    async def caller(self, token: str) -> Caller | None:
        """Who has a token; None if it is not valid. Of one without a role of ours, the role is "".

        Raises:
            Problem: 503, the provider's keys cannot be had.
        """
        from joserfc import jws, jwt
        from joserfc.errors import JoseError

        if token.count(".") != 2:
            return None
        try:
            header = jws.extract_compact(token.encode("latin-1")).headers()
        except (JoseError, ValueError):
            return None
        if header.get("alg") not in ALGORITHMS:
            return None
        rules = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_S,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        for key in await self._candidates(header.get("kid")):
            try:
                claims = jwt.decode(token, key, algorithms=list(ALGORITHMS)).claims
                rules.validate(claims)
            except (JoseError, ValueError, TypeError):
                continue
            return Caller(_name_in(claims), self._role_in(claims))
        return None

    async def _candidates(self, kid: object) -> list[Any]:
        """The keys that may have signed a token which names one, or none."""
        found = self._named(kid)
        now = time.monotonic()
        if found and now - self._fetched < _FETCHED_FOR_S:
            return found
        async with self._lock:
            now = time.monotonic()
            pause = _ASKED_EVERY_S if self._keys else _FAILED_EVERY_S
            if now - self._asked >= pause and (
                now - self._fetched >= _FETCHED_FOR_S or not self._named(kid)
            ):
                self._asked = now
                await self._fetch(now)
        if not self._keys:
            raise Problem(
                503,
                "no_identity_provider",
                "The keys of the identity provider cannot be had at the moment.",
                "Try again after a moment.",
                {"Retry-After": "5"},
            )
        return self._named(kid)

    def _named(self, kid: object) -> list[Any]:
        return [key for key in self._keys if kid is None or key.kid == kid]

    async def _fetch(self, now: float) -> None:
        """Fetch the keys; those of before stay if that fails."""
        import httpx
        from joserfc.errors import JoseError

        try:
            async with httpx.AsyncClient(
                timeout=_TIMEOUT_S, follow_redirects=False, trust_env=True
            ) as client:
                about = await _json_at(client, self._issuer.rstrip("/") + _DISCOVERY)
                if about.get("issuer") != self._issuer:
                    raise ValueError("the metadata are of another issuer")
                address = str(about["jwks_uri"])
                if not address.startswith("https://") and self._issuer.startswith("https://"):
                    raise ValueError("jwks_uri is not https://")
                keys = _usable(await _json_at(client, address))
        except (httpx.HTTPError, httpx.InvalidURL, JoseError, KeyError, TypeError, ValueError) as e:
            log(logging.ERROR, "the identity provider's keys cannot be fetched", e)
            return
        self._keys, self._fetched = keys, now

    def _role_in(self, claims: Mapping[str, Any]) -> str:
        """The role that may do most of those in the claim."""
        value: Any = claims
        for part in self._roles_claim.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        given = value.split() if isinstance(value, str) else value
        roles = (
            [str(role).removeprefix(PREFIX) for role in given] if isinstance(given, list) else []
        )
        return max((role for role in roles if role in ROLES), key=ROLES.index, default="")


def _usable(document: Mapping[str, Any]) -> list[Any]:
    """The public keys for signatures in a JWKS; those that are not understood are left out.

    Raises:
        ValueError: There are none.
    """
    from joserfc import jwk
    from joserfc.errors import JoseError

    keys = []
    for one in document["keys"]:
        if one.get("kty") not in ("RSA", "EC") or one.get("use", "sig") != "sig":
            continue
        try:
            keys.append(jwk.import_key(one))
        except (JoseError, ValueError):
            continue
    if not keys:
        raise ValueError("no key is of use")
    return keys


async def _json_at(client: Any, address: str) -> dict[str, Any]:
    """The JSON object at an address.

    Raises:
        ValueError: It is none, or large.
        httpx.HTTPError: It cannot be fetched.
    """
    async with client.stream("GET", address) as answer:
        answer.raise_for_status()
        data = b""
        async for piece in answer.aiter_bytes():
            data += piece
            if len(data) > _MOST_BYTES:
                raise ValueError("the answer is too large")
    document = json.loads(data)
    if not isinstance(document, dict):
        raise ValueError("the answer is no object")
    return document


def _name_in(claims: Mapping[str, Any]) -> str:
    """The name under which corrections are recorded."""
    for claim in ("preferred_username", "email", "name", "sub"):
        name = claims.get(claim)
        if isinstance(name, str) and name.strip() and name.isprintable():
            return name.strip()[:_MOST_NAME]
    return "somebody"
