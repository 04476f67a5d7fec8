"""The application as a whole: page, headers, errors that belong to no route, OpenAPI."""

from __future__ import annotations

import json
import re

import pytest
from asking import MakeClient, problem
from starlette.testclient import TestClient

from service.app import PAGE
from service.middleware.headers import PAGE_POLICY


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/absent", 404, "not_found"), ("GET", "/v1/embed", 405, "method_not_allowed")],
)
def test_wrong_paths_and_methods(
    client: TestClient, method: str, path: str, status: int, code: str
) -> None:
    assert problem(client.request(method, path)) == (status, code)


def test_the_page_and_its_policy(client: TestClient) -> None:
    for path in PAGE.iterdir():
        url = "/" if path.name == "index.html" else f"/{path.name}"
        answer = client.get(url)
        assert answer.content == path.read_bytes()
        assert answer.headers["content-security-policy"] == PAGE_POLICY
        again = client.get(url, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.head(url).status_code == 200


def test_headers_on_every_answer(client: TestClient) -> None:
    for path in ("/", "/livez", "/v1/info", "/openapi.json", "/absent", "/v1/annotate"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert len(headers["x-request-id"]) == 16


@pytest.mark.parametrize("path", ["/v1/info/", "/livez/", "/v1/annotate/"])
def test_nothing_is_redirected(client: TestClient, path: str) -> None:
    answer = client.get(path, headers={"Host": "localhost"}, follow_redirects=False)
    assert problem(answer) == (404, "not_found")


def test_a_length_and_an_encoding(client: TestClient) -> None:
    """Proxies disagree where such a request ends, so nothing may follow it."""
    twice = {"Content-Length": "5", "Transfer-Encoding": "chunked", "Content-Type": "image/png"}
    answer = client.post("/v1/annotate", content=b"12345", headers=twice)
    assert answer.headers["connection"] == "close"
    answer = client.post("/v1/annotate", content=b"12345", headers={"Content-Type": "image/png"})
    assert "connection" not in answer.headers


def test_other_origins(make_client: MakeClient) -> None:
    ours, other = "https://ours.example", "https://other.example"
    client = make_client(cors_origin=ours)
    for origin, allowed in ((ours, ours), (other, None)):
        answer = client.get("/v1/info", headers={"Origin": origin})
        assert answer.headers.get("access-control-allow-origin") == allowed
    asked = {"Origin": ours, "Access-Control-Request-Method": "POST"}
    assert client.options("/v1/annotate", headers=asked).status_code == 200
    plain = make_client().get("/v1/info", headers={"Origin": ours})
    assert "access-control-allow-origin" not in plain.headers


def test_what_nobody_foresaw(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> bytes:
        raise RuntimeError("with a secret in it")

    ours = "https://ours.example"
    client = make_client(cors_origin=ours)
    service = client.app.state.service  # type: ignore[attr-defined]
    monkeypatch.setattr(service.metrics, "render", broken)
    answer = client.get("/metrics", headers={"Origin": ours})
    assert answer.headers["access-control-allow-origin"] == ours  # its pages may read why
    assert problem(answer) == (500, "internal_error")
    assert answer.headers["x-request-id"] in answer.json()["detail"]
    assert "secret" not in answer.text and "Traceback" not in answer.text
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == ["unexpected error"]


def test_the_description_is_complete(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    text = json.dumps(document)
    references = {piece.split('"')[0] for piece in text.split('"$ref": "#/components/schemas/')[1:]}
    assert references <= document["components"]["schemas"].keys()
    assert "HTTPValidationError" not in text
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["description"], path
            assert "security" not in operation, path


def test_operations_have_names_that_generators_can_use(client: TestClient) -> None:
    """They are part of the interface: methods of generated clients have these names."""
    paths = client.get("/openapi.json").json()["paths"]
    names = [one["operationId"] for operations in paths.values() for one in operations.values()]
    assert len(names) == len(set(names)) and all(re.fullmatch("[a-z]+(_[a-z]+)*", n) for n in names)
    assert {
        "annotate", "annotate_vectors", "embed", "search_cases", "find_similar",
        "find_similar_to_images", "get_info", "list_concepts", "get_neighbor_image", "get_image",
        "correct_image", "remove_image", "add_image", "reload_index", "is_alive", "is_ready",
        "get_metrics",
    } <= set(names)  # fmt: skip


def test_the_description_says_how_keys_are_sent(make_client: MakeClient) -> None:
    key = "a-key-of-the-tests"
    client = make_client(keys=[key])
    document = client.get("/openapi.json", headers={"X-API-Key": key}).json()
    assert document["components"]["securitySchemes"] == {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            expected = None if path in ("/livez", "/readyz") else [{"bearer": []}, {"header": []}]
            assert operation.get("security") == expected, path
