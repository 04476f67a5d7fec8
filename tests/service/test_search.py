from __future__ import annotations

import pytest
from asking import MakeClient, drawing, problem
from starlette.testclient import TestClient
from versions import numbered

from service.engine import Engine
from service.schemas import SearchOut, SimilarOut


def similar(client: TestClient, query: str) -> SimilarOut:
    answer = client.get(f"/v1/similar?{query}")
    assert answer.status_code == 200, answer.text
    return SimilarOut.model_validate(answer.json())


@pytest.mark.parametrize("q", ["C1", "c1", "ünd", "ÜND <ONE>", "one"])
def test_a_concept(client: TestClient, engine: Engine, q: str) -> None:
    answer = client.get("/v1/search", params={"q": q, "k": 3})
    found = SearchOut.model_validate(answer.json())
    assert answer.json() == found.model_dump()
    assert found.kind == "concept" and found.concept is not None
    assert found.concept.model_dump() == {"cui": "C1", "name": "Ünd <one>", "images": 4}
    assert len(found.cases) == 3 and all("C1" in case.cuis for case in found.cases)
    scores = [case.score for case in found.cases]
    assert scores == sorted(scores, reverse=True) and 0 <= scores[-1] <= scores[0] <= 1
    assert found.cases[0].caption.startswith("Drawing ") and found.cases[0].thumbnail is None
    assert not any("C1" in case.cuis for case in found.missing)
    assert numbered(found.index_version) == "v000001" and found.names["C9"] == "In all of them"


def test_the_command_line_and_the_service_agree(client: TestClient, engine: Engine) -> None:
    from annotator.explore.concept import of_concept

    annotator = engine.annotator
    expected = of_concept(annotator.stored, annotator.voting, "C9")
    found = client.get("/v1/search?q=C9").json()
    assert [case["id"] for case in found["cases"]] == [c.image_id for c in expected.exemplars]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("search?q=absent", 404, "no_such_concept"),
        ("search?q=absent&by=concept", 404, "no_such_concept"),
        ("search?q=C1&by=text", 409, "no_text_search"),
        ("search?q=", 422, "invalid_parameter"),
        ("search", 422, "invalid_parameter"),
        ("search?q=C1&k=0", 422, "invalid_parameter"),
        ("search?q=C1&k=101", 422, "invalid_parameter"),
        ("search?q=C1&by=mood", 422, "invalid_parameter"),
        ("search?q=C1&other=1", 422, "invalid_parameter"),
        ("similar?id=absent", 404, "no_such_image"),
        ("similar?id=train04&without=group", 409, "no_groups"),
        ("similar", 422, "invalid_parameter"),
        ("similar?id=train04&k=x", 422, "invalid_parameter"),
        ("similar?id=train04&without=nothing", 422, "invalid_parameter"),
    ],
)
def test_searches_that_are_refused(client: TestClient, query: str, status: int, code: str) -> None:
    assert problem(client.get(f"/v1/{query}")) == (status, code)


def test_several_concepts_are_listed(client: TestClient) -> None:
    answer = client.get("/v1/search?q=n")  # "In all of them", "Ünd <one>"
    assert problem(answer) == (409, "ambiguous_concept")
    assert "C9 In all of them; C1 Ünd <one>" in answer.json()["detail"]


def test_similar_to_an_image_of_the_index(client: TestClient, engine: Engine) -> None:
    found = similar(client, "id=train04&k=3")
    (result,) = found.results
    assert (result.id, result.error, len(result.cases)) == ("train04", None, 3)
    assert "train04" not in [case.id for case in result.cases]
    assert result.cases[0].score >= result.cases[1].score >= result.cases[2].score
    assert found.names.keys() <= {"C1", "C9"}
    assert len(similar(client, "id=train04&k=100").results[0].cases) == 11


def test_similar_to_images_that_are_sent(client: TestClient) -> None:
    files = [("image", ("a.png", drawing(4))), ("image", ("bad.png", b"no image"))]
    answer = client.post("/v1/similar?k=2", files=files)
    good, bad = SimilarOut.model_validate(answer.json()).results
    assert (good.id, good.error, len(good.cases)) == ("a", None, 2)
    assert good.cases[0].id == "train04" and good.cases[0].score == pytest.approx(1)
    assert bad.id == "bad" and bad.cases == []
    assert bad.error is not None and bad.error.code == "unknown_format"
    assert problem(client.post("/v1/similar", files=files[1:])) == (415, "unknown_format")
    annotated = client.post("/v1/annotate?k=2", files=files[:1]).json()["results"][0]
    assert [n["id"] for n in annotated["neighbors"]] == [case.id for case in good.cases]


def test_they_need_room(client: TestClient) -> None:
    with client.app.state.service.admission.enter() as ticket:  # type: ignore[attr-defined]
        ticket.hold(images=128)
        for path in ("/v1/search?q=C1", "/v1/similar?id=train04"):
            assert problem(client.get(path)) == (429, "overloaded")


def test_no_time(make_client: MakeClient) -> None:
    client = make_client(timeout_s=1e-6)
    assert problem(client.get("/v1/search?q=C9")) == (503, "timeout")


def test_they_are_counted_without_what_was_asked(client: TestClient) -> None:
    client.get("/v1/search?q=C1")
    client.get("/v1/search?q=secret")
    metrics = client.get("/metrics").text
    assert 'outcome="ok",route="/v1/search",status="200"} 1.0' in metrics
    assert 'outcome="no_such_concept",route="/v1/search",status="404"} 1.0' in metrics
    assert "secret" not in metrics


@pytest.mark.parametrize("by", ["auto", "text"])
def test_free_text(make_client: MakeClient, clip_engine: Engine, by: str) -> None:
    from annotator.explore.text_search import TextSearch
    from annotator.knn.neighbors import cases_of

    client = make_client(engine=clip_engine)
    answer = client.get("/v1/search", params={"q": "stripes from left to right", "by": by, "k": 4})
    found = SearchOut.model_validate(answer.json())
    assert (found.kind, found.concept, found.missing, found.wrong) == ("text", None, [], [])
    (expected,) = cases_of(
        TextSearch(clip_engine.annotator.stored).find(["stripes from left to right"], 4)
    )
    assert [(c.id, c.score) for c in found.cases] == [
        (c.image_id, pytest.approx(c.score, abs=1e-6)) for c in expected
    ]
    if by == "auto":
        concept = client.get("/v1/search?q=C1").json()
        assert concept["kind"] == "concept"
        assert problem(client.get("/v1/search?q=x&by=concept")) == (404, "no_such_concept")
