"""What `/metrics` says, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

STAGES = ("queue", "decode", "encode", "search", "vote")
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The service's counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "annotator_requests",
            "Requests by route and outcome (ok, or the code of the problem).",
            ("method", "route", "status", "outcome"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "annotator_request_seconds",
            "From a request's headers to the start of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.images = Counter(
            "annotator_images", "Images by outcome (ok, or the code of the problem).", ("outcome",),
            registry=registry,
        )  # fmt: skip
        self.stage_seconds = Histogram(
            "annotator_stage_seconds",
            "Of an image in queue and decode, of a batch in encode, search and vote.",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_images = Histogram(
            "annotator_batch_images", "Images encoded at once.", buckets=_BATCHES, registry=registry
        )
        self.rejected = Counter(
            "annotator_rejected",
            "Requests refused with 429, by reason.",
            ("reason",),
            registry=registry,
        )
        self.admitted = Gauge(
            "annotator_admitted_images", "Images accepted and unfinished.", registry=registry
        )
        self.queued = Gauge(
            "annotator_queued_images", "Images decoded and not encoded.", registry=registry
        )
        self.index = Gauge(
            "annotator_index_info",
            "The index that is served.",
            ("version", "model"),
            registry=registry,
        )
        self.reloads = Counter("annotator_reloads", "Reloads that succeeded.", registry=registry)
        self.reload_failures = Counter(
            "annotator_reload_failures",
            "Reloads that failed; the old index went on.",
            registry=registry,
        )
        for stage in STAGES:
            self.stage_seconds.labels(stage)  # present from the start, as rates want it

    def watch(self, admitted: Callable[[], int], queued: Callable[[], int]) -> None:
        """Take the depths of the queues from where they are."""
        self.admitted.set_function(admitted)
        self.queued.set_function(queued)

    def serving(self, version: str, model: str) -> None:
        """Say which index is served from now on."""
        self.index.clear()
        self.index.labels(version, model).set(1)

    def render(self) -> bytes:
        """The exposition, text format 0.0.4."""
        return generate_latest(self.registry)
