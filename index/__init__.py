"""A vector index with labels, on disk and in memory; it knows nothing of images.

The names below are imported when they are first used, so that the command line can report
an `IndexProblem` without loading numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from index.errors import IndexProblem
    from index.folder.location import open_index
    from index.folder.store import StoredIndex
    from index.folder.writer import VersionWriter
    from index.labels import LabelTable
    from index.rows import Neighbors
    from index.search.base import VectorIndex
    from index.search.flat import FlatIndex

_HOME = {
    "FlatIndex": "index.search.flat",
    "IndexProblem": "index.errors",
    "LabelTable": "index.labels",
    "Neighbors": "index.rows",
    "StoredIndex": "index.folder.store",
    "VectorIndex": "index.search.base",
    "VersionWriter": "index.folder.writer",
    "open_index": "index.folder.location",
}

__all__ = [
    "FlatIndex",
    "IndexProblem",
    "LabelTable",
    "Neighbors",
    "StoredIndex",
    "VectorIndex",
    "VersionWriter",
    "open_index",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'index' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
