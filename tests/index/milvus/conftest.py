"""A real Milvus server, and indexes in it.

The server's package wants an environment of its own: `.venv-milvus` in the repository (`make
test-scale` makes it), or the one whose Python ANNOTATOR_MILVUS_PYTHON names. Without it these tests
are skipped; ANNOTATOR_REQUIRE_MILVUS=1 makes them fail instead.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from index.milvus.location import MilvusLocation

ROOT = Path(__file__).parents[3]
PYTHON = Path(os.environ.get("ANNOTATOR_MILVUS_PYTHON") or ROOT / ".venv-milvus/bin/python")
REQUIRED = os.environ.get("ANNOTATOR_REQUIRE_MILVUS") == "1"
MISSING = f"there is no {PYTHON}: `make test-scale` makes it, or set ANNOTATOR_MILVUS_PYTHON"
STARTER = Path(__file__).with_name("start_server.py")
DIM = 16
TOKEN = "root:Milvus"  # what a new server has
_NAMES = itertools.count()
_RUNNING: list[Milvus] = []
_STARTS = 3


def _free_port() -> int:
    """Below those that connections come from: one could take it while the server is away."""
    for port in random.sample(range(20000, 32000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError


class Milvus:
    """A server that can be killed and started again with what it has on disk."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder = folder
        self.settings = settings
        self.port = _free_port()
        self.start()

    def start(self) -> None:
        """Returns when it answers; on a busy machine one that was killed may need a second try."""
        for _ in range(_STARTS):
            line = self._try_to_start()
            if line.isdigit():
                self.pid = int(line)
                return
            self.stop()
        raise AssertionError(f"Milvus did not start: {self.folder}.log")

    def _try_to_start(self) -> str:
        """The number of its process, "" if it did not start."""
        self._log: IO[bytes] = (self.folder.parent / f"{self.folder.name}.log").open("ab")
        self._starter = subprocess.Popen(
            [PYTHON, STARTER, self.folder, str(self.port), *self.settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._starter.stdout is not None
        return self._starter.stdout.readline().strip()

    def kill(self) -> None:
        """As `kill -9` does."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        assert self._starter.stdin is not None and self._starter.stdout is not None
        self._starter.stdin.close()
        self._starter.stdout.close()
        self._starter.wait(timeout=60)
        self._log.close()

    def address(self, name: str | None = None) -> str:
        """Of an index with this name, or with one that no other test has."""
        return f"milvus://127.0.0.1:{self.port}/{name or f'index_{next(_NAMES)}'}"

    def client(self) -> Any:
        """Of pymilvus: what somebody else does to the server."""
        from pymilvus import MilvusClient

        uri = f"http://127.0.0.1:{self.port}"
        return MilvusClient(uri=uri, token=TOKEN, timeout=30)


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Milvus:
    """One server for all tests. Who kills it starts it again."""
    if not PYTHON.exists():
        if REQUIRED:
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    server = Milvus(tmp_path_factory.mktemp("milvus") / "server", "authorization_enabled=true")
    _RUNNING.append(server)
    return server


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After the last of these tests the server stops: idle, it would take a fifth of a core."""
    if nextitem is None or nextitem.path.parent != item.path.parent:
        while _RUNNING:
            _RUNNING.pop().stop()


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    return _free_port


@pytest.fixture(autouse=True, scope="session")
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What this machine knows of indexes in Milvus lies in a folder of the tests; the token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("ANNOTATOR_MILVUS_TOKEN", TOKEN)
        yield


@pytest.fixture
def location(milvus: Milvus) -> MilvusLocation:
    """Where no index is yet."""
    return MilvusLocation.at(milvus.address())


Vectors = NDArray[np.float32]


@pytest.fixture(scope="session")
def unit() -> Callable[..., Vectors]:
    return _unit


def _unit(n: int, dim: int = DIM, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((n, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


@pytest.fixture(scope="session")
def publish() -> Callable[..., str]:
    return _publish


def _publish(
    location: Any,
    vectors: Vectors,
    *,
    ids: list[str] | None = None,
    concepts: list[list[str]] | None = None,
    **options: Any,
) -> str:
    """Build an index of vectors; row i is the image i000000 with the concepts C0..C4 in turn."""
    n = len(vectors)
    options = {"names": {"C1": "One"}, "columns": {}, "about": {"what": "a test"}, **options}
    with location.writer() as writer:
        writer.add(vectors)
        return str(
            writer.publish(
                ids or [f"i{i:06d}" for i in range(n)],
                concepts if concepts is not None else [[f"C{i % 5}"] for i in range(n)],
                **options,
            )
        )


@pytest.fixture(scope="session", name="wait_for")
def _wait_for() -> Callable[..., None]:
    return wait_for


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
