"""Metrics for Prometheus, and logs on stderr: one JSON object a line.

Logs never hold anything that a client sent: no file names, ids, keys, query values or DICOM tags,
and no texts of exceptions, which may quote them. Exceptions are logged as types and lines.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STAGES = ("queue", "decode", "encode", "search", "vote")
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_SHARES = tuple(round(tenth / 10, 1) for tenth in range(1, 11))
_FAMILIARITIES = (0.01, 0.05, *_SHARES)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

logger = logging.getLogger("service")

# Loggers whose messages hold nothing that a client sent.
_TRUSTED = ("service", "uvicorn.error")


class Metrics:
    """The service's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.requests = counter(
            "annotator_requests",
            "Requests by route and outcome (ok, or the code of the problem).",
            ("method", "route", "status", "outcome"),
        )
        self.request_seconds = histogram(
            "annotator_request_seconds",
            "From a request's headers to the start of its answer.",
            ("route",),
            buckets=_SECONDS,
        )
        self.images = counter(
            "annotator_images", "Images by outcome (ok, or the code of the problem).", ("outcome",)
        )
        self.stage_seconds = histogram(
            "annotator_stage_seconds",
            "Of an image in queue and decode, of a batch in encode, search and vote.",
            ("stage",),
            buckets=_SECONDS,
        )
        self.batch_images = histogram(
            "annotator_batch_images", "Images encoded at once.", buckets=_BATCHES
        )
        self.familiarity = histogram(
            "annotator_familiarity", "Familiarity of annotated images.", buckets=_FAMILIARITIES
        )
        self.expected_f1 = histogram(
            "annotator_expected_f1", "Expected F1 of annotated images.", buckets=_SHARES
        )
        self.rejected = counter(
            "annotator_rejected", "Requests refused with 429, by reason.", ("reason",)
        )
        self.connections = gauge("annotator_connections", "Open connections.")
        self.closed_connections = counter(
            "annotator_closed_connections",
            "Connections closed for their client's behaviour: slow headers, an answer that is not "
            "taken (unread), silence where others want to connect (room), too many (limit).",
            ("reason",),
        )
        self.admitted = gauge("annotator_admitted_images", "Images accepted and unfinished.")
        self.queued = gauge("annotator_queued_images", "Images decoded and not encoded.")
        self.decoding = gauge(
            "annotator_decoding_bytes", "Memory that images may take that are being decoded."
        )
        self.index = gauge(
            "annotator_index_info", "The index that is served.", ("version", "model")
        )
        self.reloads = counter("annotator_reloads", "Reloads that succeeded.")
        self.reload_failures = counter(
            "annotator_reload_failures", "Reloads that failed; the old index went on."
        )
        for stage in STAGES:
            self.stage_seconds.labels(stage)  # present from the start, as rates want it

    def watch(
        self,
        admitted: Callable[[], int],
        queued: Callable[[], int],
        decoding: Callable[[], int],
    ) -> None:
        """Read the depths of the queues, and the bytes of decoding, from these functions."""
        self.admitted.set_function(admitted)
        self.queued.set_function(queued)
        self.decoding.set_function(decoding)

    def serving(self, version: str, model: str) -> None:
        """Record the served version and its encoder."""
        self.index.clear()
        self.index.labels(version, model).set(1)

    def render(self) -> bytes:
        """The metrics in Prometheus' text format 0.0.4."""
        return generate_latest(self.registry)


class _Families:
    """Metrics as `generate_latest` wants them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def merged(texts: Sequence[bytes]) -> bytes:
    """The metrics of several processes as those of one: sums; of times and facts, the first one.

    Args:
        texts: In Prometheus' text format 0.0.4.
    """
    families: dict[str, Metric] = {}
    values: dict[tuple[str, str, tuple[tuple[str, str], ...]], float] = {}
    for text in texts:
        for family in text_string_to_metric_families(text.decode()):
            families.setdefault(family.name, family)
            for sample in family.samples:
                key = (family.name, sample.name, tuple(sorted(sample.labels.items())))
                if sample.name.endswith(("_created", "_info")):
                    values.setdefault(key, sample.value)
                else:
                    values[key] = values.get(key, 0.0) + sample.value
    for family in families.values():
        family.samples = []
    for (family_name, name, labels), value in values.items():
        families[family_name].add_sample(name, dict(labels), value)
    return generate_latest(cast(CollectorRegistry, _Families(families.values())))


class JsonFormatter(logging.Formatter):
    """Formats records as lines of JSON; those of other libraries by place and level only."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        fields: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if record.name in _TRUSTED:
            fields["event"] = record.getMessage().strip().partition("\n")[0]
        else:
            fields["event"] = f"logged by {record.module}, line {record.lineno}"
        fields |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1]:
            fields["errors"] = describe(record.exc_info[1])
        return json.dumps(fields, ensure_ascii=False, default=str)


def log(level: int, event: str, error: BaseException | None = None, **fields: Any) -> None:
    """Log an event with facts about it, which must not hold anything that a client sent."""
    logger.log(level, event, extra={"fields": fields}, exc_info=error)


def describe(error: BaseException) -> list[str]:
    """Types and lines of an exception and its causes, without their texts."""
    return list(_descriptions(error))


def _descriptions(error: BaseException) -> Iterator[str]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        frames = traceback.extract_tb(cause.__traceback__)
        where = " > ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames)
        yield f"{type(cause).__module__}.{type(cause).__qualname__} at {where or 'no line'}"
        if isinstance(cause, BaseExceptionGroup):
            for inner in cause.exceptions:
                yield from _descriptions(inner)
        cause = cause.__cause__ or cause.__context__


def configure_logging(level: int = logging.INFO) -> None:
    """Send every logger of the process to stderr as JSON, the service's from a level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logger.setLevel(level)
