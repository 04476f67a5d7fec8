"""Several processes that serve one index on one port."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from asking import ROOT, build, drawing, finish, serving, started_request, wait_for
from file_host import Host
from versions import numbered

from service.observability import Metrics, merged
from service.settings import read_settings
from service.worker import _share_of as share_of

if TYPE_CHECKING:
    from annotator.encoders.embedder import Embedder

KEY = "a-key-of-the-tests-0123456789"
BEARER = {"Authorization": f"Bearer {KEY}"}
ANNOTATED = 'annotator_requests_total{method="POST",outcome="ok",route="/v1/annotate",status="200"}'


def test_metrics_are_added_up() -> None:
    each = [Metrics(), Metrics()]
    for number, metrics in enumerate(each, 1):
        metrics.serving('v000001-"ü\\', "tiny")
        metrics.requests.labels("GET", "/v1/info", "200", "ok").inc(number)
        metrics.request_seconds.labels("/v1/info").observe(0.003 * number)
        metrics.connections.set_function(lambda number=number: 10 * number)
    one = each[0].render()
    assert merged([one]) == one
    text = merged([metrics.render() for metrics in each]).decode()
    lines = text.splitlines()
    for line in (
        'annotator_requests_total{method="GET",outcome="ok",route="/v1/info",status="200"} 3.0',
        'annotator_request_seconds_bucket{le="0.005",route="/v1/info"} 1.0',
        'annotator_request_seconds_bucket{le="+Inf",route="/v1/info"} 2.0',
        "annotator_connections 30.0",
        'annotator_index_info{model="tiny",version="v000001-\\"ü\\\\"} 1.0',
    ):
        assert line in lines
    comments = [line for line in lines if line.startswith("#")]
    assert comments == [line for line in one.decode().splitlines() if line.startswith("#")]


@pytest.mark.parametrize("processes", [2, 3, 64])
def test_processes_share_the_limits(processes: int) -> None:
    given = read_settings(processes=processes)
    share = share_of(given)
    assert given.max_queue <= share.max_queue * processes
    assert share.images_per_request == given.images_per_request
    assert given.max_connections <= share.max_connections * processes
    assert share.max_queue * processes < given.max_queue + processes * given.max_images
    assert share.buffered_bytes >= 2 * share.upload_bytes
    if processes < 9:
        assert share.buffered_bytes * processes <= read_settings().buffered_bytes
        assert share.decode_bytes * processes <= given.decode_bytes


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, encoder: Embedder) -> Path:
    directory = tmp_path_factory.mktemp("processes") / "index"
    build(directory, encoder)
    return directory


def test_processes_have_the_token_of_label_studio(index: Path) -> None:
    from annotator.tables.label_studio import configuration

    host = Host()
    host.files = {"/data/x.png": (200, drawing(1))}
    body = {
        "tasks": [{"id": 1, "data": {"image": "/data/x.png"}}],
        "label_config": configuration([("C9", "")]),
    }
    arguments = ("--processes", 2, "--label-studio", host.url)
    try:
        with serving(index, *arguments, label_studio_token="a token") as server:
            answer = server.client.post("/label-studio/predict", json=body)
    finally:
        host.close()
    ((one,),) = answer.json()["results"]
    assert one["result"][0]["value"]["choices"] == ["C9"]
    assert host.asked == [("/data/x.png", "Token a token")]


@pytest.fixture(scope="module")
def server(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two processes over an index of their own; the last test lets them drain."""
    folder = tmp_path_factory.mktemp("two")
    directory = Path(shutil.copytree(index, folder / "index"))
    keys = folder / "keys"
    keys.touch(0o600)
    keys.write_text(KEY)
    arguments = ("--api-key-file", keys, "--allow-reload", "--metrics-port", 0)
    with serving(directory, *arguments, "--processes", 2) as running:
        running.directory = directory
        yield running


def children(server: Any) -> list[int]:
    path = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return [int(child) for child in path.read_text().split()]


def metrics_url(server: Any) -> str:
    return next(line["metrics"] for line in server.log() if line["event"] == "serving")


def value(server: Any, line: str) -> float:
    rows = httpx.get(metrics_url(server)).text.splitlines()
    return sum(float(row.rpartition(" ")[2]) for row in rows if row.startswith(line + " "))


def ask(server: Any, seed: int = 0) -> httpx.Response:
    """Annotate on a connection of its own, so that either process may get it."""
    return httpx.post(
        f"{server.url}/v1/annotate", files={"f": drawing(seed)}, headers=BEARER, timeout=60
    )


@pytest.mark.slow
def test_they_share_port_metrics_and_reloads(server: Any, encoder: Embedder) -> None:
    assert len(children(server)) == 2
    answers = [ask(server, i % 12) for i in range(20)]
    assert [a.json()["results"][0]["neighbors"][0]["id"] for a in answers] == [
        f"train{i % 12:02d}" for i in range(20)
    ]
    wait_for(lambda: value(server, ANNOTATED) == 20)  # it is counted after it was answered
    own = httpx.get(f"{server.url}/metrics", headers=BEARER).text.splitlines()
    assert f"{ANNOTATED} 20.0" in own  # whichever process answers
    served = {
        line["errors"] for line in server.log() if line["event"] == "request" and "errors" in line
    }
    assert not served

    stop, statuses, versions = threading.Event(), [], set()

    def keep_asking() -> None:
        while not stop.is_set():
            answer = ask(server, len(statuses) % 6)
            statuses.append(answer.status_code)
            versions.add(numbered(answer.json()["index_version"]))

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        build(server.directory, encoder, n=9)
        made = httpx.post(f"{server.url}/v1/reload", headers=BEARER, timeout=60).json()
        assert (numbered(made["index_version"]), made["changed"]) == ("v000002", True)
        after = {numbered(ask(server).json()["index_version"]) for _ in range(10)}
        assert after == {"v000002"}  # all of them, as soon as it is answered
        build(server.directory, encoder, n=6)
        server.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda: {numbered(ask(server).json()["index_version"]) for _ in range(6)} == {"v000003"}
        )
    finally:
        stop.set()
        asking.join()
    assert set(statuses) == {200} and versions <= {"v000001", "v000002", "v000003"}


@pytest.mark.slow
def test_a_process_that_dies_is_replaced(server: Any) -> None:
    first, second = children(server)
    os.kill(second, signal.SIGKILL)
    wait_for(lambda: len(children(server)) == 2 and second not in children(server))
    answers = [ask(server, i) for i in range(6)]  # some wait for the new one
    assert {answer.status_code for answer in answers} == {200}
    events = [line for line in server.log() if line["event"].startswith("a process ended")]
    assert [(line["number"], line["code"]) for line in events] == [(1, -9)]
    assert first in children(server)


@pytest.mark.slow
def test_they_drain_together(server: Any) -> None:
    both = children(server)
    held = [started_request(server, drawing(i), f"X-API-Key: {KEY}") for i in range(6)]
    wait_for(lambda: value(server, "annotator_admitted_images") == 6)
    server.process.terminate()
    wait_for(lambda: len([e for e in server.log() if e["event"] == "draining"]) == 2)
    for i, connection in enumerate(held):
        status, body = finish(connection, drawing(i)[-1:])
        assert (status, body["results"][0]["neighbors"][0]["id"]) == (200, f"train{i:02d}")
    code, log = server.wait()
    assert code == 0 and log.count('"event": "stopped"') == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in both)


@pytest.mark.slow
def test_they_end_with_their_supervisor(index: Path) -> None:
    with serving(index, "--processes", 2) as server:
        both = children(server)
        server.process.kill()
        _, log = server.wait()  # until nobody has its output open
        assert log.count('"event": "stopped"') == 2
        wait_for(lambda: not any(_runs(pid) for pid in both))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_an_index_that_cannot_be_served_says_so_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "annotator", "serve", "--index", str(tmp_path / "absent"),
         "--port", "0", "--processes", "3"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("does not exist") == 1 and "Traceback" not in done.stderr


def test_one_process_alone_takes_corrections() -> None:
    with pytest.raises(ValueError, match="one process alone"):
        read_settings(writable=True, processes=2, api_key_file="keys")
