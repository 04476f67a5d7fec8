"""Searches in the index as responses of the API; the functions block."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from annotator.errors import AnnotatorError
from index.errors import IndexProblem
from service.answers import Answer, names_of, picture_path
from service.engine import Ballot, Engine
from service.observability import STAGES
from service.problems import Problem, no_such_image, unusable_image

if TYPE_CHECKING:
    from annotator.knn.neighbors import Case
    from service.schemas import ConceptsQuery, SearchQuery, SimilarQuery, StoredQuery

_MOST_JUDGED = 500  # images of a concept; more are sampled


def search(engine: Engine, query: SearchQuery) -> dict[str, Any]:
    """Cases of a concept, or those similar to a text, as `schemas.SearchOut`.

    Raises:
        Problem: 404, no such concept; 409, several of them, or no search by text.
    """
    from annotator.concepts.lookup import NoSuchConcept, SeveralConcepts, find_concept

    stored = engine.stored
    if query.by != "text":
        try:
            cui = find_concept(query.q, stored.concepts, stored.names, suggest=False)
            return _of_concept(engine, cui, query.k)
        except SeveralConcepts as error:
            raise Problem(409, "ambiguous_concept", error.message, error.hint) from None
        except NoSuchConcept as error:
            if query.by == "concept" or not engine.searches_text:
                hint = "GET /v1/concepts lists them."
                raise Problem(404, "no_such_concept", error.message, hint) from None
    try:
        cases = engine.search_text(query.q, query.k)
    except IndexProblem:
        raise
    except AnnotatorError as error:
        raise Problem(409, "no_text_search", error.message, error.hint) from None
    return _found(engine, None, cases)


def concepts_like(engine: Engine, query: ConceptsQuery) -> dict[str, Any]:
    """Concepts by a part of their CUI or name, as `schemas.ConceptsOut`."""
    found = engine.concepts_like(query.q)
    return {"concepts": [c._asdict() for c in found[: query.limit]], "total": len(found)}


def annotate_stored(engine: Engine, query: StoredQuery, ballot: Ballot) -> Answer:
    """What the other images of the index say of one of them.

    Raises:
        Problem: 404, no such image; 409, the index has no groups; 422, it is too unfamiliar.
    """
    if query.without == "group" and "groups" not in engine.stored.with_ids([query.id]).columns:
        raise Problem(409, "no_groups", "The index has no groups.", "Leave out `without`.")
    voted = engine.vote_on_stored(query.id, ballot, without_group=query.without == "group")
    if voted is None:
        raise no_such_image("GET /v1/search finds images.")
    if voted[0].error is not None:
        raise unusable_image(voted[0].error)
    annotation, seconds = voted
    return Answer(engine, [query.id], [(annotation, dict.fromkeys(STAGES, 0.0) | seconds)])


def similar_to(engine: Engine, query: SimilarQuery) -> dict[str, Any]:
    """Cases similar to an image of the index, as `schemas.SimilarOut`.

    Raises:
        Problem: 404, no such image; 409, the index has no groups.
    """
    from annotator.explore.similar import rank_ids

    stored = engine.stored
    if not stored.with_ids([query.id]).ids:
        raise no_such_image("Give the id of one, or send an image with POST.")
    try:
        (ranking,) = rank_ids(stored, [query.id], query.k, without=query.without)
    except IndexProblem:
        raise
    except AnnotatorError as error:
        raise Problem(409, "no_groups", error.message, "Leave out `without`.") from None
    return _similar(engine, [_result(engine, query.id, ranking.cases)])


def similar_to_images(answer: Answer) -> dict[str, Any]:
    """The neighbours of uploaded images, as `schemas.SimilarOut`."""
    results = [
        {"id": id_, "cases": [], "error": outcome.to_dict()}
        if isinstance(outcome, Problem)
        else _result(answer.engine, id_, outcome[0].neighbors)
        for id_, outcome in zip(answer.ids, answer.outcomes, strict=True)
    ]
    return _similar(answer.engine, results)


def _result(engine: Engine, id_: str, cases: Sequence[Case]) -> dict[str, Any]:
    return {"id": id_, "cases": _cases(engine, cases), "error": None}


def _similar(engine: Engine, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    cuis = [cui for result in results for case in result["cases"] for cui in case["cuis"]]
    version = engine.stored.version
    return {"index_version": version, "results": results, "names": names_of(engine, cuis)}


def _of_concept(engine: Engine, cui: str, k: int) -> dict[str, Any]:
    from annotator.explore.concept import of_concept

    stored = engine.stored
    found = of_concept(stored, engine.annotator.voting, cui, k=k, most=_MOST_JUDGED)
    concept = {"cui": cui, "name": stored.names.get(cui, ""), "images": found.images}
    wrong = found.wrong if found.judges_wrong else None
    return _found(engine, concept, found.exemplars, found.missing, wrong)


def _found(
    engine: Engine,
    concept: Mapping[str, Any] | None,
    cases: Sequence[Case],
    missing: Sequence[Case] = (),
    wrong: Sequence[Case] | None = (),
) -> dict[str, Any]:
    lists = {
        "cases": _cases(engine, cases),
        "missing": _cases(engine, missing),
        "wrong": None if wrong is None else _cases(engine, wrong),
    }
    cuis = [cui for some in lists.values() for case in some or () for cui in case["cuis"]]
    return {
        "index_version": engine.stored.version,
        "kind": "concept" if concept else "text",
        "concept": concept,
        **lists,
        "names": names_of(engine, cuis),
    }


def _cases(engine: Engine, cases: Sequence[Case]) -> list[dict[str, Any]]:
    return [
        {
            "id": case.image_id,
            "score": round(case.score, 6),
            "cuis": list(case.cuis),
            "caption": case.caption,
            "thumbnail": picture_path(engine, case.image_id),
        }
        for case in cases
        if math.isfinite(case.score)  # an index server may pad its results
    ]
