"""The command line as the benchmarks of features use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def annotator(*arguments: str | Path) -> str:
    """What `annotator` with these arguments prints on stdout; stderr passes through."""
    command = [sys.executable, "-m", "annotator", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def table(path: Path, header: str, rows: dict[str, str]) -> Path:
    """Write a CSV file of two columns, the first of them the image's id."""
    quoted = (f'{id_},"{value.replace(chr(34), chr(34) * 2)}"\n' for id_, value in rows.items())
    path.write_text(f"ID,{header}\n" + "".join(quoted), encoding="utf-8")
    return path
