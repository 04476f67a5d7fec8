"""The page's files, read once, with the path that each is served at."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "page"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


@dataclass(frozen=True)
class PageFile:
    """A file of the page."""

    content: bytes
    media_type: str

    @property
    def etag(self) -> str:
        """Changes with the content."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


def read_page(folder: Path = FOLDER) -> Mapping[str, PageFile]:
    """The files of a folder that can be part of a page; `index.html` is at "/"."""
    return {
        "/" if path.name == "index.html" else f"/{path.name}": PageFile(
            path.read_bytes(), _TYPES[path.suffix]
        )
        for path in sorted(folder.iterdir())
        if path.suffix in _TYPES
    }
