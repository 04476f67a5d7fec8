"""How many cores this process may use: by its affinity, and by the limits of its control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Cores that this process may use, at least 1.

    A container that may use the time of two cores sees all of the machine's: as many threads would
    wait for each other most of the time.
    """
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min([allowed, *(int(limit) for limit in _limits(_GROUPS, _OWN))]))


def limit_threads() -> None:
    """Let OpenMP and BLAS have a thread for each usable core, where limits leave fewer than there
    are; to be called before NumPy, FAISS or torch is imported.
    """
    cores = usable_cores()
    if cores < (os.cpu_count() or 1):
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(variable, str(cores))


def _limits(groups: Path, own: Path) -> Iterator[float]:
    """Cores' worth of time that each control group of this process, and each above it, may use.

    Of version 2 (`cpu.max`: quota and period) and of version 1 (a file for each, below the
    controller's own folder). A container sees its own group as the root.

    Args:
        groups: Where the control groups are mounted.
        own: The file that says in which groups this process is.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = groups / controllers if controllers else groups
        folder = root / path.lstrip("/")
        while True:
            if (limit := _limit(folder)) is not None:
                yield limit
            if folder in (root, folder.parent):
                break
            folder = folder.parent


def _limit(folder: Path) -> float | None:
    """The limit of one group; None without one."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return None if quota == "max" or int(quota) <= 0 else max(1.0, int(quota) / int(period))
    except (OSError, ValueError):
        return None
