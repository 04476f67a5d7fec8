"""Files that are there whole or not at all, and names that say what is in them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_READ_AT_ONCE = 2**24


def digest(value: Any) -> str:
    """Sixteen hexadecimal digits that change with a value of JSON types."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def write_json(path: Path, value: Any) -> None:
    """Write a file at once."""
    write_text(path, json.dumps(value))


def write_text(path: Path, text: str) -> None:
    """Write a file at once: who reads it never sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_through(paths: Iterable[Path]) -> None:
    """Read files once, so that they are in the page cache as far as memory allows."""
    for path in paths:
        with path.open("rb") as file:
            while file.read(_READ_AT_ONCE):
                pass


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
