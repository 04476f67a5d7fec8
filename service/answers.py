"""Annotations as responses: JSON, or a run file."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from annotator.errors import FormatError
from annotator.ids import image_id
from annotator.images.notes import NOTES, Note
from annotator.tables.run import render_run
from service.engine import Engine
from service.observability import STAGES
from service.problems import Problem
from service.uploads import Upload

if TYPE_CHECKING:
    from annotator.annotation import Annotation

T = TypeVar("T")

#: Annotation and seconds in each stage.
Annotated = tuple["Annotation", Mapping[str, float]]
Outcome = Annotated | Problem


@dataclass(frozen=True)
class _OfImages(Generic[T]):
    """What came of each of a request's images, or the problem of it, with their ids and engine."""

    engine: Engine
    ids: Sequence[str]
    outcomes: Sequence[T | Problem]

    @property
    def failed(self) -> int:
        """Number of unusable images."""
        return sum(isinstance(outcome, Problem) for outcome in self.outcomes)

    def raise_if_alone(self) -> None:
        """Raise the problem of the only image of a request."""
        if len(self.outcomes) == 1 and isinstance(self.outcomes[0], Problem):
            raise self.outcomes[0]


class Answer(_OfImages[Annotated]):
    """The annotations of a request's images."""

    def to_dict(self, listed: int, total_seconds: float) -> dict[str, Any]:
        """The answer as `schemas.AnnotateOut`, with at most `listed` neighbours of each image."""
        results = [
            self._result(id_, outcome, listed)
            for id_, outcome in zip(self.ids, self.outcomes, strict=True)
        ]
        cuis = [c["cui"] for result in results for c in result["concepts"] + result["considered"]]
        cuis += [
            cui
            for result in results
            for n in result["neighbors"]
            for cui in n["cuis"] + n["inferred"]
        ]
        return {
            "index_version": self.engine.stored.version,
            "model": describe_model(self.engine),
            "results": results,
            "names": names_of(self.engine, cuis),
            "timings": self._timings(total_seconds),
        }

    def to_run(self) -> str:
        """The answer in the 2026 run format; an unusable image has a row without CUIs.

        Raises:
            Problem: 422, the ids or CUIs cannot stand in a run.
        """
        return _render_run(
            (id_, () if isinstance(outcome, Problem) else outcome[0].cuis)
            for id_, outcome in zip(self.ids, self.outcomes, strict=True)
        )

    def _result(self, id_: str, outcome: Outcome, listed: int) -> dict[str, Any]:
        if isinstance(outcome, Problem):
            return {
                "id": id_,
                "concepts": [],
                "considered": [],
                "expected_f1": None,
                "unfamiliar": False,
                "familiarity": None,
                "same_image": None,
                "neighbors": [],
                "notes": [],
                "error": outcome.to_dict(),
            }
        annotation = replace(outcome[0], image_id=id_, neighbors=outcome[0].neighbors[:listed])
        fields = annotation.to_dict(self.engine.stored.names, explain=True)
        for neighbor in fields["neighbors"]:
            neighbor["thumbnail"] = picture_path(self.engine, neighbor["id"])
        fields["notes"] = describe_notes(outcome[0].notes)
        return {**fields, "unfamiliar": outcome[0].is_unfamiliar, "error": None}

    def _timings(self, total_seconds: float) -> dict[str, float]:
        seconds = [outcome[1] for outcome in self.outcomes if not isinstance(outcome, Problem)]
        longest = {s: max((each[s] for each in seconds), default=0.0) for s in STAGES}
        longest["total"] = total_seconds
        return {f"{stage}_ms": round(value * 1000, 3) for stage, value in longest.items()}


class Embedding(_OfImages[tuple[NDArray[np.float32], tuple[Note, ...]]]):
    """The vectors of a request's images, with notes on their pictures."""

    def to_dict(self, encoding: Literal["float", "base64"]) -> dict[str, Any]:
        """The answer as `schemas.EmbedOut`."""
        vectors: list[list[float] | str | None] = []
        for outcome in self.outcomes:
            if isinstance(outcome, Problem):
                vectors.append(None)
            elif encoding == "float":
                vectors.append(outcome[0].tolist())
            else:
                vectors.append(base64.b64encode(outcome[0].astype("<f4").tobytes()).decode())
        return {
            "model": describe_model(self.engine),
            "dim": self.engine.annotator.embedder.dim,
            "ids": list(self.ids),
            "vectors": vectors,
            "notes": [
                [] if isinstance(outcome, Problem) else describe_notes(outcome[1])
                for outcome in self.outcomes
            ],
            "errors": [
                outcome.to_dict() if isinstance(outcome, Problem) else None
                for outcome in self.outcomes
            ],
        }

    def to_npy(self) -> bytes:
        """The vectors as an .npy file, float32[n, dim]; rows of unusable images are nan."""
        nothing = np.full(self.engine.annotator.embedder.dim, np.nan, np.float32)
        rows = [nothing if isinstance(o, Problem) else o[0] for o in self.outcomes]
        file = io.BytesIO()
        np.save(file, np.stack(rows), allow_pickle=False)
        return file.getvalue()


def describe_notes(notes: Iterable[Note]) -> list[dict[str, str]]:
    """Notes as `schemas.NoteOut`."""
    return [{"code": note, "detail": NOTES[note]} for note in notes]


def picture_path(engine: Engine, image_id: str) -> str | None:
    """URL path of the thumbnail of a stored image, if the index has thumbnails."""
    if not engine.stored.has_thumbnails:
        return None
    return f"/v1/neighbors/{quote(image_id, safe='')}/image"


def names_of(engine: Engine, cuis: Iterable[str]) -> dict[str, str]:
    """The known names of concepts."""
    names = engine.stored.names
    return {cui: names[cui] for cui in sorted(set(cuis)) if cui in names}


def describe_model(engine: Engine) -> dict[str, str]:
    """The encoder as `schemas.ModelOut`."""
    embedder = engine.annotator.embedder
    return {"name": embedder.name, "fingerprint": embedder.fingerprint.digest}


def image_ids(uploads: Sequence[Upload]) -> list[str]:
    """Ids of uploads: file names without extension, else image-1, image-2, …"""
    names = [image_id(upload.filename.replace("\\", "/")) for upload in uploads]
    return [name or f"image-{number}" for number, name in enumerate(names, 1)]


def check_run_ids(ids: Sequence[str]) -> None:
    """Raise Problem 422 for ids that a run file cannot hold."""
    _render_run((id_, ()) for id_ in ids)


def _render_run(rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    try:
        return render_run(rows, "2026")
    except FormatError as error:
        detail = f"There can be no run of this: {error.message}."
        raise Problem(422, "not_a_run", detail, error.hint) from None


def prefers(accept: str, media_type: str) -> bool:
    """Whether an Accept header prefers a media type to JSON (RFC 9110, section 12.5.1)."""
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        accepted, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            weights[accepted] = float(weight)
        except ValueError:
            weights[accepted] = 0.0
    return weights.get(media_type, 0.0) > weights.get("application/json", 0.0)
