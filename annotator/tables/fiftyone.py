"""Datasets of FiftyOne, as its type `FiftyOneDataset` has them in a folder.

The folder has `metadata.json` (the document of the dataset: its fields and runs of the brain),
`samples.json` (a document for each sample, in MongoDB's extended JSON), `brain/` (results of runs)
and `data/` (pictures). FiftyOne documents the folder (docs.voxel51.com, "Importing data",
FiftyOneDataset), not the documents: these are as FiftyOne 1.22 writes them, and neither FiftyOne
nor its database is needed to write them. FiftyOne brings a dataset of an older version up to its
own when it is loaded.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.errors import AnnotatorError

VERSION = "1.0.0"  # of FiftyOne, whose documents these are: older ones cannot load them
GROUND_TRUTH, PREDICTIONS, EMBEDDING, SIMILARITY = (
    "ground_truth",
    "predictions",
    "embedding",
    "similarity",
)
PICTURES = "data"

_FIELDS = "fiftyone.core.fields."
_SKLEARN = "fiftyone.brain.internal.core.sklearn.SklearnSimilarity"
_MADE = {"$date": "2000-01-01T00:00:00Z"}  # loading sets the time; the same export, the same bytes
_MADE_BY = "annotator"  # in the info of a dataset


@dataclass(frozen=True)
class Label:
    """A concept of an image.

    Attributes:
        concept: Its id.
        label: What people read, unique to the concept.
        score: Share of the votes; None in the ground truth.
        confidence: Probability, or the share of the votes where there is none; likewise.
    """

    concept: str
    label: str
    score: float | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class FiftyOneSample:
    """An image of a dataset.

    Attributes:
        image_id: The image.
        filepath: Absolute path of a picture that browsers show, or its path in the dataset.
        embedding: float32[dim], its vector in the index.
        predictions: Its concepts by the vote.
        expected_f1: Of these.
        familiarity: How like the images of the index it is; None where that is not known.
        ground_truth: Its known concepts; None where they are not known.
        f1: Of the predictions against these; None without.
        group: Its patient or study; "" where that is not known.
        tags: Tags of the sample.
    """

    image_id: str
    filepath: str
    embedding: NDArray[np.float32]
    predictions: Sequence[Label]
    expected_f1: float
    familiarity: float | None = None
    ground_truth: Sequence[Label] | None = None
    f1: float | None = None
    group: str = ""
    tags: Sequence[str] = ()


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that `write_dataset` could not, or must not, write.

    Raises:
        AnnotatorError: Something is there that is not to be replaced, or there is no such place.
    """
    if not out.resolve().parent.is_dir():
        raise AnnotatorError(f"There is no folder {out.resolve().parent}.", "Make it first.")
    if not out.exists():
        return
    if not overwrite:
        raise AnnotatorError(
            f"{out} exists already.", "Choose another --out, or replace it with --overwrite."
        )
    try:
        info = json.loads((out / "metadata.json").read_text(encoding="utf-8"))["info"]
        is_ours = _MADE_BY in info
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise AnnotatorError(
            f"{out} is no dataset of `annotator export`, so --overwrite does not replace it.",
            "Choose another --out, or remove it yourself.",
        )


def write_dataset(
    folder: Path, samples: Iterable[FiftyOneSample], *, name: str, info: Mapping[str, str]
) -> int:
    """Write a dataset into an empty folder; of the samples none is kept.

    Args:
        folder: Pictures of samples may be in its `PICTURES`, now or as the samples come.
        samples: The images.
        name: Name of the dataset, unless another is given when it is loaded.
        info: What is to be known of how it came to be.

    Returns:
        The number of samples.
    """
    n = 0
    with (folder / "samples.json").open("w", encoding="utf-8") as file:
        file.write('{"samples": [')
        for n, sample in enumerate(samples, 1):
            file.write(",\n" if n > 1 else "\n")
            json.dump(_sample(sample), file, ensure_ascii=False)
        file.write("\n]}\n")
    text = json.dumps(_dataset(name, {_MADE_BY: dict(info)}), indent=1, ensure_ascii=False)
    (folder / "metadata.json").write_text(text + "\n", encoding="utf-8")
    (folder / "brain").mkdir()
    results = {"cls": f"{_SKLEARN}Index"}  # it reads the embeddings from the samples
    (folder / "brain" / f"{SIMILARITY}.json").write_text(json.dumps(results) + "\n")
    return n


def _sample(sample: FiftyOneSample) -> dict[str, Any]:
    """The document of a sample."""
    digest = hashlib.sha256(sample.image_id.encode()).digest()
    truth = None if sample.ground_truth is None else {one.concept for one in sample.ground_truth}
    found = {one.concept for one in sample.predictions}
    return {
        "_id": {"$oid": digest[:12].hex()},
        "filepath": sample.filepath,
        "tags": list(sample.tags),
        "metadata": None,
        "_media_type": "image",
        "_rand": int.from_bytes(digest[12:18], "big") / 2**48,
        "image_id": sample.image_id,
        "group_id": sample.group or None,
        GROUND_TRUTH: None
        if sample.ground_truth is None
        else _labels(sample.image_id, GROUND_TRUTH, sample.ground_truth, found, "fn"),
        PREDICTIONS: _labels(sample.image_id, PREDICTIONS, sample.predictions, truth, "fp"),
        "f1": sample.f1,
        "expected_f1": sample.expected_f1,
        "familiarity": sample.familiarity,
        EMBEDDING: _vector(sample.embedding),
    }


def _labels(
    image_id: str, field: str, labels: Sequence[Label], others: set[str] | None, lone: str
) -> dict[str, Any]:
    """The document of labels; each says whether it is among the others, if these are known."""
    return {
        "_cls": "Classifications",
        "classifications": [
            {
                "_id": {"$oid": _object_id(image_id, field, one.concept)},
                "_cls": "Classification",
                "tags": [],
                "label": one.label,
                "confidence": one.confidence,
                "cui": one.concept,
                "score": one.score,
                "eval": None if others is None else "tp" if one.concept in others else lone,
            }
            for one in labels
        ],
    }


def _object_id(*parts: str) -> str:
    """An id of MongoDB (12 bytes), always the same for the same parts."""
    return hashlib.sha256("\0".join(parts).encode()).digest()[:12].hex()


def _vector(vector: NDArray[np.float32]) -> dict[str, Any]:
    """A value of a `VectorField`: an .npy file, deflated."""
    file = io.BytesIO()
    np.save(file, np.asarray(vector, np.float32), allow_pickle=False)
    text = base64.b64encode(zlib.compress(file.getvalue(), 1)).decode()
    return {"$binary": {"base64": text, "subType": "00"}}


def _dataset(name: str, info: Mapping[str, Any]) -> dict[str, Any]:
    """The document of the dataset."""
    of_similarity = {
        "key": SIMILARITY,
        "version": VERSION,
        "timestamp": _MADE,
        "config": {
            "cls": f"{_SKLEARN}Config",
            "type": "similarity",
            "method": "sklearn",
            "embeddings_field": EMBEDDING,
            "model": None,
            "patches_field": None,
            "supports_prompts": False,
            "metric": "cosine",
        },
        "results": None,
    }
    return {
        "name": name,
        "slug": None,
        "version": VERSION,
        "created_at": _MADE,
        "last_modified_at": _MADE,
        "last_loaded_at": _MADE,
        "sample_collection_name": None,
        "persistent": False,
        "media_type": "image",
        "group_media_types": {},
        "tags": [],
        "info": dict(info),
        "app_config": {},
        "classes": {},
        "default_classes": [],
        "mask_targets": {},
        "default_mask_targets": {},
        "skeletons": {},
        "sample_fields": _fields(),
        "frame_fields": [],
        "saved_views": [],
        "workspaces": [],
        "annotation_runs": {},
        "brain_methods": {SIMILARITY: of_similarity},
        "evaluations": {},
        "runs": {},
    }


def _fields() -> list[dict[str, Any]]:
    """The fields of a sample: those that FiftyOne has by default, and ours."""
    sizes = [_field(name, "Int") for name in ("size_bytes", "width", "height", "num_channels")]
    return [
        _field("id", "ObjectId", db_field="_id"),
        _field("filepath", "String"),
        _field("tags", "List", subfield="String"),
        _field(
            "metadata",
            "EmbeddedDocument",
            document="fiftyone.core.metadata.ImageMetadata",
            fields=[*sizes, _field("mime_type", "String")],
        ),
        _field("created_at", "DateTime", read_only=True),
        _field("last_modified_at", "DateTime", read_only=True),
        _field("_media_type", "String"),
        _field("_rand", "Float"),
        _field("_dataset_id", "ObjectId"),
        _field("image_id", "String", "Id of the image"),
        _field("group_id", "String", "Patient or study of the image"),
        _labels_field(GROUND_TRUTH, "Known concepts"),
        _labels_field(PREDICTIONS, "Concepts by the vote of the most similar labelled images"),
        _field("f1", "Float", "F1 of the predictions against the ground truth"),
        _field("expected_f1", "Float", "F1 that the predictions are expected to have"),
        _field("familiarity", "Float", "How like the images of the index: near 0, it is unlike"),
        _field(EMBEDDING, "Vector", "Vector of the image in the index, of unit norm"),
    ]


def _labels_field(name: str, description: str) -> dict[str, Any]:
    label = [
        _field("id", "ObjectId", db_field="_id"),
        _field("tags", "List", subfield="String"),
        _field("label", "String"),
        _field("confidence", "Float"),
        _field("logits", "Vector"),
        _field("cui", "String", "Id of the concept"),
        _field("score", "Float", "Share of the votes"),
        _field("eval", "String", "tp, fp or fn, where both are known"),
    ]
    labels = "fiftyone.core.labels.Classification"
    return _field(
        name,
        "EmbeddedDocument",
        description,
        document=f"{labels}s",
        fields=[
            _field(
                "classifications",
                "List",
                subfield="EmbeddedDocument",
                document=labels,
                fields=label,
            ),
            _field("logits", "Vector"),
        ],
    )


def _field(
    name: str,
    kind: str,
    description: str | None = None,
    *,
    db_field: str | None = None,
    subfield: str | None = None,
    document: str | None = None,
    fields: Sequence[Mapping[str, Any]] = (),
    read_only: bool = False,
) -> dict[str, Any]:
    """The document of a field."""
    return {
        "name": name,
        "ftype": f"{_FIELDS}{kind}Field",
        "embedded_doc_type": document,
        "subfield": f"{_FIELDS}{subfield}Field" if subfield else None,
        "fields": list(fields),
        "db_field": db_field or name,
        "description": description,
        "info": None,
        "read_only": read_only,
        "created_at": _MADE,
    }
