"""The cores that a process may use, under any limits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from index.cores import _limits, usable_cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no way to bind to cores")
def test_affinity_counts() -> None:
    allowed = os.sched_getaffinity(0)
    assert 1 <= usable_cores() <= len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("files", "own", "limits"),
    [
        ({"a/b/cpu.max": "150000 100000"}, "0::/a/b", [1.5]),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, "0::/a/b", [4.0]),
        ({"cpu.max": "200000 100000"}, "0::/", [2.0]),  # as a container sees its own
        ({"cpu.max": "50000 100000"}, "0::/gone/from/here", [1.0]),  # half a core is one thread
        ({"cpu.max": "nonsense"}, "0::/", []),
        ({}, "0::/", []),
        (
            {
                "cpu,cpuacct/docker/cpu.cfs_quota_us": "300000",
                "cpu,cpuacct/docker/cpu.cfs_period_us": "100000",
                "memory/docker/memory.limit": "1",
            },
            "5:memory:/docker\n3:cpu,cpuacct:/docker",
            [3.0],
        ),
        (
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            "2:cpu:/",
            [],
        ),
    ],
)
def test_limits_of_control_groups(
    tmp_path: Path, files: dict[str, str], own: str, limits: list[float]
) -> None:
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    (tmp_path / "own").write_text(f"{own}\n")
    assert list(_limits(tmp_path / "groups", tmp_path / "own")) == limits


def test_without_control_groups(tmp_path: Path) -> None:
    assert list(_limits(tmp_path, tmp_path / "nothing")) == []


def test_threads_are_as_many_as_the_limits_leave() -> None:
    program = (
        "import os, index.cores as cores; cores.usable_cores = lambda: 1; "
        "os.cpu_count = lambda: 8; cores.limit_threads(); "
        "import threadpoolctl, numpy, faiss; "
        "print({pool['num_threads'] for pool in threadpoolctl.threadpool_info()})"
    )
    without = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=without
    )
    assert said.stdout == "{1}\n"
