"""One of several processes that serve an index: `python -m service.worker`, for the supervisor."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from pathlib import Path

from annotator.errors import AnnotatorError
from service.keys import read_keys
from service.server import remember_reloads, run
from service.settings import Settings, read_settings
from service.siblings import Siblings

_LEAST_CONNECTIONS = 8
_LEAST_DECODE_MB = 64


def main() -> int:
    """Serve as the job on stdin says."""
    early_reloads = remember_reloads()
    job = json.loads(_first_line(0))
    settings = _share_of(read_settings(**job["settings"]))
    siblings = Siblings(Path(job["folder"]), job["number"], settings.processes)

    def announce(_: str) -> None:
        os.write(job["announces"], b"!")
        os.close(job["announces"])

    try:
        with contextlib.ExitStack() as stack:
            sockets = [
                stack.enter_context(socket.socket(fileno=number)) for number in job["sockets"]
            ]
            run(
                settings, read_keys(settings), sockets, announce,
                log_level=job["log_level"], early_reloads=early_reloads,
                siblings=siblings, lifeline=0,
            )  # fmt: skip
    except AnnotatorError as error:
        print(f"Error: {error.message}", *filter(None, [error.hint]), sep="\n", file=sys.stderr)
        return 1
    return 0


def _first_line(file: int) -> bytes:
    """The first line of a file that stays open, and nothing behind it."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(file, 1)
        if not piece:
            raise EOFError("there is no job")
        line += piece
    return line


def _share_of(settings: Settings) -> Settings:
    """The settings of one process, so that all together keep to the limits."""
    n = settings.processes
    queue = max(-(-settings.max_queue // n), settings.images_per_request)
    return settings.model_copy(
        update={
            "max_queue": queue,
            "max_connections": max(-(-settings.max_connections // n), _LEAST_CONNECTIONS),
            "max_decode_mb": max(settings.max_decode_mb // n, _LEAST_DECODE_MB),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
