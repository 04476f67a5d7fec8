"""Errors of a server that is away, is not Milvus, or denies access; retries."""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from annotator.cli import cli
from index import IndexProblem
from index.errors import IndexUnreachable
from index.milvus import server as milvus_server
from index.milvus.address import Address
from index.milvus.server import Server

ROOT = Path(__file__).parents[3]
pytest.importorskip("pymilvus")


def at(port: int, patience: float = 0.5) -> Server:
    return Server(Address("127.0.0.1", port, "some"), patience)


def test_a_server_that_is_away(free_port: Callable[[], int], monkeypatch: Any) -> None:
    port = free_port()
    started = time.monotonic()
    with pytest.raises(IndexUnreachable) as problem:
        at(port).call("list_collections")
    assert time.monotonic() - started < 10
    assert f"http://127.0.0.1:{port} does not answer: " in problem.value.message
    assert "run the same command again" in problem.value.hint
    # A command says so, without a traceback, and after seconds: it has never reached that server.
    monkeypatch.setattr(milvus_server, "_FIRST_S", 0.5)
    for command in (["info"], ["verify"], ["remove", "x"], ["compact"], ["tune"]):
        result = CliRunner().invoke(cli, [*command, "--index", f"milvus://127.0.0.1:{port}/some"])
        assert (result.exit_code, result.stdout) == (1, "")
        assert "does not answer" in result.stderr and "Traceback" not in result.stderr


def test_it_is_tried_again_with_pauses_until_it_answers(monkeypatch: Any) -> None:
    from pymilvus.exceptions import MilvusException

    pauses: list[float] = []
    monkeypatch.setattr(milvus_server, "_client", lambda *_: None)
    monkeypatch.setattr(milvus_server, "_CLIENTS", {("http://127.0.0.1:1", "", ""): None})
    monkeypatch.setattr(milvus_server.time, "sleep", pauses.append)
    monkeypatch.setattr(milvus_server.time, "monotonic", lambda: sum(pauses))
    errors = [MilvusException(code, "said") for code in (2, 503, 8, 101)]

    def work(client: Any, seconds: float) -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert at(1, patience=60).retry(work) == "done"
    assert pauses == [0.2, 0.5, 1.0, 2.0]
    errors = [MilvusException(1, "not ready")] * 100
    pauses.clear()
    with pytest.raises(IndexUnreachable):
        at(1, patience=60).retry(work)
    assert 55 < sum(pauses) <= 60
    errors = [MilvusException(65535, "cannot parse expression")]
    pauses.clear()
    with pytest.raises(IndexProblem, match="refuses: cannot parse expression"):
        at(1, patience=60).retry(work)
    assert pauses == []


@pytest.mark.parametrize(
    ("code", "said", "message"),
    [
        (100, "collection not found", "there is no such index"),
        (1600, "alias not found", "there is no such index"),
        (3, "memory limit exceeded", "is full"),
        (65535, "quota exceeded[reason=memory quota exhausted]", "is full"),
        (9, "deny to write", "is full"),
        (1400, "not authenticated", "denied access"),
        (800, "database not found", "has no database"),
        (65535, "field rowx not exist", "refuses: field rowx not exist"),
        (2200, "collection not found in the weather", "refuses"),
    ],
)
def test_codes(code: int, said: str, message: str) -> None:
    from pymilvus.exceptions import MilvusException

    problem = milvus_server.explain(MilvusException(code, said), Address("h", 1, "some"))
    assert message in problem.message and problem.hint


class Page(http.server.BaseHTTPRequestHandler):
    def handle(self) -> None:
        self.connection.recv(65536)
        self.connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    def log_message(self, *_: Any) -> None:
        pass


def test_something_else_on_the_port() -> None:
    import grpc

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as page:
        threading.Thread(target=page.serve_forever, daemon=True).start()
        with pytest.raises(IndexProblem) as problem:
            at(page.server_address[1]).call("list_collections")
        page.shutdown()
    assert "does not speak the protocol of Milvus" in problem.value.message
    assert "http1" in problem.value.message
    other = grpc.server(futures.ThreadPoolExecutor(1))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    try:
        with pytest.raises(IndexProblem, match="does not speak the protocol of Milvus") as problem:
            at(port).call("list_collections")
    finally:
        other.stop(None)
    assert "gRPC interface (19530 by default)" in problem.value.hint
    # It accepts connections and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(IndexUnreachable):
        at(silent.getsockname()[1]).call("list_collections")


def test_an_old_server() -> None:
    address = Address("h", 1, "some")
    for version in ("v2.3.5", "2.6.1", "v3.0", "2.4-dev", "unknown"):
        milvus_server._check_version(version, address)
    for version in ("v2.2.16", "1.1.1"):
        with pytest.raises(IndexProblem, match=rf"is Milvus {version}; at least 2\.3 is needed"):
            milvus_server._check_version(version, address)


def test_a_wrong_token(milvus: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("ANNOTATOR_MILVUS_TOKEN", "root:wrong")
    result = CliRunner().invoke(cli, ["info", "--index", milvus.address("some")])
    assert result.exit_code == 1
    assert "denied access" in result.stderr and "ANNOTATOR_MILVUS_TOKEN" in result.stderr
    assert "root" not in result.stderr
    monkeypatch.delenv("ANNOTATOR_MILVUS_TOKEN")
    result = CliRunner().invoke(cli, ["info", "--index", milvus.address("some")])
    assert "denied access" in result.stderr
    address = milvus.address("some").replace("milvus://", "milvus://root:Milvus@")
    result = CliRunner().invoke(cli, ["info", "--index", address])
    assert "there is no such index" in result.stderr and "root" not in result.stderr


def test_without_pymilvus_nothing_else_changes(tmp_path: Path) -> None:
    script = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("pymilvus", "grpc"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import numpy as np
from index import LabelTable
from index.locations import locate
location = locate(sys.argv[1])
with location.writer() as writer:
    writer.add(np.eye(4, dtype=np.float32))
    writer.publish(list("abcd"), [["C1"]] * 4, names={}, columns={}, about={})
assert len(location.open()) == 4
from annotator.cli import main
sys.argv = ["annotator", "info", "--index", "milvus://localhost/x"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "index"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs the package pymilvus, which is not installed" in done.stderr
    assert 'pip install "cui-annotator[milvus]"' in done.stderr and "Traceback" not in done.stderr
