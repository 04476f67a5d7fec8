"""The command line as the benchmarks of features use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def annotator(*arguments: str | Path) -> str:
    """What `annotator` with these arguments prints on stdout; stderr passes through."""
    command = [sys.executable, "-m", "annotator", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
