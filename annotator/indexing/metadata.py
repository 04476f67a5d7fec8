"""Build metadata in the manifest of an index, and the facts shown by `info`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.fingerprint import Fingerprint
from annotator.encoders.fitted import Fitted
from annotator.encoders.preprocess import DECODER_VERSION
from annotator.errors import AnnotatorError
from annotator.knn.calibration import Calibration
from annotator.knn.guarantees import Cost
from annotator.knn.voting import Voting
from annotator.vectors.encoder import VectorEncoder
from index.protocols import Index, IndexLocation

if TYPE_CHECKING:
    from annotator.encoders.embedder import Embedder
    from annotator.encoders.torch_setup import Device, Engine, Precision
    from annotator.images.frames import Frames
    from annotator.vectors.table import VectorTable

# Fitting again pays when it brings much that is new (docs/fitting.md).
_MANY_LATER = 0.25  # of the images that were fitted to
_ESTIMATE = ("f1", "interval", "predicted", "predicted_images", "images", "groups")
_INCOMPLETE = (
    "assumed incomplete: neighbours fill them in for the vote; estimate, calibration and "
    "guarantees are measured against those that were given, so that they are too low"
)
_FREQUENT = 20  # images of a concept that the heads do not know


@dataclass(frozen=True)
class IndexMetadata:
    """Encoder, fit and voting parameters of an index: "about" in its manifest, validated.

    Attributes:
        encoder: Name of the encoder.
        fingerprint: Fingerprint of the encoder.
        voting: Default voting parameters.
        adaptation: Selection of the projection, "penalty" and "f1_by_penalty"; None without one.
        tuning: Result of tuning `voting`, as `Tuned.to_dict`; None if it was not tuned.
        calibration: Of `voting`; None if there were too few images, or an earlier version built it.
        guarantees: What guarantees cost with `voting`; empty if it was not tuned, or an earlier
            version did.
        outlier_factors: Quantiles of the outlier factor of the index's own images, ascending
            (`annotator.knn.familiarity`); None if the index was not tuned, or an earlier version
            built it.
        new_source: What to expect of a new source with `voting`, as `NewSource.to_dict`; None if it
            was not asked.
        corrections: Number of the last correction of labels before the index was built or tuned.
        engine: What ran the encoder when the index was built; None if an earlier version built it,
            or its vectors were given.
        nearest: float64[m], ascending: quantiles of the similarity of an image to its nearest case
            of another patient; None if the index was not tuned.

    Raises:
        AnnotatorError: A field has a wrong type.
    """

    encoder: str
    fingerprint: Fingerprint
    voting: Voting
    adaptation: Mapping[str, Any] | None = None
    tuning: Mapping[str, Any] | None = None
    calibration: Calibration | None = None
    guarantees: Sequence[Cost] = ()
    outlier_factors: tuple[float, ...] | None = None
    new_source: Mapping[str, Any] | None = None
    corrections: int = 0
    engine: str | None = None
    nearest: NDArray[np.float64] | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        texts = (self.encoder, self.fingerprint.precision, self.fingerprint.frames)
        if not all(isinstance(text, str) for text in texts):
            raise _not_recorded("encoder")
        for name in ("adaptation", "tuning", "new_source"):
            if not isinstance(getattr(self, name), Mapping | None):
                raise _not_recorded(name.replace("_", " "))
        object.__setattr__(self, "nearest", _quantiles((self.tuning or {}).get("nearest")))

    @classmethod
    def of(cls, stored: Index) -> IndexMetadata:
        """Read the metadata of an open index.

        Raises:
            AnnotatorError: A field is missing or has a wrong type.
        """
        about = stored.manifest.about
        try:
            encoder = about["embedder"]["name"]
            fingerprint = Fingerprint.from_dict(about["embedder"]["fingerprint"])
        except (KeyError, TypeError, ValueError) as error:
            raise _not_recorded("encoder") from error
        try:
            voting = Voting(**about["voting"])
        except (KeyError, TypeError, ValueError) as error:
            raise _not_recorded("voting parameters") from error
        try:
            fields = about.get("calibration")
            calibration = None if fields is None else Calibration.from_dict(fields)
        except (KeyError, TypeError, ValueError) as error:
            raise _not_recorded("calibration") from error
        try:
            guarantees = tuple(Cost(**cost) for cost in about.get("guarantees") or ())
        except TypeError as error:
            raise _not_recorded("guarantees") from error
        adaptation, tuning = about.get("adaptation"), about.get("tuning")
        quantiles = _quantiles(about.get("outlier_factors"))
        outlier_factors = None if quantiles is None else tuple(quantiles.tolist())
        return cls(
            encoder,
            fingerprint,
            voting,
            adaptation,
            tuning,
            calibration,
            guarantees,
            outlier_factors,
            about.get("new_source"),
            _count(about.get("corrections", 0)),
            about["embedder"].get("engine"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for the manifest."""
        engine = {} if self.engine is None else {"engine": self.engine}
        embedder = {"name": self.encoder, "fingerprint": self.fingerprint.to_dict(), **engine}
        return {
            "embedder": embedder,
            "adaptation": self.adaptation,
            "voting": asdict(self.voting),
            "tuning": self.tuning,
            "calibration": self.calibration and self.calibration.to_dict(),
            "guarantees": [cost.to_dict() for cost in self.guarantees],
            "outlier_factors": self.outlier_factors and list(self.outlier_factors),
            "new_source": self.new_source,
            **({"corrections": self.corrections} if self.corrections else {}),
        }

    @property
    def knows_familiarity(self) -> bool:
        """Whether it is known how near the index's own images are to others."""
        return self.outlier_factors is not None or self.nearest is not None

    def make_embedder(
        self,
        *,
        name: str | None = None,
        device: Device = "auto",
        precision: Precision | None = None,
        engine: Engine = "auto",
    ) -> Embedder:
        """Load the encoder; `name` and `precision` override the recorded values.

        What OpenVINO has kept of the recorded encoder needs no torch. An encoder of the user's
        takes no images: it only says whose vectors are in the index.

        Raises:
            AnnotatorError: It cannot be loaded.
        """
        if self.fingerprint.is_own:
            return VectorEncoder.own(self.encoder, self.fingerprint.dim)
        from annotator.encoders.registry import make_embedder

        return make_embedder(
            name or self.encoder,
            device=device,
            precision=precision or self.fingerprint.asked_precision,
            frames=cast("Frames", self.fingerprint.frames),
            engine=engine,
            recorded=self.fingerprint if name is None and precision is None else None,
        )

    def encoder_of(self, vectors: VectorTable) -> VectorEncoder:
        """The encoder of vectors that are to be searched or added.

        Vectors whose encoder is not known are taken for those of an index of the user's vectors, if
        their length is right, but not for those of an encoder of ours.

        Raises:
            AnnotatorError: It is not the index's.
        """
        encoder = vectors.encoder
        if encoder is None and self.fingerprint.is_own:
            encoder = VectorEncoder.own(self.encoder, vectors.dim)
        elif encoder is None or (encoder.fingerprint.is_own and not self.fingerprint.is_own):
            raise AnnotatorError(
                f"The index has vectors of the encoder {self.encoder}, and {vectors.source} does "
                "not say that it has the same.",
                "Write them with `annotator embed IMAGES --index INDEX --out FILE`, which records "
                "the encoder; vectors of another one need an index of their own.",
            )
        self.check_encoder(encoder)
        return encoder

    def check_encoder(self, embedder: Embedder) -> None:
        """Check that vectors of an encoder are comparable with those of the index.

        Raises:
            AnnotatorError: The fingerprints differ; the message names the differences.
        """
        differences = embedder.fingerprint.differences(self.fingerprint)
        if differences and (self.fingerprint.is_own or embedder.fingerprint.is_own):
            raise AnnotatorError(
                f"The index holds vectors of {self.encoder!r} of length {self.fingerprint.dim}, "
                f"not of {embedder.name!r} of length {embedder.dim}.",
                "Give vectors of the encoder that the index was built with, or build another "
                "index (annotator build-index --vectors FILE CONCEPTS).",
            )
        if differences and all(line.startswith("preprocess.decoder:") for line in differences):
            theirs = self.fingerprint.preprocess.get("decoder")
            raise AnnotatorError(
                f"The index was built from images as decoded by version {theirs} of the decoder; "
                f"version {DECODER_VERSION} decodes some of them to other pixels.",
                "Build the index again: annotator build-index IMAGES CONCEPTS.",
            )
        if differences:
            raise AnnotatorError(
                "The index was built with another encoder or other settings than "
                f"{embedder.name}: {'; '.join(differences)}.",
                "Leave out --embedder, --precision and --frames to use what the index records, "
                "or build the index again.",
            )


def describe(stored: Index, place: IndexLocation) -> dict[str, Any]:
    """Describe an index for `annotator info`, as plain JSON types.

    Raises:
        AnnotatorError: The index has no build metadata.
    """
    manifest, concepts = stored.manifest, stored.concepts
    metadata = IndexMetadata.of(stored)
    top = sorted(concepts.items(), key=lambda concept: (-concept[1], concept[0]))[:10]
    fitted = Fitted.from_arrays(stored.arrays)
    return {
        "index": str(place),
        "version": stored.version,
        "images": len(stored),
        "concepts": len(concepts),
        "concepts_per_image": round(sum(concepts.values()) / len(stored), 3),
        "index_type": manifest.index_type,
        "search": dict(manifest.search),
        "added": sum(segment.rows for segment in manifest.segments),
        "removed": manifest.removed,
        "dim": manifest.dim,
        "bytes": sum(file.bytes for file in manifest.files.values()),
        "embedder": metadata.encoder,
        "vector_length": metadata.fingerprint.dim,
        "own_vectors": metadata.fingerprint.is_own,
        "fingerprint": metadata.fingerprint.digest,
        "precision": metadata.fingerprint.precision,
        "engine": metadata.engine,
        "voting": asdict(metadata.voting),
        "estimate": metadata.tuning
        and {name: metadata.tuning[name] for name in _ESTIMATE if name in metadata.tuning},
        "new_source": metadata.new_source,
        **({"labels": _INCOMPLETE} if metadata.voting.assume_incomplete else {}),
        "calibration": _calibrated(metadata.calibration),
        "guarantees": [cost.to_dict() for cost in metadata.guarantees],
        **({} if fitted is None else {"fit": _since_fit(stored, metadata, fitted)}),
        **_corrected(metadata, place),
        "columns": sorted(manifest.columns),
        "most_frequent": [
            {"cui": cui, "name": stored.names.get(cui, ""), "images": images} for cui, images in top
        ],
        "written_by": manifest.libraries,
    }


def _calibrated(calibration: Calibration | None) -> str:
    if calibration is None:
        return "none: expected F1 and scores are those of the vote (build again, or annotator tune)"
    return f"on {calibration.images:,} images, each annotated by those of others"


def _since_fit(stored: Index, metadata: IndexMetadata, fitted: Fitted) -> dict[str, Any]:
    """What has come to an index since its encoder was fitted, and whether to fit again."""
    built_with = (metadata.adaptation or {}).get("after_fit", 0)
    later = built_with + sum(segment.rows for segment in stored.manifest.segments)
    known = set(fitted.concepts)
    new = [cui for cui, n in stored.concepts.items() if n >= _FREQUENT and cui not in known]
    again = later > _MANY_LATER * len(fitted.folds) or bool(new)
    return {
        "images fitted to": len(fitted.folds),
        "images after the fit": later,
        f"concepts after the fit with {_FREQUENT} images or more": len(new),
        "fit again": "worth it" if again else "not yet",
    }


def _corrected(metadata: IndexMetadata, place: IndexLocation) -> dict[str, Any]:
    """How many corrections of labels there were, and how many after the last tuning."""
    history = place.history()
    later = sum(one.number > metadata.corrections for one in history)
    return {"corrections": {"in all": len(history), "after tuning": later}} if history else {}


def _count(recorded: object) -> int:
    if not isinstance(recorded, int) or recorded < 0:
        raise _not_recorded("corrections")
    return recorded


def _quantiles(recorded: object) -> NDArray[np.float64] | None:
    if recorded is None:  # written by an earlier version
        return None
    try:
        quantiles = np.asarray(recorded, np.float64)
    except (TypeError, ValueError) as error:
        raise _not_recorded("familiarity") from error
    if quantiles.ndim != 1 or len(quantiles) < 2 or not np.all(np.diff(quantiles) >= 0):
        raise _not_recorded("familiarity")
    return quantiles


def _not_recorded(what: str) -> AnnotatorError:
    return AnnotatorError(
        f"The index does not say with which {what} it was built.",
        "`annotator build-index` did not write it, or another version did: build it again.",
    )
