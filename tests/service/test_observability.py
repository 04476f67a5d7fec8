from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from asking import drawing
from starlette.testclient import TestClient

from service.observability import JsonFormatter, describe, log


@pytest.fixture
def written() -> Any:
    """What all loggers write, as the service would."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root, ours = logging.getLogger(), logging.getLogger("service")
    root.addHandler(handler)
    before = ours.level
    ours.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    ours.setLevel(before)
    root.removeHandler(handler)


def test_a_line_is_an_object(written: Callable[[], list[dict[str, Any]]]) -> None:
    log(logging.INFO, "something", count=3)
    (line,) = written()
    assert line.pop("time").endswith("Z")
    assert line == {"level": "info", "logger": "service", "event": "something", "count": 3}


def test_exceptions_are_types_and_lines(written: Callable[[], list[dict[str, Any]]]) -> None:
    try:
        try:
            int("Nobody^Anybody")
        except ValueError as error:
            raise RuntimeError("about Nobody^Anybody") from error
    except RuntimeError as error:
        log(logging.ERROR, "failed", error)
    (line,) = written()
    assert "Nobody" not in json.dumps(line)
    outer, inner = line["errors"]
    assert outer.startswith("builtins.RuntimeError at test_observability.py:")
    assert inner.startswith("builtins.ValueError at test_observability.py:")


def test_groups_are_taken_apart() -> None:
    group = ExceptionGroup("secret", [ValueError("secret"), KeyError("secret")])
    lines = describe(group)
    assert [line.split()[0] for line in lines] == [
        "builtins.ExceptionGroup", "builtins.ValueError", "builtins.KeyError"
    ]  # fmt: skip
    assert "secret" not in str(lines)


def test_other_libraries_do_not_get_their_words_in(
    written: Callable[[], list[dict[str, Any]]],
) -> None:
    logging.getLogger("somewhere").warning("invalid value %r", "Nobody^Anybody")
    (line,) = written()
    assert line["logger"] == "somewhere" and "Nobody" not in json.dumps(line)
    assert line["event"].startswith("logged by test_observability, line ")


def test_requests_leave_nothing_of_themselves(
    client: TestClient, written: Callable[[], list[dict[str, Any]]]
) -> None:
    secret = "Anybody"
    client.post(
        f"/v1/annotate?k=3&min_score=0.{'1' * 9}",
        files=[("image", (f"{secret}.png", drawing(0))), (secret, (f"{secret}.dcm", b"DICM"))],
        headers={"X-API-Key": secret, "X-Request-ID": secret},
    )
    client.get(f"/v1/neighbors/{secret}/image")
    client.get(f"/{secret}?{secret}={secret}")
    client.get(f"/v1/concepts?q={secret}")
    client.request(secret.upper(), "/livez")
    lines = written()
    assert secret.lower() not in json.dumps(lines).lower() and "111111111" not in json.dumps(lines)
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["route"] for line in requests] == [
        "/v1/annotate", "/v1/neighbors/{id:path}/image", "none", "/v1/concepts", "/livez"
    ]  # fmt: skip
    first = requests[0]
    assert (first["status"], first["code"], first["images"]) == (200, "ok", 2)
    assert first["bytes"] > len(drawing(0)) and first["ms"] > 0
    assert requests[-1]["method"] == "other"


@pytest.mark.parametrize(
    ("given", "kept"),
    [("0194fdc2-fa2f-7cc0-8b3e-7a31d0c2f6e1", True), ("01ARZ3NDEKTSV4RRFFQ69G5FAV", True),
     ("Nobody Anybody 1234567", False), ("NobodyAnybodyNobody", False), ("1" * 65, False)],
)  # fmt: skip
def test_the_id_of_a_request(
    client: TestClient, written: Callable[[], list[dict[str, Any]]], given: str, kept: bool
) -> None:
    answer = client.get("/livez", headers={"X-Request-ID": given})
    assert (answer.headers["x-request-id"] == given) == kept
    assert [line["request_id"] for line in written()] == [answer.headers["x-request-id"]]


def test_a_trace_goes_on(client: TestClient, written: Callable[[], list[dict[str, Any]]]) -> None:
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    answer = client.get("/livez", headers={"traceparent": f"00-{trace}-{parent}-01"})
    version, same, span, flags = answer.headers["traceparent"].split("-")
    assert (version, same, flags) == ("00", trace, "01") and span != parent
    (line,) = written()
    assert (line["trace_id"], line["parent_id"], line["span_id"]) == (trace, parent, span)
    for wrong in (f"00-{'0' * 32}-{parent}-01", "Nobody^Anybody", f"ff-{trace}-{parent}-01"):
        assert "traceparent" not in client.get("/livez", headers={"traceparent": wrong}).headers
    assert "trace_id" not in written()[-1]
