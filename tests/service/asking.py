"""Small drawings and an index of them, requests to an app, and the real command as a process."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from service.schemas import ProblemOut
from service.settings import Settings

if TYPE_CHECKING:
    from annotator.encoders.embedder import Embedder

ROOT = Path(__file__).parents[2]
MakeClient = Callable[..., TestClient]


def drawing(seed: int, size: tuple[int, int] = (40, 48), format: str = "PNG") -> bytes:
    """A picture of one of three kinds of pattern, by `seed` modulo 3."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / 6 + rng.random(2)[:, None, None]
    waves = (np.sin(3 * x), np.sin(x) * np.sin(y), np.sin(4 * y))[seed % 3]
    pixels = (waves * 90 + 128 + rng.normal(0, 12, waves.shape)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def build(
    directory: Path,
    embedder: Embedder,
    n: int = 12,
    k: int = 5,
    tuning: bool = False,
    wrong: Mapping[int, str] | None = None,
) -> None:
    """Publish an index of n drawings; the concepts of drawing i are C0..C2 by kind, and C9.

    Those in `wrong` have another kind's concept.
    """
    from annotator.collection import Collection
    from annotator.images.ref import ImageRef
    from annotator.indexing.build import build_index
    from annotator.knn.voting import Voting

    ids = [f"train{i:02d}" for i in range(n)]
    refs = [ImageRef(id_, id_, partial(drawing, i)) for i, id_ in enumerate(ids)]
    collection = Collection(
        images=refs,
        concepts={id_: ((wrong or {}).get(i, f"C{i % 3}"), "C9") for i, id_ in enumerate(ids)},
        names={"C9": "In all of them", "C1": "Ünd <one>"},
        captions={id_: f"Drawing {i}." for i, id_ in enumerate(ids)},
        groups={},
        without_image=(),
        without_concepts=(),
        duplicates={},
        ignored=(),
    )
    build_index(collection, directory, embedder, voting=Voting(k=k), tuning=tuning, use_cache=False)


def cpu_settings(index: Path, **options: Any) -> Settings:
    """Settings for the CPU, with one thread for each stage."""
    given = {"index": str(index), "device": "cpu", "workers": 1, "encoders": 1, **options}
    return Settings(**given)


def post(client: TestClient, *files: tuple[str, bytes], **options: Any) -> Any:
    """Annotate files."""
    return client.post("/v1/annotate", files=[("image", file) for file in files], **options)


def problem(answer: Any) -> tuple[int, str]:
    """Status and code of an answer that must be a well-formed problem."""
    described = ProblemOut.model_validate(answer.json())
    assert answer.headers["content-type"] == "application/problem+json"
    assert described.detail and described.hint and described.status == answer.status_code
    return answer.status_code, described.code


class Server:
    """`annotator serve` as a process, on a port of its own choice."""

    def __init__(self, directory: Path, *arguments: object, **environment: object) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `wait`
        self.process = subprocess.Popen(
            [sys.executable, "-m", "annotator", "serve", "--index", str(directory), "--port", "0"]
            + [str(argument) for argument in arguments],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env=os.environ | {f"ANNOTATOR_{k.upper()}": str(v) for k, v in environment.items()},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()  # ends when the process does
        assert line.startswith("Serving on http"), self.wait()
        self.url = line.split()[2]
        self.host, _, port = self.url.removeprefix("http://").rpartition(":")
        self.port = int(port)
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def log(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        text = Path(f"/proc/self/fd/{self._log.fileno()}").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def stop(self) -> tuple[int, str]:
        """Ask it to end; its exit code and what it logged."""
        self.process.terminate()
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """Its exit code and what it logged, once it has ended."""
        if hasattr(self, "client"):
            self.client.close()
        self.process.communicate(timeout=60)
        self._log.seek(0)
        with self._log:
            return self.process.returncode, self._log.read()


@contextmanager
def serving(directory: Path, *arguments: object, **environment: object) -> Iterator[Server]:
    """A running server, ended afterwards."""
    server = Server(directory, *arguments, **environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def started_request(server: Any, body: bytes, *headers: str) -> socket.socket:
    """A connection on which a request has begun: headers and all but the last byte."""
    connection = socket.create_connection((server.host, server.port), timeout=20)
    lines = [
        "POST /v1/annotate HTTP/1.1", "Host: localhost", "Content-Type: image/png",
        f"Content-Length: {len(body)}", "Connection: close", *headers,
    ]  # fmt: skip
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body[:-1])
    return connection


def finish(connection: socket.socket, rest: bytes = b"") -> tuple[int, Any]:
    """Send the rest; status and JSON of the answer."""
    with connection:
        connection.sendall(rest)
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def metric(server: Any, line: str, headers: dict[str, str] | None = None) -> float:
    """The value of a line of /metrics, 0 if it is not there."""
    for row in server.client.get("/metrics", headers=headers).text.splitlines():
        if row.startswith(line + " "):
            return float(row.rpartition(" ")[2])
    return 0.0


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def read_answer(connection: socket.socket) -> tuple[str, Any]:
    """Head, in lower case but for its first line, and JSON of the answer before the close."""
    answer = b""
    while piece := connection.recv(1 << 16):
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    first, _, rest = head.decode().partition("\r\n")
    return f"{first}\r\n{rest.lower()}\r\n", json.loads(body)
