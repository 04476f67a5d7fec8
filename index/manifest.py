"""The manifest of a version: what it holds, and whether its files are what was written.

A manifest is read like any file from elsewhere: nothing in it is believed before it is checked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from index.backends import FlatIndex
from index.errors import IndexProblem

FORMAT = 2  # 1 had no arrays
METRIC = "cosine"
FILES = ("vectors.npy", "labels.indptr.npy", "labels.indices.npy", "cuis.tsv", "ids.txt")
VERSION = re.compile(r"v[0-9]{6,12}")
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
REBUILD = "Build the index again, or restore the folder from a copy."
_POINTER = re.compile(rf"({VERSION.pattern}) ([0-9a-f]{{64}})\n")


def read_manifest(directory: Path) -> tuple[str, Mapping[str, Any]]:
    """Name and manifest of the current version, without opening anything else.

    Raises:
        IndexProblem: There is no index, or its manifest is damaged or of a newer format.
    """
    pointer = directory / "current"
    if not pointer.is_file():
        there = "is a file" if directory.exists() else "does not exist"
        if directory.is_dir():
            there = "is no index: it has no file `current`"
        raise IndexProblem(
            f"{directory} {there}.", "Build one: annotator build-index IMAGES CONCEPTS"
        )
    text = pointer.read_text(encoding="utf-8", errors="replace")
    named = _POINTER.fullmatch(text)
    if named is None:
        raise IndexProblem(f"{pointer} is damaged: it names no version.", REBUILD)
    version, digest = named.groups()
    path = directory / version / "manifest.json"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise IndexProblem(
            f"{pointer} names {version}, whose {path} cannot be read: {error.strerror}.", REBUILD
        ) from error
    if hashlib.sha256(raw).hexdigest() != digest:
        raise IndexProblem(f"{path} is not the manifest that was published.", REBUILD)
    try:
        manifest = json.loads(raw)
    except ValueError as error:
        raise IndexProblem(f"{path} is not JSON: {error}.", REBUILD) from error
    fault = _fault(manifest)
    if fault:
        raise IndexProblem(f"{path}: {fault}.", REBUILD)
    return version, manifest


def check_files(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """What is wrong with the files of a version, as sentences; empty if nothing is."""
    problems = []
    for name, expected in manifest["files"].items():
        path = folder / name
        try:
            size = path.stat().st_size if path.is_file() else None
            if size is None:
                problems.append(f"{name} is missing.")
            elif size != expected["bytes"]:
                problems.append(f"{name} has {size} bytes, {expected['bytes']} were written.")
            elif _sha256(path) != expected["sha256"]:
                problems.append(f"{name} has changed since it was written (sha256 differs).")
        except OSError as error:
            problems.append(f"{name} cannot be read: {error.strerror}.")
    extra = {path.name for path in folder.iterdir()} - set(manifest["files"]) - {"manifest.json"}
    return problems + [f"{name} does not belong there." for name in sorted(extra)]


def _fault(manifest: Any) -> str:
    """What makes a manifest unusable; empty if nothing does. The manifest is not trusted."""
    if not isinstance(manifest, dict):
        return "it is not a JSON object"
    number: Any = manifest.get("format")
    if not _is_count(number):
        return "it has no format number"
    if number > FORMAT:
        libraries = manifest.get("libraries")
        writer = libraries.get("annotator") if isinstance(libraries, dict) else None
        return (
            f"it has format {number}, this annotator reads up to {FORMAT}; install a newer one "
            f"(it was written by {writer or 'an unknown version'})"
        )
    for key in ("n", "dim"):
        if not _is_count(manifest.get(key)):
            return f"its {key} is not a positive whole number"
    if manifest.get("metric") != METRIC or manifest.get("index_type") != FlatIndex.kind:
        return (
            f"it has metric {manifest.get('metric')!r} and index type "
            f"{manifest.get('index_type')!r}, which this annotator does not know"
        )
    for key in ("about", "libraries", "files"):
        if not isinstance(manifest.get(key), dict):
            return f"its {key} is not a JSON object"
    columns, arrays = manifest.get("columns"), manifest.get("arrays", [])
    files = manifest["files"]
    for what, names in (("columns", columns), ("arrays", arrays)):
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return f"its {what} are not a list of names"
    assert columns is not None
    wanted = {*FILES, *(f"{n}.jsonl" for n in columns), *(f"{n}.npy" for n in arrays)}
    if files.keys() != wanted:
        return f"it lists files other than {', '.join(sorted(wanted))}"
    for name, facts in files.items():
        if PLAIN_NAME.fullmatch(name) is None:
            return f"it lists {name!r}, which is not a plain file name"
        if (
            not isinstance(facts, dict)
            or not _is_count(facts.get("bytes"), least=0)
            or not isinstance(facts.get("sha256"), str)
        ):
            return f"it does not say size and sha256 of {name}"
    return ""


def _is_count(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def describe_file(path: Path) -> dict[str, Any]:
    """Size and sha256 of a file, as the manifest lists them."""
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
