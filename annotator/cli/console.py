"""Output of the commands: results on stdout, messages on stderr."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from annotator.errors import AnnotatorError

EXIT_OK = 0
EXIT_PROBLEM = 1  # invalid input or index, or problems found by validate or verify
EXIT_USAGE = 2  # click's own
EXIT_PARTIAL = 3  # finished, but some images could not be used
EXIT_INTERRUPTED = 130

NO_THUMBNAILS = (
    "The index has no thumbnails: give --images, or rebuild it with --thumbnails (nothing is "
    "embedded again)."
)


def say(message: str) -> None:
    """Print a message on stderr."""
    click.echo(message, err=True)


def search_in_words(search: Mapping[str, Any]) -> str:
    """Reason for the index type, and the recall measured by the build."""
    reason = str(search.get("reason", ""))
    if "recall" in search:
        reason += f"; recall {search['recall']:.1%}"
        if search["recall"] < search["target_recall"]:
            reason += f", below the target of {search['target_recall']:.1%}"
    return reason


def write_result(data: str | bytes, output: Path | None) -> None:
    """Write a complete result to stdout, or atomically to a file.

    Raises:
        AnnotatorError: The file cannot be written.
    """
    raw = data.encode() if isinstance(data, str) else data
    if output is None:
        if isinstance(data, bytes) and sys.stdout.isatty():
            raise click.UsageError("Cannot write a zip to a terminal: redirect or give --output.")
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()
        return
    try:
        if output.exists() and not output.is_file():
            output.write_bytes(raw)  # a device or pipe: never replaced
        else:
            _write_whole(raw, output.resolve())
    except OSError as error:
        raise AnnotatorError(
            f"{output} cannot be written: {error.strerror}.",
            "Check that its folder exists, is writable and has free space.",
        ) from error


def _write_whole(data: bytes, path: Path) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
