"""What rude and hostile clients do, with real sockets against the real server."""

from __future__ import annotations

import contextlib
import io
import json
import resource
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from asking import build, drawing, finish, metric, serving, started_request, wait_for
from PIL import Image
from slow_images import jpeg_2000

from service.middleware.connections import RESERVE

if TYPE_CHECKING:
    from annotator.encoders.embedder import Embedder

pytestmark = pytest.mark.slow

CONNECTIONS = 40


def most(idle: float) -> float:
    """Seconds an answer may take under attack: the server shares its cores with other tests."""
    return 3 * max(idle, 0.05)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, encoder: Embedder) -> Path:
    directory = tmp_path_factory.mktemp("attacked") / "index"
    build(directory, encoder)
    return directory


@pytest.fixture(scope="module")
def server(index: Path) -> Iterator[Any]:
    limits = {"max_connections": CONNECTIONS, "header_timeout_s": 4, "send_timeout_s": 2}
    with serving(index, "--max-queue", 200, **limits) as running:
        yield running


@pytest.fixture
def connections(server: Any) -> Iterator[list[socket.socket]]:
    """Connections of a test, which are closed and gone after it."""
    opened: list[socket.socket] = []
    yield opened
    for one in opened:
        one.close()
    wait_for(lambda: metric(server, "annotator_connections") <= 2)


def connect(server: Any, receive_buffer: int | None = None) -> socket.socket:
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(20)
    connection.connect((server.host, server.port))
    return connection


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def ask(server: Any, path: str) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer on a new connection."""
    with connect(server) as connection:
        connection.sendall(get(path, "Connection: close"))
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    first, *lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers


def seconds_of(server: Any, n: int = 15) -> float:
    """The median of a small request on a new connection each."""
    taken = []
    for _ in range(n):
        started = time.perf_counter()
        assert ask(server, "/v1/info")[0] == 200
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_silent_connections_make_room(server: Any, connections: list[socket.socket]) -> None:
    idle = seconds_of(server)
    for _ in range(5 * CONNECTIONS):
        connections.append(connect(server))
        connections[-1].sendall(b"GET / HT")
    assert seconds_of(server) < most(idle)
    assert is_closed(connections[0])
    assert metric(server, "annotator_connections") <= CONNECTIONS + RESERVE


def test_health_outlives_busy_connections(server: Any, connections: list[socket.socket]) -> None:
    connections += [started_request(server, drawing(i)) for i in range(CONNECTIONS)]
    for path in ("/livez", "/readyz"):
        status, headers = ask(server, path)
        assert status == 200 and headers["connection"] == "close"
    status, headers = ask(server, "/v1/info")
    assert status == 503 and headers["retry-after"] == "1"
    assert headers["content-type"] == "application/problem+json"
    # Beyond the reserve, too, silent ones make room.
    connections += [connect(server) for _ in range(60)]
    assert ask(server, "/livez")[0] == 200
    for i, connection in enumerate(connections[:3]):  # which cost the requests nothing
        assert finish(connection, drawing(i)[-1:])[0] == 200


def test_headers_have_a_deadline(server: Any, connections: list[socket.socket]) -> None:
    connections.append(connect(server))
    connections[0].sendall(b"GET /livez HTTP/1.1\r\nHost: loc")
    assert is_closed(connections[0])
    assert metric(server, 'annotator_closed_connections_total{reason="headers"}') >= 1


def test_clients_that_do_not_read(server: Any, connections: list[socket.socket]) -> None:
    """They are closed after the deadline, and others do not wait for it."""
    unread = 'annotator_closed_connections_total{reason="unread"}'
    before = metric(server, unread)
    for _ in range(8):
        connection = connect(server, receive_buffer=4096)
        connection.sendall(get("/openapi.json") * 100)
        connections.append(connection)
    assert ask(server, "/livez")[0] == 200
    wait_for(lambda: ask(server, "/v1/info")[0] == 200)
    wait_for(lambda: metric(server, unread) == before + 8)


def test_requests_behind_an_unsent_answer_are_not_read(
    server: Any, connections: list[socket.socket]
) -> None:
    connections.append(connect(server, receive_buffer=4096))
    connections[0].settimeout(0.5)
    sent, requests = 0, get("/v1/search?q=C9") * 10_000
    with contextlib.suppress(TimeoutError, ConnectionError):
        while sent < 64 << 20:
            sent += connections[0].send(requests)
    assert sent < 16 << 20  # what the kernel's buffers hold


def test_a_half_closed_client_gets_its_answer(server: Any) -> None:
    for more in (0, 2):  # alone, and behind others
        with connect(server) as connection:
            connection.sendall(get("/v1/info") * more)
            connection.sendall(
                b"POST /v1/annotate HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
                + f"Content-Length: {len(drawing(0))}\r\n\r\n".encode()
                + drawing(0)
            )
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        assert answer.count(b"HTTP/1.1 200 OK") == more + 1 and b'"results"' in answer


def test_tiny_chunks_are_refused(server: Any) -> None:
    head = b"POST /v1/annotate HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    with connect(server) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 20_000)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 400 ")


def test_too_few_descriptors_and_an_end_that_waits_for_nobody_who_does_not_read(
    index: Path,
) -> None:
    """That it cannot accept is logged once, and it goes on when it can."""
    with serving(index) as server:
        pid = server.process.pid
        assert server.client.get("/livez").status_code == 200
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        few = max(int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()) + 5
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, before[1]))
        held = [connect(server) for _ in range(40)]
        time.sleep(1.5)
        assert server.client.get("/livez").status_code == 200
        for connection in held:
            connection.close()
        assert ask(server, "/livez")[0] == 200
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        held = [connect(server, receive_buffer=4096) for _ in range(5)]
        for connection in held:
            connection.sendall(get("/openapi.json") * 100)
        time.sleep(0.5)
        started = time.monotonic()
        code, stderr = server.stop()
        assert code == 0 and time.monotonic() - started < 30
        for connection in held:
            connection.close()
    lines = [json.loads(line) for line in stderr.splitlines()]
    failed = [line for line in lines if line["event"] == "connections cannot be accepted"]
    assert [line["reason"] for line in failed] == ["EMFILE"]


@pytest.mark.parametrize(
    ("soft", "hard", "allowed", "raised"), [(256, 4096, 512, True), (256, 512, 200, True)]
)
def test_the_limit_on_descriptors_is_raised_or_ours_lowered(
    soft: int, hard: int, allowed: int, raised: bool
) -> None:
    program = (
        "import resource as r; from service.middleware.connections import allowed_connections;"
        f"r.setrlimit(r.RLIMIT_NOFILE, ({soft}, {hard}));"
        "print(allowed_connections(512), r.getrlimit(r.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    limit, now = map(int, done.stdout.split())
    assert (limit == 512) == (allowed == 512) and allowed <= limit <= 512
    assert now <= hard and (now > soft) == raised


def test_one_hostile_form_costs_others_little(server: Any) -> None:
    """A boundary seems to begin at every fourth of its bytes."""
    head = "POST /v1/annotate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n"
    head += "Content-Type: multipart/form-data; boundary=B\r\n\r\n"
    start = b'--B\r\nContent-Disposition: form-data; name="i"; filename="a.png"\r\n\r\n'

    def seconds(content: bytes) -> float:
        """Of a health check while bodies of 32 MiB are on their way, the median."""
        body = start + content * ((32 << 20) // len(content))
        with connect(server) as connection:
            sender = threading.Thread(
                target=lambda: connection.sendall(head.format(len(body) + 9).encode() + body)
            )
            sender.start()
            taken = []
            while sender.is_alive():
                started = time.perf_counter()
                assert ask(server, "/livez")[0] == 200
                taken.append(time.perf_counter() - started)
            sender.join()
        return statistics.median(taken)

    assert seconds(b"\r\n--") < most(seconds(b"harmless"))


def test_jpeg_2000_costs_others_little(server: Any) -> None:
    """Its decoder holds Python's lock: in a thread, nothing else was answered meanwhile."""
    before = decoders(server)
    long = jpeg_2000(15)  # ten times as long as what is asked meanwhile
    connection = started_request(server, long)
    connection.sendall(long[-1:])
    wait_for(lambda: decoders(server) - before)
    wait_for(lambda: metric(server, "annotator_decoding_bytes") > 20 * (15 * 512) ** 2 - 1)
    for i in range(5):
        assert ask(server, "/livez")[0] == 200
        assert finish(started_request(server, drawing(i)), drawing(i)[-1:])[0] == 200
    assert metric(server, "annotator_decoding_bytes") > 0  # it is not done
    connection.close()  # and now nobody wants it any more
    wait_for(lambda: metric(server, "annotator_decoding_bytes") == 0)
    assert decoders(server) <= before


def test_decoding_has_a_deadline(index: Path) -> None:
    long, short = jpeg_2000(10), jpeg_2000(1)
    with serving(index, max_decode_s=0.5) as server:
        body: dict[str, Any] = {"headers": {"Content-Type": "image/jp2"}, "content": long}
        refused = server.client.post("/v1/annotate", **body)
        assert (refused.status_code, refused.json()["code"]) == (413, "image_too_slow")
        assert not decoders(server)
        forms = [("f", ("a.jp2", long)), ("f", ("b.png", drawing(0)))]
        both = server.client.post("/v1/annotate", files=forms).json()["results"]
        assert both[0]["error"]["code"] == "image_too_slow" and both[1]["error"] is None
        body["content"] = short
        assert server.client.post("/v1/annotate", **body).status_code == 200
        picture = server.client.post("/v1/pictures", params={"side": 64}, **body)
        assert picture.status_code == 200
        (process,) = decoders(server)
    wait_for(lambda: not is_decoder(process))


def decoders(server: Any) -> set[int]:
    """The processes in which the server decodes."""
    files = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    return {pid for file in files for pid in map(int, file.read_text().split()) if is_decoder(pid)}


def is_decoder(pid: int) -> bool:
    try:
        return b"service.decoding.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_metrics_on_a_port_of_their_own_and_keys_that_change(index: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("the-first-key-0123456789")
    keys.chmod(0o440)
    old, new = ({"X-API-Key": f"the-{which}-key-0123456789"} for which in ("first", "second"))
    with serving(index, "--api-key-file", keys, "--metrics-port", 0) as server:
        (where,) = [line for line in server.log() if line["event"] == "serving"]
        metrics = httpx.get(where["metrics"])
        assert metrics.status_code == 200 and "annotator_connections" in metrics.text
        aside = where["metrics"].removesuffix("/metrics")
        for path in ("/", "/v1/info", "/livez", "/openapi.json"):
            assert httpx.get(aside + path, headers=old).status_code == 404
        assert server.client.get("/metrics").status_code == 401
        for text, accepted in (("the-second-key-0123456789", new), ("short", new)):
            keys.chmod(0o600)
            keys.write_text(text)
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda: server.client.get("/v1/info", headers=new).status_code == 200)
            assert server.client.get("/v1/info", headers=accepted).status_code == 200
            assert server.client.get("/v1/info", headers=old).status_code == 401
        wait_for(lambda: "keys not reloaded" in {line["event"] for line in server.log()})


def test_large_images_share_a_budget_of_memory(index: Path) -> None:
    """Five at once would take a GiB; one after the other, a fifth, which is given back."""
    file = io.BytesIO()
    small = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    small.resize((5000, 5000), Image.Resampling.NEAREST).convert("RGBA").save(file, "PNG")
    limits = {"max_decode_mb": 512, "workers": 5, "timeout_s": 300}
    with serving(index, **limits) as server, ThreadPoolExecutor(5) as pool:

        def mib(key: str) -> float:
            lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
            return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))

        def annotate(_: int) -> int:
            body = {"content": file.getvalue(), "headers": {"Content-Type": "image/png"}}
            return httpx.post(f"{server.url}/v1/annotate", timeout=300, **body).status_code

        assert server.client.post("/v1/annotate", files={"f": drawing(0)}).status_code == 200
        before = mib("VmRSS")
        assert set(pool.map(annotate, range(5))) == {200}
        assert mib("VmHWM") - before < 600
        assert mib("VmRSS") - before < 250
        assert metric(server, "annotator_decoding_bytes") == 0
