"""Processes that tests start, which never outlive them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = """
import ctypes, importlib, signal, sys
from pathlib import Path
if sys.platform == "linux":  # the system kills it when pytest ends, however that happens
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
folder, module, function, *paths = sys.argv[1:]
sys.path[:0] = [folder, *map(str, list(Path(folder).parents)[1:3])]
getattr(importlib.import_module(module), function)(*map(Path, paths))
"""


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Call a function of a test module in another process; what still runs is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(module: str, function: str, *paths: Path) -> subprocess.Popen[str]:
        folder = str(Path(__file__).parent)
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, folder, Path(module).stem, function, *map(str, paths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.wait()
