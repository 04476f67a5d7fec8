"""Concepts for medical images by retrieval.

The names below are the Python API. They are imported when they are first used, so that
`import annotator` is fast and `annotator.evaluate` never loads torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from annotator.build import build_index
    from annotator.collection import read_collection
    from annotator.embed.makers import make_embedder
    from annotator.errors import AnnotatorError
    from annotator.images.sources import find_images
    from annotator.pipeline import Annotation, Annotator
    from annotator.score.evaluation import evaluate
    from annotator.vote.voting import Voting

__version__ = "0.1.0"

_HOME = {
    "Annotation": "annotator.pipeline",
    "Annotator": "annotator.pipeline",
    "AnnotatorError": "annotator.errors",
    "Voting": "annotator.vote.voting",
    "build_index": "annotator.build",
    "evaluate": "annotator.score.evaluation",
    "find_images": "annotator.images.sources",
    "make_embedder": "annotator.embed.makers",
    "read_collection": "annotator.collection",
}

__all__ = [
    "Annotation",
    "Annotator",
    "AnnotatorError",
    "Voting",
    "build_index",
    "evaluate",
    "find_images",
    "make_embedder",
    "read_collection",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'annotator' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
