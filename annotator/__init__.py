"""Concepts for medical images by retrieval.

The names below are the Python API. They are imported when they are first used, so that
`import annotator` is fast and `annotator.evaluate` never loads torch.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from annotator.annotation import Annotation, Annotations
    from annotator.collection import read_collection
    from annotator.encoders.registry import make_embedder
    from annotator.evaluation.evaluation import evaluate
    from annotator.fitting.fit import fit_encoder
    from annotator.images.sources import find_images
    from annotator.indexing.build import build_index
    from annotator.knn.estimator import ConceptKNN
    from annotator.knn.voting import Voting
    from annotator.pipeline import Annotator
    from annotator.vectors.table import read_vectors
    from index.errors import AnnotatorError

__version__ = "0.1.0"


def _check_siblings() -> None:
    """Refuse to run where another package takes the place of `index` or `service`.

    Raises:
        ImportError: Says which, and where it lies.
    """
    home = Path(__file__).resolve().parents[1]
    for name in ("index", "service"):
        spec = importlib.util.find_spec(name)
        origin = spec.origin if spec is not None else None
        if origin is None or Path(origin).resolve().parent != home / name:
            places = [origin] if origin else list((spec and spec.submodule_search_locations) or ())
            raise ImportError(
                f"annotator needs its own package `{name}` from {home}, but Python finds "
                f"{places[0] if places else 'none'}. Rename or uninstall that one, or start in "
                "another folder; if there is none, install cui-annotator again."
            )


_check_siblings()

_HOME = {
    "Annotation": "annotator.annotation",
    "Annotations": "annotator.annotation",
    "Annotator": "annotator.pipeline",
    "AnnotatorError": "index.errors",
    "ConceptKNN": "annotator.knn.estimator",
    "Voting": "annotator.knn.voting",
    "build_index": "annotator.indexing.build",
    "evaluate": "annotator.evaluation.evaluation",
    "find_images": "annotator.images.sources",
    "fit_encoder": "annotator.fitting.fit",
    "make_embedder": "annotator.encoders.registry",
    "read_collection": "annotator.collection",
    "read_vectors": "annotator.vectors.table",
}

__all__ = [
    "Annotation",
    "Annotations",
    "Annotator",
    "AnnotatorError",
    "ConceptKNN",
    "Voting",
    "build_index",
    "evaluate",
    "find_images",
    "fit_encoder",
    "make_embedder",
    "read_collection",
    "read_vectors",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'annotator' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
