"""Vectors that clients send instead of images: JSON, or an .npy file.

Parquet and archives are not taken: what they inflate to cannot be bounded before it is read.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from starlette.requests import Request

from annotator.errors import FormatError, ImageError
from service.admission import Ticket
from service.engine import Engine
from service.observability import STAGES
from service.problems import Problem, unusable_image
from service.schemas import VectorsIn
from service.settings import Settings
from service.uploads import body_chunks, content_type_of

if TYPE_CHECKING:
    from annotator.annotation import Annotation
    from annotator.images.notes import Note
    from service.answers import Outcome

NPY = "application/x-npy"

# Numbers, lists and objects in a JSON body beside those of the vectors, for each vector and in all:
# what it inflates to is bounded before it is parsed.
_BESIDE_EACH, _BESIDE = 32, 1024


class Model(NamedTuple):
    """What a client says of the encoder of its vectors."""

    name: str | None
    fingerprint: str | None


@dataclass(frozen=True)
class Sent:
    """The vectors of a request, with an id of each.

    Attributes:
        ids: Of the n vectors.
        units: Of each, float32[dim] of unit norm, or None if it is zero or not finite; and whether
            it was scaled.
    """

    ids: Sequence[str]
    units: Sequence[tuple[NDArray[np.float32] | None, bool]]

    @classmethod
    def of(cls, ids: Sequence[str], rows: NDArray[np.floating[Any]]) -> Sent:
        """Rows [n, dim] of any norm."""
        from annotator.vectors.table import to_units

        return cls(ids, to_units(rows))

    @property
    def usable(self) -> list[NDArray[np.float32]]:
        """Those that can be annotated."""
        return [unit for unit, _ in self.units if unit is not None]

    def outcomes(
        self, annotations: Sequence[Annotation], seconds: Mapping[str, float]
    ) -> list[Outcome]:
        """What came of each; a vector that is zero or not finite becomes a problem.

        Args:
            annotations: Of the usable ones.
            seconds: That these took, by stage.
        """
        from annotator.vectors.table import NO_DIRECTION

        taken = dict.fromkeys(STAGES, 0.0) | dict(seconds)
        outcomes: list[Outcome] = []
        rest = iter(annotations)
        for unit, scaled in self.units:
            if unit is None:
                outcomes.append(unusable_image(ImageError(*NO_DIRECTION, "no_vector")))
            else:
                notes: tuple[Note, ...] = ("vector_scaled",) if scaled else ()
                outcomes.append((replace(next(rest), notes=notes), taken))
        return outcomes


async def read_sent(
    request: Request, settings: Settings, ticket: Ticket, engine: Engine, named: Model
) -> Sent:
    """Read the vectors of a request, and check that they are of the index's encoder.

    Args:
        request: The request.
        settings: Its limits.
        ticket: Its share of the service.
        engine: Will annotate them.
        named: What the query says of their encoder; the body comes first.

    Raises:
        Problem: As `body_chunks`; 400 not to be read, 409 of another encoder, 413 too many, 415
            neither JSON nor .npy, 422 of a wrong form or length.
    """
    content_type, _ = content_type_of(request.headers)
    if content_type not in ("application/json", NPY):
        raise Problem(
            415,
            "unsupported_media_type",
            "The Content-Type is none that holds vectors.",
            f"Send application/json, or an .npy file as {NPY}.",
        )
    async with body_chunks(request, settings, ticket) as body:
        data = b"".join([chunk async for chunk in body])
    read = _from_json if content_type == "application/json" else _from_npy
    sent = await asyncio.to_thread(read, data, settings.images_per_request, engine, named)
    ticket.hold(images=len(sent.ids))
    return sent


def _check_model(model: Model, engine: Engine) -> None:
    """Refuse vectors of another encoder than the index's."""
    embedder = engine.annotator.embedder
    if model.fingerprint is not None:
        same = model.fingerprint == embedder.fingerprint.digest
    elif model.name is None:
        hint = "Give `model`, as POST /v1/embed does, or the query `fingerprint` or `name`."
        raise Problem(422, "no_model", "The vectors do not say which encoder made them.", hint)
    elif engine.takes_images:
        raise Problem(
            409,
            "other_encoder",
            "A name does not tell which weights and settings the vectors were made with.",
            "Give the fingerprint of their encoder, as POST /v1/embed and `annotator embed` do.",
        )
    else:
        same = model.name == embedder.name
    if not same:
        raise Problem(
            409,
            "other_encoder",
            "The vectors are of another encoder, or of other settings, than the index.",
            "GET /v1/info has the name and the fingerprint of the index's encoder.",
        )


def _from_npy(data: bytes, most: int, engine: Engine, named: Model) -> Sent:
    from annotator.vectors.formats import array_of

    try:
        rows = array_of(data, "The body")
    except FormatError as error:
        raise Problem(400, "malformed_vectors", f"{error.message}.", error.hint) from None
    _check_number(len(rows), most)
    _check_model(named, engine)
    _check_length(rows.shape[1], engine, 1)
    return Sent.of(_numbered(len(rows)), rows)


def _from_json(data: bytes, most: int, engine: Engine, named: Model) -> Sent:
    dim = engine.annotator.embedder.dim
    values, nested = data.count(b","), data.count(b"[") + data.count(b"{")
    if values > most * (dim + _BESIDE_EACH) + _BESIDE or nested > most * _BESIDE_EACH + _BESIDE:
        raise _too_many(most, dim)
    try:
        body = VectorsIn.model_validate_json(data)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        raise Problem(
            422, "malformed_vectors", "; ".join(map(in_words, faults[:3]))[:1000] + ".",
            "See /openapi.json.",
        ) from None  # fmt: skip
    _check_number(len(body.vectors), most)
    said = body.model
    _check_model(Model(said.name or named.name, said.fingerprint or named.fingerprint), engine)
    if body.ids is not None and len(body.ids) != len(body.vectors):
        detail = f"There are {len(body.ids)} ids and {len(body.vectors)} vectors."
        raise Problem(422, "malformed_vectors", detail, "Give one id for each vector.")
    rows = np.full((len(body.vectors), dim), np.nan)
    for row, vector in enumerate(body.vectors):
        if vector is not None:
            values_of_row = _floats(vector, row) if isinstance(vector, str) else vector
            _check_length(len(values_of_row), engine, row + 1)
            rows[row] = values_of_row
    return Sent.of(body.ids or _numbered(len(rows)), rows)


def _floats(text: str, row: int) -> NDArray[np.float32]:
    """A vector in base64."""
    try:
        data = base64.b64decode(text, validate=True)
        return np.frombuffer(data, "<f4")
    except (binascii.Error, ValueError):
        raise Problem(
            422,
            "malformed_vectors",
            f"Vector {row + 1} is no base64 of float32.",
            "base64.b64encode(vector.astype('<f4').tobytes())",
        ) from None


def in_words(fault: Any) -> str:
    """What pydantic found wrong, and where."""
    return f"{'.'.join(map(str, fault['loc'][:3])) or 'body'}: {fault['msg']}"


def _numbered(n: int) -> list[str]:
    return [f"vector-{number}" for number in range(1, n + 1)]


def _check_number(n: int, most: int) -> None:
    if n > most:
        raise _too_many(most, None)


def _too_many(most: int, dim: int | None) -> Problem:
    of = "" if dim is None else f" of length {dim}"
    return Problem(
        413,
        "too_many_images",
        f"A request holds at most {most} vectors{of}.",
        "Send the rest in further requests.",
    )


def _check_length(length: int, engine: Engine, number: int) -> None:
    dim = engine.annotator.embedder.dim
    if length != dim:
        raise Problem(
            422,
            "wrong_length",
            f"Vector {number} has length {length}, those of the index's encoder have {dim}.",
            "Send vectors of that encoder, before any projection.",
        )
