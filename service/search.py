"""Search as the routes answer it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from annotator.errors import AnnotatorError, IndexProblem
from service.answers import Outcome, picture_path
from service.engine import Engine
from service.problems import Problem

if TYPE_CHECKING:
    from annotator.knn.neighbors import Case
    from service.schemas import SearchQuery, SimilarQuery

_MOST_JUDGED = 500  # of a concept's images


def search(engine: Engine, query: SearchQuery) -> dict[str, Any]:
    """`schemas.SearchOut`; blocks.

    Raises:
        Problem: 404 no such concept; 409 several of them, or no search by text.
    """
    from annotator.tables.concept_names import NoSuchConcept, SeveralConcepts, find_concept

    stored = engine.annotator.stored
    if query.by != "text":
        try:
            cui = find_concept(query.q, stored.concepts, stored.names, suggest=False)
            return _of_concept(engine, cui, query)
        except SeveralConcepts as error:
            raise Problem(409, "ambiguous_concept", error.message, error.hint) from None
        except NoSuchConcept as error:
            # Other words are what a text tower is for.
            if query.by == "concept" or not engine.searches_text:
                hint = "GET /v1/concepts lists them."
                raise Problem(404, "no_such_concept", error.message, hint) from None
    try:
        found = engine.search_text(query.q, query.k)
    except IndexProblem:
        raise
    except AnnotatorError as error:
        raise Problem(409, "no_text_search", error.message, error.hint) from None
    return _answer(engine, {"kind": "text", "concept": None}, found, (), ())


def similar_to(engine: Engine, query: SimilarQuery) -> dict[str, Any]:
    """`schemas.SimilarOut` for an image of the index; blocks.

    Raises:
        Problem: 404 no such image; 409 the index does not know its images' groups.
    """
    from annotator.explore.similar import rank_ids

    stored = engine.annotator.stored
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
    return {"index_version": engine.version, "results": [result], "names": _names(engine, result)}


def similar_to_images(
    engine: Engine, ids: Sequence[str], outcomes: Sequence[Outcome]
) -> dict[str, Any]:
    """`schemas.SimilarOut` for images that were sent: the cases are those that voted."""
    results: list[dict[str, Any]] = []
    for id_, outcome in zip(ids, outcomes, strict=True):
        if isinstance(outcome, Problem):
            results.append({"id": id_, "cases": [], "error": outcome.to_dict()})
            continue
        cases = _cases(engine, outcome[0].neighbors)
        results.append({"id": id_, "cases": cases, "error": None})
    return {
        "index_version": engine.version,
        "results": results,
        "names": _names(engine, *results),
    }


def _of_concept(engine: Engine, cui: str, query: SearchQuery) -> dict[str, Any]:
    from annotator.explore.concept import of_concept

    annotator = engine.annotator
    found = of_concept(annotator.stored, annotator.voting, cui, k=query.k, most=_MOST_JUDGED)
    concept = {"cui": cui, "name": annotator.stored.names.get(cui, ""), "images": found.images}
    facts = {"kind": "concept", "concept": concept}
    answer = _answer(engine, facts, found.exemplars, found.missing, found.wrong)
    return answer if found.judges_wrong else {**answer, "wrong": None}


def _answer(
    engine: Engine,
    facts: Mapping[str, Any],
    cases: Sequence[Case],
    missing: Sequence[Case],
    wrong: Sequence[Case],
) -> dict[str, Any]:
    lists = {"cases": cases, "missing": missing, "wrong": wrong}
    shown = {name: _cases(engine, some) for name, some in lists.items()}
    named = [{"cases": some} for some in shown.values()]
    return {
        "index_version": engine.version,
        **facts,
        **shown,
        "names": _names(engine, *named),
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
        if math.isfinite(case.score)  # a server may fill up with what is no neighbour
    ]


def _names(engine: Engine, *results: Mapping[str, Any]) -> dict[str, str]:
    names = engine.annotator.stored.names
    cuis = {cui for result in results for case in result["cases"] for cui in case["cuis"]}
    return {cui: names[cui] for cui in sorted(cuis) if cui in names}
