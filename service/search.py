"""Search in the index as answers of the API; the functions block."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from annotator.errors import AnnotatorError, IndexProblem
from service.answers import Answer, picture_path
from service.engine import Engine
from service.problems import Problem

if TYPE_CHECKING:
    from annotator.knn.neighbors import Case
    from service.schemas import SearchQuery, SimilarQuery

_MOST_JUDGED = 500  # images of a concept; those of a frequent one are sampled


def search(engine: Engine, query: SearchQuery) -> dict[str, Any]:
    """Cases of a concept, or those similar to a text, as `schemas.SearchOut`.

    Raises:
        Problem: 404, no such concept; 409, several of them, or no search by text.
    """
    from annotator.tables.concept_names import NoSuchConcept, SeveralConcepts, find_concept

    stored = engine.stored
    if query.by != "text":
        try:
            cui = find_concept(query.q, stored.concepts, stored.names, suggest=False)
            return _of_concept(engine, cui, query)
        except SeveralConcepts as error:
            raise Problem(409, "ambiguous_concept", error.message, error.hint) from None
        except NoSuchConcept as error:
            if query.by == "concept" or not engine.searches_text:
                hint = "GET /v1/concepts lists them."
                raise Problem(404, "no_such_concept", error.message, hint) from None
    try:
        found = engine.search_text(query.q, query.k)
    except IndexProblem:
        raise
    except AnnotatorError as error:
        raise Problem(409, "no_text_search", error.message, error.hint) from None
    version = engine.stored.version
    return {"index_version": version, "kind": "text", "concept": None, **_lists(engine, found)}


def similar_to(engine: Engine, query: SimilarQuery) -> dict[str, Any]:
    """Cases similar to an image of the index, as `schemas.SimilarOut`.

    Raises:
        Problem: 404, no such image; 409, the index does not know its images' groups.
    """
    from annotator.explore.similar import rank_ids

    stored = engine.stored
    if not stored.with_ids([query.id]).ids:
        hint = "Give the id of one, or send an image with POST."
        raise Problem(404, "no_such_image", "The index has no image of this id.", hint)
    try:
        (ranking,) = rank_ids(stored, [query.id], query.k, without=query.without)
    except IndexProblem:
        raise
    except AnnotatorError as error:
        raise Problem(409, "no_groups", error.message, "Leave out `without`.") from None
    result = {"id": query.id, "cases": _cases(engine, ranking.cases), "error": None}
    return _similar(engine, [result])


def similar_to_images(answer: Answer) -> dict[str, Any]:
    """Cases similar to images that were sent, those that voted, as `schemas.SimilarOut`."""
    engine = answer.engine
    results: list[dict[str, Any]] = []
    for id_, outcome in zip(answer.ids, answer.outcomes, strict=True):
        if isinstance(outcome, Problem):
            results.append({"id": id_, "cases": [], "error": outcome.to_dict()})
            continue
        cases = _cases(engine, outcome[0].neighbors)
        results.append({"id": id_, "cases": cases, "error": None})
    return _similar(engine, results)


def _similar(engine: Engine, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = _names(engine, [result["cases"] for result in results])
    return {"index_version": engine.stored.version, "results": results, "names": names}


def _of_concept(engine: Engine, cui: str, query: SearchQuery) -> dict[str, Any]:
    from annotator.explore.concept import of_concept

    stored = engine.stored
    found = of_concept(stored, engine.annotator.voting, cui, k=query.k, most=_MOST_JUDGED)
    return {
        "index_version": stored.version,
        "kind": "concept",
        "concept": {"cui": cui, "name": stored.names.get(cui, ""), "images": found.images},
        **_lists(
            engine, found.exemplars, found.missing, found.wrong if found.judges_wrong else None
        ),
    }


def _lists(
    engine: Engine,
    cases: Sequence[Case],
    missing: Sequence[Case] = (),
    wrong: Sequence[Case] | None = (),
) -> dict[str, Any]:
    lists = {
        "cases": _cases(engine, cases),
        "missing": _cases(engine, missing),
        "wrong": None if wrong is None else _cases(engine, wrong),
    }
    return {**lists, "names": _names(engine, [some for some in lists.values() if some])}


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
        if math.isfinite(case.score)  # a server may fill up with what is no neighbour
    ]


def _names(engine: Engine, lists: Iterable[Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """The names of all concepts in some lists of cases."""
    names = engine.stored.names
    cuis = {cui for cases in lists for case in cases for cui in case["cuis"]}
    return {cui: names[cui] for cui in sorted(cuis) if cui in names}
