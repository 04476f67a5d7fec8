"""Spans by OpenTelemetry, exported by OTLP over HTTP where its usual variables ask for it.

A request is a span, in the trace of its `traceparent` if it has one, with a span within for each of
its stages: receive, and of each image queue, decode, encode, search, vote. They hold what the log
holds: routes as templates, statuses and numbers, nothing that a client sent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from annotator.errors import AnnotatorError
from index.distribution import pip_install

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ASKED_BY = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Tracing:
    """Makes spans, or nothing.

    Args:
        provider: Of OpenTelemetry; without one, there are no spans.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("annotator") if provider else None

    @contextmanager
    def request(self, method: str, traceparent: str) -> Iterator[Any]:
        """The span of a request, in which its stages are recorded; None if there are no spans."""
        if self._tracer is None:
            yield None
            return
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
        with self._tracer.start_as_current_span(
            method, parent, SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ) as span:
            yield span

    def stage(self, name: str, started: float, seconds: float) -> None:
        """Record a stage of the request under way.

        Args:
            name: Of the span.
            started: By `time.perf_counter`.
            seconds: How long it took.
        """
        if self._tracer is not None:
            began = time.time_ns() - int((time.perf_counter() - started) * 1e9)
            span = self._tracer.start_span(name, start_time=began)
            span.end(began + int(seconds * 1e9))

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Record the block as a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stage(name, started, time.perf_counter() - started)

    def close(self) -> None:
        """Export what is left; blocks for some seconds at most."""
        if self._provider is not None:
            self._provider.shutdown()


def describe(span: Any, method: str, route: str, status: int, code: str, images: int) -> None:
    """Say of the span of a request what became of it (OpenTelemetry's names for HTTP)."""
    from opentelemetry.trace import StatusCode

    span.update_name(f"{method} {route}")
    span.set_attributes(
        {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "annotator.code": code,
            "annotator.images": images,
        }
    )
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def tracing_of(environment: Mapping[str, str] = os.environ) -> Tracing:
    """What OpenTelemetry's variables ask for: spans where an OTLP endpoint is named.

    Raises:
        AnnotatorError: The packages for it are missing.
    """
    wanted = environment.get("OTEL_TRACES_EXPORTER", "")
    asked = any(environment.get(name) for name in _ASKED_BY) or wanted == "otlp"
    if not asked or wanted == "none" or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Tracing()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise AnnotatorError(
            f"OpenTelemetry needs the package {error.name}, which is not installed.",
            pip_install("otel"),
        ) from None
    named = {} if environment.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "annotator"}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
