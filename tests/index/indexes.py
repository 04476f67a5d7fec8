"""Small indexes in folders, for tests to look into and to damage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from index import IndexProblem, VersionWriter, open_index
from index.manifest import read_manifest

Vectors = NDArray[np.float32]


def unit(n: int, dim: int = 24, seed: int = 0) -> Vectors:
    """Random vectors float32[n, dim] of unit norm."""
    vectors = np.random.default_rng(seed).standard_normal((n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def publish(directory: Path, vectors: Vectors, **parts: Any) -> str:
    """Build an index of vectors; row i is "image-<i>", without concepts unless `parts` has them."""
    with VersionWriter(directory) as writer:
        writer.add(vectors)
        return writer.publish(
            **{
                "ids": [f"image-{i}" for i in range(len(vectors))],
                "concepts": [[] for _ in vectors],
                "names": {},
                "columns": {},
                "about": {},
                **parts,
            }
        )


def files(directory: Path) -> dict[str, bytes]:
    """The content of each file by its path in the folder."""
    paths = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def problem(directory: Path) -> str:
    """The message with which opening fails; another exception than IndexProblem fails the test."""
    with pytest.raises(IndexProblem) as caught:
        open_index(directory)
    return str(caught.value)


def rewrite(directory: Path, change: Callable[[Any], Any]) -> None:
    """Change the manifest and the digest that vouches for it, as somebody with ill intent would."""
    version = read_manifest(directory).version
    path = directory / version / "manifest.json"
    text = json.dumps(change(json.loads(path.read_text())))
    path.write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (directory / "current").write_text(f"{version} {digest}\n")


def facts(data: bytes) -> dict[str, Any]:
    """The entry of a file in a manifest."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def replace_file(directory: Path, name: str, data: bytes) -> None:
    """Replace a file together with its entry in the manifest."""
    (directory / read_manifest(directory).version / name).write_bytes(data)
    rewrite(directory, lambda m: m | {"files": m["files"] | {name: facts(data)}})
