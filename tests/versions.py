"""Names of the versions of an index: a number, and a digest that tests need not know."""

from __future__ import annotations

import re
from pathlib import Path

_DIGEST = re.compile(r"(?<=\bv\d{6})-[0-9a-f]{8}\b")


def version_folder(index: Path, number: int = 1) -> Path:
    """The folder of the version with this number."""
    (folder,) = index.glob(f"v{number:06d}-*")
    return folder


def numbered(text: str) -> str:
    """A text without the digests in names of versions: "v000001-5f3a09bc" becomes "v000001"."""
    return _DIGEST.sub("", text)
