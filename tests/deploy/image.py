"""The steps of the Dockerfile without a builder of images, and the container without a runtime.

Enough of a Dockerfile for ours: each stage is a folder, in which commands run by chroot. Needs
root, on Linux, and a folder with the base image (Debian's debootstrap makes one).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass
class Image:
    """What a Dockerfile makes.

    Attributes:
        root: Folder with its files.
        environment: Of its processes.
        user: "UID:GID".
        entrypoint: Command.
        command: Its arguments, unless others are given.
        health: Command of the health check.
    """

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    health: Sequence[str] = ()

    @property
    def bytes(self) -> int:
        """The size of its files on disk."""
        done = subprocess.run(["du", "-s", "-B1", self.root], capture_output=True, check=True)
        return int(done.stdout.split()[0])


def build(dockerfile: Path, context: Path, base: Path, work: Path, **arguments: str) -> Image:
    """Take the steps of a Dockerfile.

    Args:
        dockerfile: The file.
        context: What COPY copies from.
        base: Files of the base image.
        work: Where the stages are made.
        arguments: Build arguments.

    Raises:
        subprocess.CalledProcessError: A step failed.
    """
    known: dict[str, str] = {}
    stages: dict[str, Image] = {}
    image = Image(work)
    folder = "/"
    for keyword, text in _instructions(dockerfile):
        if keyword == "ARG":
            name, _, default = text.partition("=")
            known[name] = arguments.get(name, default or known.get(name, ""))
        elif keyword == "FROM":
            _, _, name = text.partition(" AS ")
            image = Image(work / (name or "final"))
            subprocess.run(["cp", "-a", base, image.root], check=True)
            shutil.copy("/etc/resolv.conf", image.root / "etc/resolv.conf")
            stages[name or "final"] = image
            folder = "/"
        elif keyword == "RUN":
            _run(image, folder, ["sh", "-c", text], known)
        elif keyword == "WORKDIR":
            folder = text
            (image.root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif keyword == "COPY":
            _copy(image, folder, text, context, stages)
        elif keyword == "ENV":
            name, _, value = text.partition("=")
            image.environment[name] = value
        elif keyword == "USER":
            image.user = text
        elif keyword in ("ENTRYPOINT", "CMD"):
            command = json.loads(text)
            if keyword == "CMD":
                image.command = command
            else:
                image.entrypoint = command
        elif keyword == "HEALTHCHECK":
            image.health = json.loads(text[text.index("[") :])
        elif keyword not in ("EXPOSE", "STOPSIGNAL"):
            raise ValueError(f"{dockerfile}: {keyword} is not understood")
    return image


def _instructions(dockerfile: Path) -> list[tuple[str, str]]:
    lines = dockerfile.read_text().splitlines()
    joined = "\n".join(line for line in lines if line.strip() and line.strip()[0] != "#")
    found = []
    for line in joined.replace("\\\n", " ").splitlines():
        keyword, _, text = line.partition(" ")
        found.append((keyword, text.strip()))
    return found


def _copy(image: Image, folder: str, text: str, context: Path, stages: Mapping[str, Image]) -> None:
    words = text.split()
    source = context
    if words[0].startswith("--from="):
        source = stages[words.pop(0).removeprefix("--from=")].root
    *names, target = words
    place = image.root / os.path.normpath(os.path.join(folder, target)).lstrip("/")  # noqa: PTH118
    for name in names:
        path = source / name.lstrip("/")
        to = place / path.name if target.endswith("/") or path.is_file() else place
        to.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-aT", path, to], check=True)


def _run(image: Image, folder: str, command: Sequence[str], known: Mapping[str, str]) -> None:
    """Run a step in a stage; pip is set up as outside, and sees the folders in $IMAGE_BINDS."""
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
    script = [
        "set -e",
        f"root={shlex.quote(str(image.root))}",
        'mount -t proc proc "$root/proc"',
        'mount --rbind /dev "$root/dev"',
        'mount -t tmpfs tmpfs "$root/tmp"',
    ]
    for bind in filter(None, os.environ.get("IMAGE_BINDS", "").split(":")):
        script += [
            f'mkdir -p "$root{bind}"',
            f'mount --bind {bind} "$root{bind}" && mount -o remount,bind,ro "$root{bind}"',
        ]
    words = shlex.join(command)
    script.append(f'exec chroot "$root" sh -c {shlex.quote(f"cd {folder} && exec {words}")}')
    subprocess.run(
        ["unshare", "--mount", "sh", "-c", "\n".join(script)],
        env={**environment, **pip, **known, **image.environment},
        check=True,
    )


class Container:
    """A process in an image: not as root, with nothing to write to but /tmp, in a limited group.

    Use as a context manager: what still runs is killed at the end.

    Args:
        image: The image.
        volumes: Folders outside by their places inside, read-only.
        cores: Cores' worth of time.
        command: Instead of the image's; None for that one.
        environment: Added to the image's.
    """

    def __init__(
        self,
        image: Image,
        volumes: Mapping[str, Path],
        cores: float = 2,
        command: Sequence[str] | None = None,
        **environment: object,
    ) -> None:
        user, _, group = image.user.partition(":")
        self._group = _cpu_group(cores)
        root = shlex.quote(str(image.root))
        script = ["set -e", f"root={root}", 'mount --bind "$root" "$root"']
        for inside, outside in volumes.items():
            script += [
                f'mkdir -p "$root{inside}"',
                f'mount --bind {shlex.quote(str(outside))} "$root{inside}"',
                f'mount -o remount,bind,ro "$root{inside}"',
            ]
        words = shlex.join(command or [*image.entrypoint, *image.command])
        script += [
            'mount -t proc proc "$root/proc"',
            'mount --rbind /sys "$root/sys" && mount -o remount,bind,ro "$root/sys"',
            'mount -t tmpfs -o mode=755 dev "$root/dev"',
            'for d in null zero random urandom; do touch "$root/dev/$d"; '
            'mount --bind "/dev/$d" "$root/dev/$d"; done',
            'mkdir "$root/dev/shm" && mount -t tmpfs -o mode=1777 shm "$root/dev/shm"',
            'mount -t tmpfs -o mode=1777 tmp "$root/tmp"',
            'mount -o remount,bind,ro "$root"',
            f'exec /usr/sbin/chroot "$root" /usr/bin/setpriv --reuid {user} --regid {group} '
            f"--clear-groups --no-new-privs --inh-caps -all --bounding-set -all {words}",
        ]
        joined = "\n".join(script)
        start = f"echo $$ > {self._group}/cgroup.procs && exec unshare --mount --pid --fork "
        self.process = subprocess.Popen(
            ["sh", "-c", start + f"--kill-child sh -c {shlex.quote(joined)}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**image.environment, **{key: str(value) for key, value in environment.items()}},
        )

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        deadline = time.monotonic() + 10
        while True:  # what was killed leaves the group a moment later
            try:
                return self._group.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the first process inside."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        (child,) = path.read_text().split()
        os.kill(int(child), number)

    def wait(self) -> tuple[int, str, str]:
        """Exit code, output and errors of the first process, once it has ended."""
        out, errors = self.process.communicate(timeout=120)
        return self.process.returncode, out, errors


def _cpu_group(cores: float) -> Path:
    """A control group that may use this much time of the processors."""
    top = Path("/sys/fs/cgroup")
    first = top / "cpu" if (top / "cpu").is_dir() else top
    group = Path(tempfile.mkdtemp(prefix="annotator-", dir=first))
    group.chmod(0o755)  # the process inside reads its limit
    period = 100_000
    if (group / "cpu.max").exists():
        (group / "cpu.max").write_text(f"{int(cores * period)} {period}")
    else:
        (group / "cpu.cfs_period_us").write_text(str(period))
        (group / "cpu.cfs_quota_us").write_text(str(int(cores * period)))
    return group
