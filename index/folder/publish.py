"""Publishing a version atomically, and the lock of the only writer."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from index.distribution import DISTRIBUTION
from index.errors import IndexProblem
from index.manifest import (
    FORMAT,
    VERSION,
    Manifest,
    check_files,
    describe_file,
    number_of,
    read_manifest,
)
from index.sync import sync


@dataclass
class Draft:
    """A version that is being made from the current one.

    Attributes:
        directory: The index.
        folder: Files of the new version; not visible to readers yet.
        before: Manifest of the current version.
    """

    directory: Path
    folder: Path
    before: Manifest

    def keep(self, names: Iterable[str]) -> None:
        """Take files of the current version over without copying them."""
        for name in names:
            os.link(self.directory / self.before.version / name, self.folder / name)

    def publish(self, *, only: bool = False, **changes: Any) -> str:
        """Make the folder the current version.

        Args:
            only: Remove every other version at once; otherwise the one before is kept for readers
                that are just opening it.
            changes: Attributes of the manifest that differ from the current one's, but `files`.

        Returns:
            Its name, or that of the current one if it says the same already.
        """
        known, before = self.before.files, self.directory / self.before.version
        files = {}
        for path in sorted(self.folder.iterdir()):
            same = path.name in known and path.samefile(before / path.name)
            files[path.name] = known[path.name] if same else describe_file(path)
        manifest = replace(self.before, format=FORMAT, files=files, **changes)
        version = publish(self.directory, self.folder, manifest)
        if only:
            _remove_versions(self.directory, but={version})
        return version


@contextlib.contextmanager
def next_version(directory: Path, *, of: str | None = None, held: bool = False) -> Iterator[Draft]:
    """Begin a version from the current one, as the only writer; leaving removes what is unfinished.

    Args:
        directory: The index.
        of: The version that the change was made for; a newer one is not overwritten.
        held: The caller is the only writer already.

    Raises:
        IndexProblem: There is no index, it is damaged, or another process writes to it.
    """
    read_manifest(directory)
    with contextlib.ExitStack() as stack:
        if not held:
            stack.enter_context(only_writer(directory))
        before = read_manifest(directory)
        if of is not None and before.version != of:
            raise IndexProblem(f"{directory} has got a new version meanwhile.", "Try again.")
        folder = new_folder(directory)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield Draft(directory, folder, before)


def new_folder(directory: Path) -> Path:
    """A temporary folder for a version; those of killed writers are removed."""
    for stale in directory.glob(".writing-*"):
        shutil.rmtree(stale, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=".writing-", dir=directory))


def publish(directory: Path, folder: Path, manifest: Manifest) -> str:
    """Give a folder its manifest and make it the current version, unless that is the same.

    Args:
        directory: The index.
        folder: Files of the version.
        manifest: Of the version; its name and libraries are set here.

    Returns:
        The name of the current version.
    """
    before = None
    with contextlib.suppress(IndexProblem):
        before = read_manifest(directory)
        same = replace(manifest, version=before.version, libraries=before.libraries) == before
        if same and not check_files(directory / before.version, before):
            return before.version
    version = f"v{_newest(directory) + 1:06d}-{manifest.digest}"
    text = replace(manifest, version=version, libraries=_libraries()).to_json()
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    for path in folder.iterdir():
        sync(path)
    sync(folder)
    folder.chmod(0o755)
    folder.rename(directory / version)
    sync(directory)
    _replace_text(directory / "current", f"{version} {hashlib.sha256(text.encode()).hexdigest()}\n")
    _remove_versions(directory, but={version, before.version if before else version})
    return version


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


def _newest(directory: Path) -> int:
    """The highest number of a version; 0 if there is none."""
    return max((number_of(path.name) for path in _versions(directory)), default=0)


def _remove_versions(directory: Path, but: set[str]) -> None:
    for path in _versions(directory):
        if path.name not in but:
            shutil.rmtree(path, ignore_errors=True)


def _libraries() -> dict[str, str]:
    """Versions of what wrote the index; without those that run from a plain source folder."""
    versions = {}
    for name in (DISTRIBUTION, "numpy", "faiss-cpu", "faiss-gpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            key = "annotator" if name == DISTRIBUTION else name
            versions[key] = importlib.metadata.version(name)
    return versions


def _replace_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)
