"""How a version becomes the current one, and who may write."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from index.errors import IndexProblem
from index.manifest import REBUILD, VERSION, check_files, read_manifest


def change_about(directory: Path, about: Mapping[str, Any], *, of: str) -> str:
    """Publish the current version once more with another `about`; its files are shared, not copied.

    Args:
        directory: The index.
        about: As for `VersionWriter.publish`.
        of: The version that `about` was made for; a newer one is not written over.

    Returns:
        The name of the new version, or of the current one if it says the same already.

    Raises:
        IndexProblem: There is no index, it is damaged, or another process writes to it.
    """
    read_manifest(directory)
    with only_writer(directory), contextlib.ExitStack() as stack:
        version, manifest = read_manifest(directory)
        if version != of:
            raise IndexProblem(f"{directory} has got a new version meanwhile.", "Try again.")
        problems = check_files(directory / version, manifest)
        if problems:
            raise IndexProblem(f"{directory / version}: {problems[0]}", REBUILD)
        folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=directory))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for name in manifest["files"]:
            os.link(directory / version / name, folder / name)
        content = {key: manifest[key] for key in manifest if key not in ("version", "libraries")}
        return publish(directory, folder, content | {"about": json.loads(json.dumps(about))})


def publish(directory: Path, folder: Path, content: Mapping[str, Any]) -> str:
    """Give a folder its manifest and make it the current version, unless that is the same."""
    before = _sound_version(directory)
    if before is not None and content.items() <= before[1].items():
        return before[0]
    version = _next_version(directory)
    manifest = {**content, "version": version, "libraries": _libraries()}
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)
    folder.chmod(0o755)
    folder.rename(directory / version)
    _sync(directory)
    _replace_text(directory / "current", f"{version} {hashlib.sha256(text.encode()).hexdigest()}\n")
    _remove_versions(directory, but={version, before[0] if before else version})
    return version


def _sound_version(directory: Path) -> tuple[str, Mapping[str, Any]] | None:
    """Name and manifest of the current version, if there is one and its files are whole."""
    try:
        version, manifest = read_manifest(directory)
    except IndexProblem:
        return None
    return None if check_files(directory / version, manifest) else (version, manifest)


@contextlib.contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Hold the index in `directory` for writing.

    Raises:
        IndexProblem: Another process holds it.
    """
    with (directory / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise IndexProblem(
                f"Another process is writing to {directory}.",
                "Wait for it, or choose another --index.",
            ) from error
        yield


def _versions(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if VERSION.fullmatch(path.name)]


def _next_version(directory: Path) -> str:
    newest = max((int(path.name[1:]) for path in _versions(directory)), default=0)
    return f"v{newest + 1:06d}"


def _remove_versions(directory: Path, but: set[str]) -> None:
    for path in _versions(directory):
        if path.name not in but:
            shutil.rmtree(path, ignore_errors=True)


def _libraries() -> dict[str, str]:
    """Versions of what wrote the index; without those that run from a plain source folder."""
    versions = {}
    for name in ("annotator", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)
