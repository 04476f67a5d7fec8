"""Tokens, against an identity provider that answers over HTTP."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from asking import MakeClient, problem
from joserfc import jwk, jwt
from pydantic import ValidationError

from service.keys import read_keys
from service.middleware import oidc
from service.middleware.oidc import Tokens
from service.settings import Settings

AUDIENCE = "annotator"
RSA = jwk.RSAKey.generate_key(2048, {"kid": "rsa"})
EC = jwk.ECKey.generate_key("P-256", {"kid": "ec"})
NEXT = jwk.ECKey.generate_key("P-384", {"kid": "next"})


class Provider(ThreadingHTTPServer):
    """An identity provider. `keys` are those it publishes, `asked` counts what it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.issuer = f"http://127.0.0.1:{self.server_port}/realms/hospital"
        self.claimed_issuer = self.issuer
        self.keys: list[Any] = [RSA, EC]
        self.asked = 0
        self.is_down = False

    def token(self, key: Any = RSA, alg: str = "RS256", **changes: Any) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer, "aud": AUDIENCE, "sub": "1234", "iat": now, "exp": now + 600,
            "preferred_username": "ada", "roles": ["correct"],
        }  # fmt: skip
        claims = {k: v for k, v in {**claims, **changes}.items() if v is not None}
        header = {"alg": alg, "kid": key.kid}
        return jwt.encode(header, claims, key, algorithms=[alg])


class _Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        provider = self.server
        keys = [key.as_dict(private=False) for key in provider.keys]
        pages: dict[str, Any] = {
            "/realms/hospital/.well-known/openid-configuration": {
                "issuer": provider.claimed_issuer,
                "jwks_uri": f"http://127.0.0.1:{provider.server_port}/keys",
            },
            "/keys": {"keys": [*keys, {"kty": "oct", "k": "c2VjcmV0", "kid": "rsa"}, {"kty": "?"}]},
        }
        provider.asked += self.path == "/keys"
        page = None if provider.is_down else pages.get(self.path)
        self.send_response(200 if page else 503)
        self.end_headers()
        self.wfile.write(json.dumps(page).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        thread = threading.Thread(target=provider.serve_forever, args=(0.02,))
        thread.start()
        yield provider
        provider.shutdown()
        thread.join()


def part(value: dict[str, str]) -> str:
    """Of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def status(client: Any, token: str, path: str = "/v1/info") -> int:
    return int(client.get(path, headers=bearer(token)).status_code)


@pytest.fixture
def client(provider: Provider, make_client: MakeClient) -> Any:
    return make_client(oidc_issuer=provider.issuer, oidc_audience=AUDIENCE, keys=["k" * 20])


def test_tokens_and_keys(client: Any, provider: Provider) -> None:
    for token in (
        provider.token(),
        provider.token(EC, "ES256"),
        provider.token(RSA, "PS384"),
        provider.token(aud=["other", AUDIENCE]),
        provider.token(roles=["x", "annotator:read"]),
        provider.token(roles="openid read"),
    ):
        assert status(client, token) == 200
    assert status(client, "k" * 20) == 200  # a key does as before
    assert provider.asked == 1
    assert client.get("/livez").status_code == 200


def test_roles(client: Any, provider: Provider) -> None:
    def post(**changes: Any) -> Any:
        headers = bearer(provider.token(**changes))
        return client.post("/v1/annotate", headers=headers, content=b"")

    assert problem(post(roles=["read"])) == (403, "forbidden")
    for roles in (None, [], "", ["admin"], {"read": 1}, 7):
        assert problem(post(roles=roles)) == (403, "forbidden")
        assert status(client, provider.token(roles=roles)) == 403
    assert post(roles=["read", "annotate"]).status_code == 415
    deleted = client.delete("/v1/images/a", headers=bearer(provider.token(roles=["annotate"])))
    assert problem(deleted) == (403, "forbidden")
    deleted = client.delete("/v1/images/a", headers=bearer(provider.token()))
    assert problem(deleted) == (403, "read_only")


def test_tokens_that_are_refused(client: Any, provider: Provider) -> None:
    now = int(time.time())
    good = provider.token()
    head, claims, signature = good.split(".")
    none, hmac_head = (part({"alg": alg, "kid": "rsa"}) for alg in ("none", "HS256"))
    # The public key as the secret of an HMAC.
    secret = RSA.as_pem(private=False)
    forged = hmac.digest(secret, f"{hmac_head}.{claims}".encode(), "sha256")
    stranger = jwk.RSAKey.generate_key(2048, {"kid": "rsa"})
    for token in (
        f"{head}.{claims}.{signature[:-6]}AAAAAA",
        f"{head}.{claims}.",
        f"{none}.{claims}.",
        f"{none}.{claims}.{signature}",
        f"{hmac_head}.{claims}.{base64.urlsafe_b64encode(forged).decode().rstrip('=')}",
        provider.token(stranger),
        provider.token(iss="https://elsewhere.example"),
        provider.token(iss=None),
        provider.token(aud="another-service"),
        provider.token(aud=None),
        provider.token(exp=now - 120),
        provider.token(exp=None),
        provider.token(nbf=now + 600),
        provider.token(sub=None),
        "a.b.c", "..", "ä.ö.ü", "{}.{}.{}",
    ):  # fmt: skip
        answer = client.get("/v1/info", headers={"Authorization": f"Bearer {token}".encode()})
        assert problem(answer) == (401, "unauthorized"), token


def test_keys_that_change(client: Any, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status(client, provider.token()) == 200 and provider.asked == 1
    for _ in range(5):  # nobody makes the service ask more often
        assert status(client, provider.token(NEXT, "ES384")) == 401
    assert provider.asked == 1
    provider.keys = [NEXT]
    monkeypatch.setattr(oidc, "_ASKED_EVERY_S", 0.0)
    assert status(client, provider.token(NEXT, "ES384")) == 200 and provider.asked == 2
    assert status(client, provider.token()) == 401  # withdrawn
    assert provider.asked == 3
    provider.is_down = True
    monkeypatch.setattr(oidc, "_FETCHED_FOR_S", 0.0)
    assert status(client, provider.token(NEXT, "ES384")) == 200  # as long as it is away


def test_a_provider_that_is_away_or_another(
    client: Any, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.is_down = True
    answer = client.get("/v1/info", headers=bearer(provider.token()))
    assert problem(answer) == (503, "no_identity_provider")
    assert answer.headers["retry-after"] == "5"
    assert status(client, "k" * 20) == 200
    provider.is_down = False
    assert status(client, provider.token()) == 503  # it was asked a moment ago
    monkeypatch.setattr(oidc, "_FAILED_EVERY_S", 0.0)
    provider.claimed_issuer = "http://127.0.0.1/another"
    assert status(client, provider.token()) == 503
    provider.claimed_issuer = provider.issuer
    assert status(client, provider.token()) == 200


def test_claims_within_others_and_names(provider: Provider) -> None:
    tokens = Tokens(
        Settings(
            oidc_issuer=provider.issuer, oidc_audience=AUDIENCE,
            oidc_roles_claim="realm_access.roles",
        )
    )  # fmt: skip

    def caller(**changes: Any) -> Any:
        return asyncio.run(tokens.caller(provider.token(**changes)))

    assert caller(realm_access={"roles": ["read", "correct", "annotate"]}) == ("ada", "correct")
    assert caller() == ("ada", "")
    assert caller(realm_access=["read"], preferred_username="a\nb") == ("1234", "")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"oidc_issuer": "http://login.example.org", "oidc_audience": "a"}, "must look like"),
        ({"oidc_issuer": "https://login.example.org"}, "OIDC_AUDIENCE"),
    ],
)
def test_settings_that_are_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(**given)


def test_without_keys_nobody_else_comes_in() -> None:
    settings = Settings(oidc_issuer="https://a.example/x", oidc_audience="a", host="0.0.0.0")
    keys = read_keys(settings)
    assert keys is not None and keys.caller(b"") is None and not keys.have("read")
