"""Logs: one JSON object a line on stderr, and never anything that a client sent.

No file names, ids, keys, query values or DICOM tags, and no texts of exceptions, which may quote
them: of an exception the log says the types and the lines that it came through.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

logger = logging.getLogger("service")

# Loggers whose messages are known to hold nothing that a client sent.
_TRUSTED = ("service", "uvicorn.error")


class JsonFormatter(logging.Formatter):
    """A record as a JSON object. Of loggers that are not ours it tells place and level alone."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
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
    """One line: what happened, and facts about it that hold nothing a client sent."""
    logger.log(level, event, extra={"fields": fields}, exc_info=error)


def describe(error: BaseException) -> list[str]:
    """An exception and its causes: types and lines, without texts."""
    return list(_describe(error))


def _describe(error: BaseException) -> Iterator[str]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        frames = traceback.extract_tb(cause.__traceback__)
        where = " > ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames)
        yield f"{type(cause).__module__}.{type(cause).__qualname__} at {where or 'no line'}"
        if isinstance(cause, BaseExceptionGroup):
            for inner in cause.exceptions:
                yield from _describe(inner)
        cause = cause.__cause__ or cause.__context__


def configure_logging() -> None:
    """Send every logger of the process to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logger.setLevel(logging.INFO)
