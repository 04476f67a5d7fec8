"""Servers of others, which `make integrations` installs: skipped where they are not.

With ANNOTATOR_REQUIRE_ORTHANC=1, ANNOTATOR_REQUIRE_LABEL_STUDIO=1 and ANNOTATOR_REQUIRE_FIFTYONE=1
(`make test-integrations`) they must be there.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest


def free_port() -> int:
    """Below those that connections come from."""
    for port in random.sample(range(20000, 32000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError


def require(server: str, is_there: bool) -> None:
    """Skip a test without this server, or fail where it has to be there."""
    reason = f"{server} is not installed; `make integrations` installs it"
    if not is_there and os.environ.get(f"ANNOTATOR_REQUIRE_{server.upper().replace(' ', '_')}"):
        pytest.fail(reason)
    if not is_there:
        pytest.skip(reason)


def wait_until(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    """Wait for a server to answer."""
    end = time.monotonic() + 900
    while not ready():
        text = log.read_text(errors="replace")
        assert process.poll() is None and time.monotonic() < end, text[-3000:]
        time.sleep(0.2)
