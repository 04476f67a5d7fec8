from __future__ import annotations

import asyncio

import pytest
from asking import MakeClient, problem
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.app import PAGE
from service.keys import Keys
from service.middleware.auth import OwnPages, RequireKey, TrustedHost

KEYS = ["a-key-of-the-tests-0123456789", "another-key-of-the-tests-9876"]
PUBLIC = ["/livez", "/readyz", "/", *(f"/{f.name}" for f in PAGE.iterdir() if f.suffix != ".html")]
PRIVATE = [
    ("POST", "/v1/annotate"), ("POST", "/v1/annotate-vectors"), ("POST", "/v1/embed"),
    ("GET", "/v1/info"), ("GET", "/v1/concepts"),
    ("GET", "/v1/neighbors/train00/image"), ("GET", "/v1/search"), ("GET", "/v1/similar"),
    ("GET", "/v1/images/train00"), ("PATCH", "/v1/images/train00"), ("POST", "/v1/images"),
    ("DELETE", "/v1/images/train00"), ("GET", "/v1/images"), ("GET", "/v1/queue"),
    ("GET", "/v1/map"),
    ("POST", "/v1/pictures"), ("GET", "/v1/pictures/train00"),
    ("POST", "/v1/similar"), ("POST", "/v1/reload"), ("GET", "/metrics"),
    ("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/no/such/path"), ("PUT", "/v1/info"),
    ("GET", "/v1/info/"),
]  # fmt: skip


async def not_reached(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("the request is passed on")


@pytest.mark.parametrize("key", [None, "wrong", "right"])
def test_every_route_with_every_kind_of_key(make_client: MakeClient, key: str | None) -> None:
    client = make_client(KEYS)
    sent = {"wrong": "no-key-of-theirs-0000000000000", "right": KEYS[1]}.get(key or "")
    headers = [{}] if sent is None else [{"Authorization": f"Bearer {sent}"}, {"X-API-Key": sent}]
    for given in headers:
        for path in PUBLIC:
            assert client.get(path, headers=given).status_code == 200, path
        for method, path in PRIVATE:
            answer = client.request(method, path, headers=given)
            assert (answer.status_code == 401) == (key != "right"), path
            if key != "right":
                assert problem(answer) == (401, "unauthorized")
                assert answer.headers["www-authenticate"] == 'Bearer realm="annotator"'


def test_the_routes_above_are_all_there_are(make_client: MakeClient) -> None:
    app = make_client(KEYS).app
    paths = {getattr(route, "path", None) for route in app.routes}  # type: ignore[attr-defined]
    described = set(app.openapi()["paths"])  # type: ignore[attr-defined]
    listed = {path.replace("train00", "{id}") for _, path in PRIVATE} | set(PUBLIC)
    assert {path.replace("{id:path}", "{id}") for path in described} <= listed
    of_images = {"/v1/neighbors/{id:path}/image", "/v1/images/{id:path}"}
    assert {path for path in paths if path} <= listed | of_images


@pytest.mark.parametrize("value", ["Basic abc", "Bearer", "Bearer ", "Bearer \xff", "bearer"])
def test_headers_that_hold_no_key(make_client: MakeClient, value: str) -> None:
    headers = {b"Authorization": value.encode("latin-1")}
    assert make_client(KEYS).get("/v1/info", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("guarded", "status"),
    [
        (RequireKey(not_reached, Keys(KEYS), ()), 401),
        (TrustedHost(not_reached, ["localhost"]), 421),
        (OwnPages(not_reached), 403),
    ],
)
def test_the_body_of_a_stranger_is_not_read(guarded: ASGIApp, status: int) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body is read")

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [
        (b"host", b"evil.example"),
        (b"origin", b"https://evil"),
        (b"x-api-key", KEYS[0][:-1].encode()),
    ]
    scope = {"type": "http", "method": "POST", "path": "/v1/annotate", "headers": headers}
    asyncio.run(guarded(scope, receive, send))
    assert [m.get("status") for m in sent] == [status, None] and sent[1]["body"]


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("127.0.0.1:8000", 200), ("[::1]:8000", 200), ("LOCALHOST:1", 200),
     ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("10.0.0.1", 421), ("", 421),
     ("127.0.0.1:x", 421), ("[::1", 421), ("localhost@evil.example", 421)],
)  # fmt: skip
def test_without_keys_only_local_names_are_answered(
    make_client: MakeClient, host: str, status: int
) -> None:
    assert make_client().get("/v1/info", headers={"Host": host}).status_code == status
    assert make_client(insecure=True).get("/v1/info", headers={"Host": host}).status_code == 200
    with_key = make_client(KEYS).get("/v1/info", headers={"Host": host, "X-API-Key": KEYS[0]})
    assert with_key.status_code == 200


@pytest.mark.parametrize(("own", "header"), [("127.8.8.8", "127.8.8.8:80"), ("::1", "[::1]:80")])
def test_the_address_that_it_listens_on_is_a_local_name(
    make_client: MakeClient, own: str, header: str
) -> None:
    client = make_client(host=own)
    assert client.get("/v1/info", headers={"Host": header}).status_code == 200
    refused = client.get("/v1/info", headers={"Host": f"{own}.evil.example"})
    assert problem(refused) == (421, "unknown_host")


OWN = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),  # of a program
        ({"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),  # typed into the address bar
        ({"Origin": OWN}, True),  # of a browser that does not tell the site
        ({"Origin": "https://ours.example", "Sec-Fetch-Site": "cross-site"}, True),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": f"{OWN}.evil.example"}, False),
        ({"Origin": "127.0.0.1:8000"}, False),
    ],
)
def test_pages_of_other_sites(
    make_client: MakeClient, headers: dict[str, str], allowed: bool
) -> None:
    sent = {"Host": "127.0.0.1:8000", **headers}
    for options in ({}, {"insecure": True}):
        client = make_client(cors_origin="https://ours.example", **options)
        for method, path in (("POST", "/v1/annotate"), ("GET", "/v1/search"), ("PUT", "/absent")):
            answer = client.request(method, path, headers=sent)
            assert (answer.status_code == 403) == (not allowed), path
            if not allowed:
                assert problem(answer) == (403, "cross_site")
        assert client.get("/", headers=sent).status_code == 200  # a link to the page
    keyed = make_client(KEYS).get("/v1/info", headers={**sent, "X-API-Key": KEYS[0]})
    assert keyed.status_code == 200


def test_health_checks_come_by_any_name(make_client: MakeClient) -> None:
    for path in ("/livez", "/readyz"):
        assert make_client().get(path, headers={"Host": "10.1.2.3:8000"}).status_code == 200
