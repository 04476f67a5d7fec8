"""Spans of requests and their stages."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from asking import cpu_settings, drawing
from starlette.testclient import TestClient

from service.app import create_app
from service.engine import Engine
from service.tracing import Tracing, tracing_of

pytest.importorskip("opentelemetry.sdk.trace", reason="needs the extra otel")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STAGES = {"receive", "queue", "decode", "encode", "search", "vote"}


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def client(tiny_index: Path, engine: Engine, exporter: InMemorySpanExporter) -> Any:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = create_app(cpu_settings(tiny_index), engine, tracing=Tracing(provider))
    with TestClient(app, "http://127.0.0.1") as client:
        yield client


def test_a_request_and_its_stages(client: Any, exporter: InMemorySpanExporter) -> None:
    files = [("f", ("secret-name.png", drawing(i))) for i in range(2)]
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    answer = client.post("/v1/annotate?k=3", files=files, headers=headers)
    *stages, request = exporter.get_finished_spans()
    assert answer.headers["traceparent"] == f"00-{TRACE}-{request.context.span_id:016x}-01"
    assert f"{request.context.trace_id:032x}" == TRACE
    assert f"{request.parent.span_id:016x}" == PARENT
    assert request.name == "POST /v1/annotate"
    assert dict(request.attributes) == {
        "http.request.method": "POST", "http.route": "/v1/annotate",
        "http.response.status_code": 200, "annotator.code": "ok", "annotator.images": 2,
    }  # fmt: skip
    names = [span.name for span in stages]
    assert set(names) == STAGES and names.count("vote") == 2 and names.count("receive") == 1
    for span in stages:
        assert span.parent.span_id == request.context.span_id
        assert request.start_time <= span.start_time <= span.end_time <= request.end_time
    assert "secret" not in "".join(span.to_json() for span in (*stages, request))


def test_other_requests(client: Any, exporter: InMemorySpanExporter) -> None:
    assert client.get("/v1/search?q=C9").status_code == 200
    search, request = exporter.get_finished_spans()
    assert (search.name, request.name) == ("search", "GET /v1/search")
    assert request.parent is None and search.parent.span_id == request.context.span_id
    exporter.clear()
    assert client.get("/v1/images/x", headers={"traceparent": "nonsense"}).status_code == 404
    assert [s.name for s in exporter.get_finished_spans()][-1] == "GET /v1/images/{id:path}"
    exporter.clear()
    for path in ("/livez", "/readyz", "/metrics"):
        assert "traceparent" not in client.get(path).headers
    # One that is not sampled is not recorded, and its trace goes on.
    answer = client.get("/v1/info", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert answer.headers["traceparent"].startswith(f"00-{TRACE}-")
    assert answer.headers["traceparent"].endswith("-00")
    assert not exporter.get_finished_spans()


class Receiver(BaseHTTPRequestHandler):
    """An OTLP receiver: keeps path and content type of what comes."""

    got: list[tuple[str, str]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((self.path, self.headers["Content-Type"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_spans_are_exported_where_the_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[tuple[str, str]] = []
    with HTTPServer(("127.0.0.1", 0), type("Here", (Receiver,), {"got": got})) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        tracing = tracing_of()
        with tracing.request("GET", ""):
            tracing.stage("search", 0.0, 0.1)
        tracing.close()
        server.shutdown()
        thread.join()
    assert got == [("/v1/traces", "application/x-protobuf")]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"},
    ],
)
def test_nothing_is_made_that_nobody_asked_for(environment: dict[str, str]) -> None:
    with tracing_of(environment).request("GET", "") as span:
        assert span is None
