"""`annotator serve` as a process, and what the kernel says of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.service_load.client import Address

KEY = "a-key-for-the-benchmark-0123456789"


class Server:
    """A running server; use as a context manager.

    Args:
        index: Folder of the index.
        arguments: More arguments of `annotator serve`.

    Raises:
        SystemExit: It does not start.
    """

    def __init__(self, index: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "annotator", "serve", "--index", str(index), "--port", "0"]
        self.process = subprocess.Popen(
            [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()  # ends when the process does
        if not line.startswith("Serving on http://"):
            raise SystemExit(f"annotator serve ended with {self.process.wait()}")
        host, _, port = line.split()[2].removeprefix("http://").rpartition(":")
        self.address: Address = (host, int(port))

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdout is not None
        self.process.terminate()
        self.process.stdout.close()
        self.process.wait(120)

    def mib(self, key: str) -> float:
        """Memory by a name of /proc/PID/status: VmRSS now, VmHWM at its peak."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return round(int(line.split()[1]) / 1024, 1)
        raise KeyError(key)

    def descriptors(self) -> int:
        """Its open files."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def cpu_seconds(self) -> float:
        """CPU time so far, of it and of the processes that it started."""
        return cpu_seconds(self.process.pid)


def writable(keys: Path) -> tuple[str, ...]:
    """Arguments of a server that takes corrections with `KEY`, which is written to a file."""
    keys.write_text(f"correct:{KEY} Somebody\n")
    keys.chmod(0o600)
    return ("--writable", "--api-key-file", str(keys))


def cpu_seconds(root: int) -> float:
    """CPU time of a process so far, and of those that it started and that live."""
    ticks, seconds, pids = os.sysconf("SC_CLK_TCK"), 0.0, [root]
    while pids:
        pid = pids.pop()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / ticks
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            pids += map(int, children.read_text().split())
    return seconds
