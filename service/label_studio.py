"""The machine learning back end of a Label Studio.

Its protocol (labelstud.io/guide: "Write your own ML backend") has /health and /setup, which it asks
to see whether the back end is there, /predict, which it sends tasks, and /webhook, which it tells
what people did. Tasks get the concepts of their images; annotations are corrections, and images
that the index does not have are added to it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from annotator.errors import FormatError, ImageError
from annotator.ids import has_controls, image_id
from service.engine import Engine
from service.images import caller, json_body, new_row, writable
from service.keys import LABEL_STUDIO
from service.label_studio_host import LabelStudioHost
from service.observability import log
from service.problems import Problem
from service.routes import TheService
from service.service import Fetched, Service

if TYPE_CHECKING:
    from annotator.tables.label_studio import Answer, Offer

#: Not in the OpenAPI document: the protocol is Label Studio's.
label_studio = APIRouter(prefix=LABEL_STUDIO, include_in_schema=False)

_MOST_JSON = 16 << 20  # bytes of a body: thousands of tasks
_AT_ONCE = 8  # images that are fetched and annotated before others
_ANNOTATED = {"ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED"}


@label_studio.get("/health")
async def health() -> dict[str, str]:
    """Whether the back end is there."""
    return {"status": "UP", "model_class": "annotator"}


@label_studio.post("/setup")
async def setup(request: Request, service: TheService) -> dict[str, str]:
    """The version that predictions have. The token that comes with the question is not used."""
    await json_body(request, service, _MOST_JSON)
    return {"model_version": _version(service.engine)}


@label_studio.get("/versions")
async def versions(service: TheService) -> dict[str, list[str]]:
    """The versions that there are: the served one."""
    return {"versions": [_version(service.engine)]}


@label_studio.post("/predict")
async def predict(request: Request, service: TheService) -> JSONResponse:
    """The concepts of tasks, as predictions; none for an image that cannot be used."""
    from annotator.tables.label_studio import read_configuration

    body = await _body(request, service)
    tasks = body.get("tasks")
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise Problem(422, "malformed_tasks", "The body has no list of tasks.", "Send `tasks`.")
    try:
        offer = await asyncio.to_thread(read_configuration, str(body.get("label_config") or ""))
    except FormatError as error:
        raise Problem(422, "unusable_configuration", f"{error.message}.", error.hint) from None
    chosen = await asyncio.to_thread(_choices, offer, service.engine)
    results: list[list[dict[str, Any]]] = [[] for _ in tasks]
    end = time.monotonic() + service.settings.timeout_s
    at_once = min(_AT_ONCE, service.settings.images_per_request)
    for start in range(0, len(tasks), at_once):
        if time.monotonic() > end:
            log(logging.WARNING, "tasks without predictions: no time", tasks=len(tasks) - start)
            break
        part = tasks[start : start + at_once]
        results[start : start + at_once] = await _predictions(request, service, part, offer, chosen)
    return JSONResponse({"results": results, "model_version": _version(service.engine)})


async def _predictions(
    request: Request,
    service: Service,
    tasks: Sequence[Mapping[str, Any]],
    offer: Offer,
    chosen: Mapping[str, str],
) -> list[list[dict[str, Any]]]:
    """At most one prediction of each task."""
    from annotator.tables.label_studio import prediction

    host = _host(request)
    images = []
    for task in tasks:
        data = task.get("data")
        address = data.get(offer.field) if isinstance(data, dict) else None
        images.append(Fetched("", partial(_fetch, host, address)))
    answer = await service.annotate_fetched(request, images, {"exclude_self": True})
    model = _version(answer.engine)
    results: list[list[dict[str, Any]]] = []
    for task, outcome in zip(tasks, answer.outcomes, strict=True):
        if isinstance(outcome, Problem):
            log(
                logging.WARNING,
                "a task without a prediction",
                task=task.get("id"),
                code=outcome.code,
                reason=outcome.detail,
            )
            results.append([])
            continue
        annotation = outcome[0]
        written = [chosen[cui] for cui in annotation.cuis if cui in chosen]
        results.append(
            [
                prediction(
                    written if offer.several else written[:1],
                    score=round(annotation.expected_f1, 4),
                    model=model,
                    control=offer.control,
                    image=offer.image,
                )
            ]
        )
    return results


@label_studio.post("/webhook")
async def webhook(request: Request, service: TheService) -> dict[str, Any]:
    """Take the labels of an annotation that was made or changed; all else is passed over.

    An answer means that they are on disk, and that the next request sees them.
    """
    writable(service)
    body = await _body(request, service)
    if body.get("action") not in _ANNOTATED:
        return {"status": "ignored"}
    annotations, tasks = body.get("annotation"), body.get("task")
    pairs = list(
        zip(
            annotations if isinstance(annotations, list) else [annotations],
            tasks if isinstance(tasks, list) else [tasks],
            strict=False,
        )
    )
    if not all(isinstance(one, dict) for pair in pairs for one in pair):
        raise Problem(
            422,
            "malformed_annotation",
            "The body has no annotation with its task.",
            "Let the webhook send its payload.",
        )
    project = body.get("project")
    text = project.get("label_config") if isinstance(project, dict) else None
    done = {"changed": 0, "added": 0, "unchanged": 0, "skipped": 0}
    for annotation, task in pairs:
        done[await _correct(request, service, annotation, task, text)] += 1
    return {"status": "ok", **done}


class _Correction(NamedTuple):
    """What an annotation says.

    Attributes:
        image: Path or id of the image.
        concepts: All that were chosen.
        names: Of those that are words.
        offered: All that could be chosen; None if that is not known.
    """

    image: str
    concepts: tuple[str, ...]
    names: Mapping[str, str]
    offered: frozenset[str] | None


async def _correct(
    request: Request,
    service: Service,
    annotation: Mapping[str, Any],
    task: Mapping[str, Any],
    configuration: object,
) -> str:
    """Correct the image of a task, or add it; says what was done."""
    corrections = writable(service)
    said = await asyncio.to_thread(_read, service.engine, annotation, task, configuration)
    if said is None:
        return "skipped"
    numbers = {"project": annotation.get("project"), "task": task.get("id")}
    numbers["annotation"] = annotation.get("id")
    reason = "Label Studio: " + ", ".join(f"{k} {v}" for k, v in numbers.items() if v is not None)
    names = (said.image, image_id(PurePosixPath(said.image).name))
    id_ = next((name for name in names if corrections.labels_of(name) is not None), None)
    row = None
    if id_ is None:
        id_ = names[1]
        if not id_.strip() or has_controls(id_):
            raise Problem(422, "invalid_id", "The image of the task has no id.", "Rename it.")
        fetch = partial(_fetch, _host(request), _address(task, configuration))
        new = await service.new_fetched(request, Fetched(id_, fetch))
        row = await asyncio.to_thread(new_row, service.engine, new.data, new.vector)
    # From here to `accept` nobody else gets a turn.
    present = corrections.labels_of(id_)
    if present is not None:
        row = None  # somebody else may have added it meanwhile
    # What could not be chosen was not refused.
    kept = () if said.offered is None else (c for c in present or () if c not in said.offered)
    after = tuple(sorted({*said.concepts, *kept}))
    if after == present:
        return "unchanged"
    await corrections.accept(
        id_, after, by=caller(request), reason=reason, names=said.names, row=row
    )
    return "added" if present is None else "changed"


def _read(
    engine: Engine,
    annotation: Mapping[str, Any],
    task: Mapping[str, Any],
    configuration: object,
) -> _Correction | None:
    """What an annotation says; None for a skipped task.

    Raises:
        Problem: 422, it names no image, or what was chosen is no label.
    """
    from annotator.concepts.names import cuis_of_names
    from annotator.tables.label_studio import answer_of, read_configuration
    from annotator.tables.labels import labels_of_lists

    offered = None
    try:
        answer: Answer | None = answer_of(task, annotation)
        if answer is None:
            return None
        terms = [(cui, name, 1) for cui, name in engine.known_names.items()]
        words = labels_of_lists("the annotation", {"": answer.labels}).names
        named = cuis_of_names(words, terms) if words else {}
        labels = labels_of_lists("the annotation", {"": answer.labels}, named)
        if isinstance(configuration, str):
            offered = frozenset(_choices(read_configuration(configuration), engine))
    except FormatError as error:
        raise Problem(422, "malformed_annotation", f"{error.message}.", error.hint) from None
    return _Correction(answer.image, labels.concepts[""], labels.names, offered)


def _choices(offer: Offer, engine: Engine) -> dict[str, str]:
    """What stands for each concept in an answer."""
    from annotator.concepts.names import cuis_of_names

    words = offer.words
    terms = [(cui, name, 1) for cui, name in engine.known_names.items()] if words else []
    return offer.by_concept(cuis_of_names(words, terms))


def _address(task: Mapping[str, Any], configuration: object) -> object:
    """The address of the image of a task."""
    from annotator.tables.label_studio import IMAGE, read_configuration

    field = read_configuration(configuration).field if isinstance(configuration, str) else IMAGE
    data = task.get("data")
    return data.get(field) if isinstance(data, dict) else None


async def _fetch(host: LabelStudioHost, address: object) -> bytes:
    if not isinstance(address, str) or not address:
        raise ImageError("the task has no address of an image", "Check the configuration.")
    return await host.fetch(address)


def _host(request: Request) -> LabelStudioHost:
    host: LabelStudioHost = request.app.state.label_studio
    return host


def _version(engine: Engine) -> str:
    """The version of predictions: that of the index."""
    return f"annotator {engine.stored.version}"


async def _body(request: Request, service: Service) -> dict[str, Any]:
    """The object in a body.

    Raises:
        Problem: As `json_body`; 422, there is none.
    """
    data = await json_body(request, service, _MOST_JSON)
    try:
        body = await asyncio.to_thread(json.loads, data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Problem(422, "malformed_body", "The body is no JSON object.", "Send one.")
    return body
