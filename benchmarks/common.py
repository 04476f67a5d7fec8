"""What every benchmark needs: a description of the machine, and raw results as JSON lines."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from annotator.images.ref import ImageRef
from annotator.images.sources import find_images

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """CPU, cores, memory and the versions that matter."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [
            line.split(":")[1].strip()
            for line in info.read_text().splitlines()
            if "model name" in line
        ]
        cpu = models[0] if models else cpu
    names = (
        "torch",
        "timm",
        "faiss-cpu",
        "faiss-gpu",
        "numpy",
        "pillow",
        "hnswlib",
        "usearch",
        "scikit-learn",
    )
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": {name: version for name in names if (version := _version(name))},
    }


def save(name: str, records: Sequence[dict[str, Any]]) -> Path:
    """Append records, each with the machine and the time, to results/NAME.jsonl."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.jsonl"
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    here = machine()
    with path.open("a", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps({"when": when, "machine": here, **record}) + "\n")
    return path


def copies(source: Path, target: Path, n: int) -> None:
    """Fill `target` with n image files made from those in `source`, all different in content.

    A few bytes behind the end of a picture change its content hash, so that no cache can help,
    but not what is decoded.
    """
    target.mkdir(parents=True)
    for i, ref in zip(range(n), _endless(find_images(source).images), strict=False):
        suffix = Path(ref.where).suffix
        shutil.copyfile(ref.where, target / f"{i:06d}{suffix}")
        with (target / f"{i:06d}{suffix}").open("ab") as file:
            file.write(f"copy {i}".encode())


def _endless(refs: Sequence[ImageRef]) -> Iterator[ImageRef]:
    # DICOM files end in tagged data: nothing may be appended to them.
    pictures = [ref for ref in refs if not ref.where.endswith(".dcm")]
    while True:
        yield from pictures


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
