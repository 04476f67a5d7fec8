"""Raw results as JSON lines, each with the machine and the versions that it was measured with."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

Record = dict[str, Any]

_PACKAGES = (
    *("torch", "timm", "faiss-cpu", "faiss-gpu", "numpy", "scipy", "pillow"),
    *("hnswlib", "usearch", "scann", "scalable-vs", "scikit-learn", "scikit-image", "pymilvus"),
)


def machine() -> Record:
    """CPU, cores, memory, GPU (if there is one), and the versions that matter."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    facts: Record = {
        "cpu": model[1] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
    }
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
        facts["gpu"] = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    return facts


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def save(name: str, records: Sequence[Record]) -> Path:
    """Append records, each with the machine and the time, to results/NAME.jsonl."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.jsonl"
    about = {"when": now(), "machine": machine()}
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({**about, **record}) + "\n" for record in records)
    return path


def load(name: str, folder: Path | None = None) -> list[Record]:
    """The records of NAME.jsonl in `folder` (by default of results/), oldest first."""
    path = (folder or RESULTS) / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
