"""The commands with `--runner ray`: the same index and the same run as without."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invoking import PYTHONPATH, command, invoke

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, draw: Callable[[Path, int, int], None]) -> Path:
    folder = tmp_path_factory.mktemp("with-ray")
    for side, n in (("first", 40), ("second", 10)):
        (folder / side).mkdir()
        for i in range(n):
            draw(folder / side / f"{side}{i:02d}.png", i % 3, i + 100 * (side == "second"))
        rows = "".join(f"{side}{i:02d},C{i % 3};C9\n" for i in range(n))
        (folder / f"{side}.csv").write_text(f"ID,CUIs\n{rows}")
    (folder / "first" / "first05.png").write_bytes(b"no image")
    return folder


def contents(index: Path) -> dict[str, str]:
    """sha256 of each file of an index's newest version."""
    version = max(index.glob("v*"))
    return {
        str(path.relative_to(version)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(version.rglob("*"))
        if path.is_file()
    }


def test_the_same_index_and_the_same_run(ray_cluster: None, place: Path) -> None:
    options = ("--workers", 2, "--batch-size", 4, "--precision", "fp32")
    for runner in ("local", "ray"):
        index = ("--index", place / runner, "--runner", runner)
        built = invoke("build-index", place / "first", place / "first.csv", *options, *index)
        assert built.exit_code == 3, built.stderr
        assert "1 x plain text" in built.stderr
        added = invoke("add", place / "second", place / "second.csv", *options[:4], *index)
        assert added.exit_code == 0, added.stderr
    assert contents(place / "ray") == contents(place / "local")
    assert len(contents(place / "ray")) > 5


def worker_of(command: int) -> int | None:
    """The process of a worker in the cluster that a command has started, if there is one yet."""
    parents: dict[int, int] = {}
    workers: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            pid = int(folder.name)
            parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if (folder / "cmdline").read_bytes().startswith(b"ray::MapWorker"):
                workers.append(pid)
    for worker in workers:
        pid = worker
        while pid in parents:
            pid = parents[pid]
            if pid == command:
                return worker
    return None


def test_a_cluster_of_its_own_and_nothing_else_on_stdout(place: Path) -> None:
    if os.environ.get("ANNOTATOR_REQUIRE_RAY") != "1":
        pytest.importorskip("ray.data", reason="the extra `ray` is not installed")
    outputs: list[Any] = []
    for runner in ("local", "ray"):
        running = subprocess.Popen(
            command("annotate", "second", "--index", "local", "--no-cache", "--runner", runner),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place,
            env=os.environ | PYTHONPATH,
        )  # fmt: skip
        if runner == "ray":  # which would say on stdout that a worker is lost
            while (worker := worker_of(running.pid)) is None:
                assert running.poll() is None, running.communicate()
                time.sleep(0.05)
            os.kill(worker, signal.SIGKILL)
        stdout, stderr = running.communicate(timeout=300)
        assert running.returncode == 0, stderr
        outputs.append((stdout, stderr.replace("\r", "\n").split("\n")))
    (local, _), (ray, said) = outputs
    assert local.startswith("ID,CUIs\nsecond00,")
    assert ray == local
    # Ray's core says once which level it logs at; the phantoms were indexed under other ids.
    known = ("Annotating:", "RAY_BACKEND_LOG_LEVEL", "--exclude-self leaves them out")
    assert not [line for line in said if line and not any(word in line for word in known)]
