"""What a command costs in a process of its own, by the kernel's account."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# A process begins with the peak of the one that started it, so a small one stands between.
_BETWEEN = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
code = subprocess.run(sys.argv[2:], check=False).returncode
seconds, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    json.dump([seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024], file)
sys.exit(code)
"""


@dataclass(frozen=True)
class Cost:
    """Seconds, CPU seconds, and peak of resident memory in MiB."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def cost_of(arguments: Sequence[str | Path], folder: Path, *, quiet: bool = False) -> Cost:
    """Run `annotator` with arguments.

    Args:
        arguments: Of the command.
        folder: For a small file.
        quiet: Drop what it writes to stderr.

    Raises:
        SystemExit: The command failed.
    """
    account = folder / "cost.json"
    command = [sys.executable, "-c", _BETWEEN, str(account)]
    command += [sys.executable, "-m", "annotator", *map(str, arguments)]
    ended = subprocess.run(command, check=False, stderr=subprocess.DEVNULL if quiet else None)
    if ended.returncode:
        raise SystemExit(f"{arguments[0]} ended with {ended.returncode}")
    return Cost(*json.loads(account.read_text()))
