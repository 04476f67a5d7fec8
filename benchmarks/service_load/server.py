"""`annotator serve` as a process, and what the kernel says of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.service_load.client import Address


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
