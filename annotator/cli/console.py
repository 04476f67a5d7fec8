"""Output of the commands: results on stdout, messages on stderr."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from annotator.errors import AnnotatorError

EXIT_OK = 0
EXIT_PROBLEM = 1  # the input or the index is wrong; validate or verify found something
EXIT_USAGE = 2  # click's own
EXIT_PARTIAL = 3  # finished, but some images could not be used
EXIT_INTERRUPTED = 130

NO_THUMBNAILS = (
    "The index keeps no small pictures: give --images, or build it with --thumbnails (nothing is "
    "embedded again)."
)

_SHOWN = 20


def say(message: str) -> None:
    """Print a message on stderr."""
    click.echo(message, err=True)


def say_failed(failed: Sequence[tuple[str, str]]) -> None:
    """Say which images could not be used and why; of many, the first twenty."""
    for where, reason in failed[:_SHOWN]:
        say(f"{where}: {reason}")
    if len(failed) > _SHOWN:
        say(f"… and {len(failed) - _SHOWN} more")
    if failed:
        say(f"{len(failed)} images could not be used.")


def search_in_words(search: Mapping[str, Any]) -> str:
    """Why an index has its type, and the recall measured when it was built."""
    reason = str(search.get("reason", ""))
    if "recall" in search:
        reason += f"; finds {search['recall']:.1%} of the true neighbours"
        if search["recall"] < search["target_recall"]:
            reason += f", less than the wanted {search['target_recall']:.1%}"
    return reason


def write_result(data: str | bytes, output: Path | None) -> None:
    """Write a finished result to stdout, or to a file that appears whole or not at all.

    Raises:
        AnnotatorError: The file cannot be written.
    """
    raw = data.encode() if isinstance(data, str) else data
    if output is None:
        if isinstance(data, bytes) and sys.stdout.isatty():
            raise click.UsageError("A zip is not for a terminal: redirect it or give --output.")
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()
        return
    try:
        if output.exists() and not output.is_file():
            output.write_bytes(raw)  # a device or a pipe is written to, never replaced
        else:
            _write_whole(raw, output.resolve())
    except OSError as error:
        raise AnnotatorError(
            f"{output} cannot be written: {error.strerror}.",
            "Check that its folder is there, may be written to and has space.",
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
