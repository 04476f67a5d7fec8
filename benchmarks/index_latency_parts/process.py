"""A worker's process: its threads, its memory as the kernel counts it, its end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1]

_FIELDS = re.compile(r"^(VmHWM|VmRSS|RssAnon|RssFile|RssShmem):\s+(\d+) kB", re.M)
_SAMPLED_EVERY = 0.05  # seconds


class WorkerFailed(RuntimeError):
    """A worker ended without a result; says why."""


def memory_now(pid: int | str = "self") -> dict[str, int]:
    """Bytes of a process by the names of /proc/PID/status; nothing if it has ended.

    VmHWM is the most that was ever resident; RssAnon is what the process has for itself, RssFile
    what it has mapped from files, which the kernel takes back when memory is short.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: int(value) * 1024 for name, value in _FIELDS.findall(text)}


def run_worker(task: dict[str, Any], threads: int) -> dict[str, Any]:
    """Let a process of its own do a task.

    Args:
        task: For `worker.main`, without "out".
        threads: That its libraries may use.

    Returns:
        What the worker wrote, and under "peak" the most bytes of each kind that it was seen with.

    Raises:
        WorkerFailed: It ended without a result.
    """
    counts = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM")
    environment = os.environ | {f"{name}_NUM_THREADS": str(threads) for name in counts}
    paths = [str(BENCHMARKS), str(BENCHMARKS.parent), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with tempfile.TemporaryDirectory(prefix="index-latency-") as folder:
        out, given = Path(folder) / "result.json", Path(folder) / "task.json"
        given.write_text(json.dumps({**task, "out": str(task.get("out", out))}))
        errors = (Path(folder) / "stderr").open("w+")
        with (
            errors,
            subprocess.Popen(
                [sys.executable, "-P", "-m", "index_latency_parts.worker", str(given)],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            ) as process,
        ):
            try:
                peak = _watch(process)
            except BaseException:
                process.kill()
                raise
            if process.returncode != 0:
                errors.seek(0)
                raise WorkerFailed(_reason(process.returncode, errors.read()))
        result: dict[str, Any] = json.loads(Path(task.get("out", out)).read_text())
    return result | {"peak": peak}


def _watch(process: subprocess.Popen[bytes]) -> dict[str, int]:
    peak: dict[str, int] = {}
    while process.poll() is None:
        for name, value in memory_now(process.pid).items():
            peak[name] = max(value, peak.get(name, 0))
        time.sleep(_SAMPLED_EVERY)
    return peak


def _reason(code: int, errors: str) -> str:
    if code == -9:
        return "it was killed, as the kernel does when memory is short"
    lines = errors.strip().splitlines()
    return lines[-1] if lines else f"it ended with {code}"
