"""The real command as a process, with the packaged encoder."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from asking import (
    ROOT,
    build,
    drawing,
    finish,
    metric,
    read_answer,
    serving,
    started_request,
    wait_for,
)
from versions import numbered, version_folder

if TYPE_CHECKING:
    from annotator.encoders.embedder import Embedder

pytestmark = pytest.mark.slow

KEY = "a-key-of-the-tests-0123456789"
BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, encoder: Embedder) -> Path:
    directory = tmp_path_factory.mktemp("served") / "index"
    build(directory, encoder)
    return directory


@pytest.fixture(scope="module")
def server(index: Path) -> Iterator[Any]:
    """One that is not changed by tests, for four images and 20 connections at once."""
    with serving(index, "--max-queue", 4, max_connections=20) as running:
        yield running


def test_answers_are_those_of_the_command(index: Path, server: Any, tmp_path: Path) -> None:
    files = {f"test{i:02d}.png": drawing(50 + i, (90, 70)) for i in range(4)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-m", "annotator", "annotate", str(tmp_path), "--index", str(index)]
    done = subprocess.run(
        [*command, "--format", "jsonl", "--explain", "--no-cache"],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    expected = [json.loads(line) for line in done.stdout.splitlines()]
    together = server.client.post(
        "/v1/annotate", files=[("f", file) for file in files.items()]
    ).json()["results"]
    alone = [
        server.client.post("/v1/annotate", files={"f": file}).json()["results"][0]
        for file in files.items()
    ]
    for results in (together, alone):
        assert [r["id"] for r in results] == [e["id"] for e in expected]
        for result, line in zip(results, expected, strict=True):
            for key in ("concepts", "neighbors"):
                assert len(result[key]) == len(line[key])
                for got, wanted in zip(result[key], line[key], strict=True):
                    numbers = {k for k, v in wanted.items() if isinstance(v, float)}
                    assert {k: got[k] for k in numbers} == pytest.approx(
                        {k: wanted[k] for k in numbers}, abs=1e-6
                    )
                    assert all(got[k] == wanted[k] for k in wanted.keys() - numbers)
            assert result["expected_f1"] == pytest.approx(line["expected_f1"], abs=1e-6)


def test_a_full_queue_refuses_at_once(server: Any) -> None:
    held = [started_request(server, drawing(i)) for i in range(4)]
    wait_for(lambda: metric(server, "annotator_admitted_images") == 4)
    answer = server.client.post("/v1/annotate", content=drawing(0))
    assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
    assert answer.headers["retry-after"] == "1"
    with started_request(server, bytes(1 << 20)) as unfinished:
        assert unfinished.recv(100).startswith(b"HTTP/1.1 429")
    # It is counted after it was answered.
    wait_for(lambda: metric(server, 'annotator_rejected_total{reason="overloaded"}') == 2)
    for i, connection in enumerate(held):
        status, body = finish(connection, drawing(i)[-1:])
        assert status == 200 and body["results"][0]["neighbors"][0]["id"] == f"train{i:02d}"
    wait_for(lambda: metric(server, "annotator_admitted_images") == 0)


def test_a_large_body_gets_its_answer(server: Any) -> None:
    def stream() -> Iterator[bytes]:
        for _ in range(65):
            yield bytes(1 << 20)

    headers = {"Content-Type": "image/png"}
    answer = server.client.post("/v1/annotate", content=stream(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    answer = server.client.post("/v1/annotate", content=bytes(65 << 20), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_clients_that_leave(server: Any) -> None:
    line = (
        'annotator_requests_total{method="POST",outcome="client_closed_request",'
        'route="/v1/annotate",status="499"}'
    )
    started_request(server, drawing(0)).close()  # in the middle of the body
    wait_for(lambda: metric(server, line) == 1)
    large = drawing(1, (3500, 3500))  # a third of a second to decode
    for _ in range(30):  # of a busy server, one is answered before it sees that the client left
        connection = started_request(server, large)
        connection.sendall(large[-1:])
        connection.close()  # while the image is being decoded
        wait_for(lambda: metric(server, "annotator_admitted_images") == 0)
        if metric(server, line) > 1:
            break
    assert metric(server, line) > 1
    wait_for(lambda: metric(server, "annotator_admitted_images") == 0)


CHUNKED = b"Host: localhost\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nX: " + b"y" * 50_000,  # large headers
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(100),  # https://
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"POST /v1/annotate HTTP/1.1\r\n" + CHUNKED + b"no number\r\n",
    ],
    ids=["large", "TLS", "no host", "chunk"],
)
def test_what_is_no_http(server: Any, sent: bytes) -> None:
    with socket.create_connection((server.host, server.port), timeout=20) as connection:
        connection.sendall(sent)
        head, problem = read_answer(connection)
    assert head.startswith("HTTP/1.1 400 Bad Request\r\n")
    assert (problem["status"], problem["code"]) == (400, "malformed_request") and problem["hint"]
    assert_ours(head)
    assert server.client.get("/livez").status_code == 200


def test_what_is_no_http_where_no_answer_fits(server: Any) -> None:
    with socket.create_connection((server.host, server.port), timeout=20) as connection:
        connection.sendall(b"HEAD /v1/info HTTP/1.1\r\n" + CHUNKED)
        connection.sendall(b"no number\r\n")
        while connection.recv(1 << 16):
            pass  # it is closed, whatever came
    assert server.client.get("/livez").status_code == 200


def test_more_connections_than_it_keeps(server: Any) -> None:
    """Those that are silent make room; where all are busy, only health checks are answered."""
    silent = [socket.create_connection((server.host, server.port)) for _ in range(60)]
    assert server.client.get("/livez").status_code == 200
    assert silent[0].recv(1) == b"" and metric(server, "annotator_connections") <= 36
    closed = 'annotator_closed_connections_total{reason="room"}'
    assert metric(server, closed) >= 10
    for one in silent:
        one.close()


def assert_ours(head: str) -> None:
    """It is a problem, with the security headers, and the last answer on its connection."""
    assert "content-type: application/problem+json\r\n" in head
    assert "content-security-policy: default-src 'none'" in head
    assert "x-content-type-options: nosniff\r\n" in head and "cache-control: no-store\r\n" in head
    assert "connection: close\r\n" in head and "date: " in head


def test_reloading(index: Path, tmp_path: Path, encoder: Embedder) -> None:
    directory = Path(shutil.copytree(index, tmp_path / "index"))
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    keys.chmod(0o600)
    with serving(directory, "--api-key-file", keys, "--allow-reload") as server:
        held = started_request(server, drawing(0), f"X-API-Key: {KEY}")
        wait_for(lambda: metric(server, "annotator_admitted_images", BEARER) == 1)

        def version() -> Any:
            return server.client.get("/v1/info", headers=BEARER).json()["index"]["version"]

        build(directory, encoder, n=9)
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: numbered(version()) == "v000002")
        status, answer = finish(held, drawing(0)[-1:])
        assert (status, numbered(answer["index_version"])) == (200, "v000001")

        build(directory, encoder, n=6)
        assert server.client.post("/v1/reload").status_code == 401
        answer = server.client.post("/v1/reload", headers=BEARER).json()
        assert (numbered(answer["index_version"]), answer["changed"]) == ("v000003", True)
        answer = server.client.post("/v1/reload", headers=BEARER).json()
        assert (numbered(answer["index_version"]), answer["changed"]) == ("v000003", False)

        build(directory, encoder, n=7)
        vectors = version_folder(directory, 4) / "vectors.npy"
        vectors.write_bytes(vectors.read_bytes()[:-4])
        failed = server.client.post("/v1/reload", headers=BEARER)
        problem = failed.json()
        assert (failed.status_code, problem["code"]) == (409, "reload_failed")
        assert "v000003 is served as before" in numbered(problem["detail"])
        assert "vectors.npy has" in problem["detail"]
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: metric(server, "annotator_reload_failures_total", BEARER) == 2)
        assert server.client.get("/readyz").status_code == 200 and numbered(version()) == "v000003"
        assert metric(server, "annotator_reloads_total", BEARER) == 3
        code, stderr = server.stop()
    assert code == 0
    lines = [json.loads(line) for line in stderr.splitlines()]
    reasons = [line["reason"] for line in lines if line["event"] == "reload failed"]
    assert len(reasons) == 2 and "vectors.npy has" in reasons[0]
    assert KEY not in stderr


def test_an_orderly_end(index: Path) -> None:
    with serving(index, shutdown_delay_s=1) as server:
        held = started_request(server, drawing(0))
        idle = socket.create_connection((server.host, server.port))  # must not keep it
        wait_for(lambda: metric(server, "annotator_admitted_images") == 1)
        server.process.terminate()
        wait_for(lambda: server.client.get("/readyz").status_code == 503)
        late = server.client.post(
            "/v1/annotate", content=drawing(1), headers={"Content-Type": "image/png"}
        )
        assert late.status_code == 200
        server.client.close()

        def refused() -> bool:
            try:
                socket.create_connection((server.host, server.port)).close()
            except ConnectionRefusedError:
                return True
            return False

        wait_for(refused)
        assert server.process.poll() is None  # it waits for the request under way
        status, _ = finish(held, drawing(0)[-1:])
        assert status == 200
        code, stderr = server.wait()
        idle.close()
    assert code == 0
    events = [json.loads(line)["event"] for line in stderr.splitlines()]
    assert events[0] == "serving" and "draining" in events and events[-1] == "stopped"


@pytest.mark.parametrize("case", ["port", "index"])
def test_what_keeps_it_from_starting(index: Path, tmp_path: Path, case: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        if case == "port":
            arguments = ["--index", index, "--port", taken.getsockname()[1]]
            message = "Error: Cannot listen on 127.0.0.1, port"
        else:
            arguments = ["--index", tmp_path / "absent", "--port", 0]
            message = f"Error: {tmp_path / 'absent'} does not exist."
        done = subprocess.run(
            [sys.executable, "-m", "annotator", "serve", *map(str, arguments)],
            capture_output=True, text=True, cwd=ROOT, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr and "Traceback" not in done.stderr
