from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from asking import MakeClient, drawing, post, problem
from bad_dicom import dicom
from bad_files import ihdr, png
from starlette.testclient import TestClient
from versions import numbered

from annotator.tables.run import validate_run
from service.engine import Engine
from service.schemas import AnnotateOut, ProblemOut, Result


def test_several_images(client: TestClient, engine: Engine) -> None:
    answer = post(client, ("a.b.png", drawing(0)), ("train07.jpg", drawing(7, format="JPEG")))
    assert answer.status_code == 200
    whole = AnnotateOut.model_validate(answer.json())
    assert answer.json() == whole.model_dump()
    assert numbered(whole.index_version) == "v000001"
    assert whole.model.fingerprint == engine.annotator.embedder.fingerprint.digest
    assert [result.id for result in whole.results] == ["a.b", "train07"]
    for result, seed in zip(whole.results, (0, 7), strict=True):
        nearest = result.neighbors[0]
        assert (nearest.id, nearest.caption) == (f"train{seed:02d}", f"Drawing {seed}.")
        assert nearest.cuis == sorted({f"C{seed % 3}", "C9"}) and nearest.thumbnail is None
        assert len(result.neighbors) == 5 and result.error is None
        assert sum(n.weight for n in result.neighbors) == pytest.approx(1, abs=1e-5)
    assert whole.names == {"C9": "In all of them", "C1": "Ünd <one>"}
    assert whole.timings.total_ms >= whole.timings.encode_ms > 0


@pytest.mark.parametrize(
    "content_type", ["image/png", "image/anything", "application/octet-stream", "IMAGE/PNG; x=y"]
)
def test_a_raw_body(client: TestClient, content_type: str) -> None:
    answer = client.post("/v1/annotate", content=drawing(3), headers={"Content-Type": content_type})
    (result,) = answer.json()["results"]
    assert (result["id"], result["neighbors"][0]["id"]) == ("image-1", "train03")


def test_dicom(client: TestClient) -> None:
    file = dicom(bytes(range(48)) * 64)
    headers = {"Content-Type": "application/dicom"}
    answer = client.post("/v1/annotate", content=file, headers=headers)
    assert answer.status_code == 200 and "Secret" not in answer.text
    assert post(client, ("1.2.3.dcm", file)).json()["results"][0]["id"] == "1.2.3"


def test_files_without_a_name_are_numbered(client: TestClient) -> None:
    body = b"".join(
        b"--x\r\nContent-Disposition: form-data; name=a\r\nContent-Type: image/png\r\n\r\n"
        + drawing(i) + b"\r\n" for i in (0, 1)
    )  # fmt: skip
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/v1/annotate", content=body + b"--x--\r\n", headers=headers)
    assert [result["id"] for result in answer.json()["results"]] == ["image-1", "image-2"]


def test_options(client: TestClient) -> None:
    def result(query: str) -> Any:
        return post(client, ("a", drawing(0)), params=query).json()["results"][0]

    assert len(result("k=12&neighbors=12")["neighbors"]) == 12
    assert len(result("k=2&neighbors=9")["neighbors"]) == 2
    assert result("neighbors=0")["neighbors"] == []
    assert result("k=12&decider=top-r")["concepts"][0]["cui"] == "C9"
    assert [c["cui"] for c in result("k=12&min_score=1")["concepts"]] == ["C9"]


def test_macro_f1_takes_thresholds(
    client: TestClient, make_client: MakeClient, engine: Engine
) -> None:
    options = {"decider": "macro-f1", "k": 12}
    refused = post(client, ("a", drawing(0)), params=options)
    assert problem(refused) == (422, "invalid_parameter")
    assert refused.json()["detail"] == "decider: the index has no thresholds for macro-f1."
    annotator = copy.copy(engine.annotator)
    annotator.voting = replace(annotator.voting, macro_thresholds=(0.2,) * 4)
    tuned = make_client(engine=replace(engine, annotator=annotator))
    assert tuned.get("/v1/info").json()["voting"]["macro_thresholds"] == [0.2] * 4
    (result,) = post(tuned, ("a", drawing(0)), params=options).json()["results"]
    assert all(c["score"] >= 0.2 - 1e-6 for c in result["concepts"])
    assert all(c["score"] < 0.2 for c in result["considered"])


def test_what_was_considered_and_the_image_itself(client: TestClient) -> None:
    def result(query: str) -> Result:
        answer = post(client, ("a", drawing(3)), params=query).json()
        return AnnotateOut.model_validate(answer).results[0]

    usual = result("k=12&min_score=1")
    assert [c.cui for c in usual.concepts] == ["C9"] and usual.concepts[0].rival is None
    assert [c.cui for c in usual.considered][:1] == ["C0"]
    assert all(0.1 <= c.score < 1 for c in usual.considered)
    assert usual.same_image == usual.neighbors[0].id == "train03"
    without = result("k=4&exclude_self=true&neighbors=9")
    assert without.same_image == "train03" and len(without.neighbors) == 4
    assert "train03" not in [n.id for n in without.neighbors]


def test_what_the_others_say_of_an_image_of_the_index(client: TestClient) -> None:
    answer = client.get("/v1/annotate", params={"id": "train03", "neighbors": 4, "k": 4})
    assert AnnotateOut.model_validate(answer.json()).model_dump() == answer.json()
    (stored,) = answer.json()["results"]
    sent = post(client, ("train03", drawing(3)), params="k=4&exclude_self=true&neighbors=4")
    (result,) = sent.json()["results"]
    for field in ("concepts", "considered", "expected_f1", "neighbors", "id"):
        assert stored[field] == result[field]
    assert stored["same_image"] is None
    assert problem(client.get("/v1/annotate", params={"id": "none"})) == (404, "no_such_image")
    by_group = client.get("/v1/annotate", params={"id": "train03", "without": "group"})
    assert problem(by_group) == (409, "no_groups")


@pytest.mark.parametrize(
    "query", ["k=0", "k=1001", "k=x", "decider=best", "min_score=2", "min_score=nan",
              "neighbors=-1", "kk=3", "min_familiarity=2", "min_familiarity=0.1"],
)  # fmt: skip
def test_options_that_are_refused(client: TestClient, query: str) -> None:
    answer = post(client, ("a", drawing(0)), params=query)
    assert problem(answer) == (422, "invalid_parameter")
    assert answer.json()["detail"].startswith(query.split("=")[0] + ": ")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"some text, no image", 415, "unknown_format"),
        (png((b"IHDR", ihdr(10_000, 10_000)), (b"IDAT", b"x")), 413, "image_too_large"),
        (b"\xff\xd8\xff" + b"\0" * 50, 422, "undecodable_image"),
        (b"\xff\xd8\xff" + b"\xff\xda" * 101, 413, "image_too_large"),
    ],
)
def test_images_that_cannot_be_used(
    client: TestClient, data: bytes, status: int, code: str
) -> None:
    alone = post(client, ("secret-name.png", data))
    assert problem(alone) == (status, code) and "secret-name" not in alone.text
    among = post(client, ("bad.png", data), ("good.png", drawing(4)))
    assert among.status_code == 200
    bad, good = AnnotateOut.model_validate(among.json()).results
    assert bad.error == ProblemOut.model_validate(alone.json())
    assert (bad.id, bad.concepts, bad.neighbors) == ("bad", [], [])
    assert good.error is None and good.neighbors[0].id == "train04"
    both = post(client, ("a.png", data), ("b.png", data))
    assert both.status_code == 200 and all(r["error"] for r in both.json()["results"])


def test_a_blank_image(make_client: MakeClient, engine: Engine, black: bytes) -> None:
    client = make_client()
    bad, good = post(client, ("b", black), ("g", drawing(0))).json()["results"]
    assert bad["error"]["code"] == "blank_image" and bad["concepts"] == []
    assert good["error"] is None and good["notes"] == []
    assert problem(post(client, ("b", black))) == (422, "blank_image")
    allowing = make_client(engine=replace(engine, allow_blank=True))
    (result,) = post(allowing, ("b", black)).json()["results"]
    assert result["concepts"] and [note["code"] for note in result["notes"]] == ["blank"]


def test_an_image_that_the_encoder_fails_on(
    make_client: MakeClient, directionless: Engine, black: bytes
) -> None:
    client = make_client(engine=directionless)
    bad, good = post(client, ("b", black), ("g", drawing(0))).json()["results"]
    assert bad["error"]["code"] == "encoding_failed" and good["error"] is None
    assert problem(post(client, ("b", black))) == (500, "encoding_failed")


def test_a_frame_over_the_limit(make_client: MakeClient) -> None:
    client = make_client(max_megapixels=0.001)
    assert problem(post(client, ("a", drawing(0, (40, 48))))) == (413, "image_too_large")
    assert post(client, ("a", drawing(0, (20, 48)))).status_code == 200


def test_a_run(client: TestClient, tmp_path: Any) -> None:
    files = [("b.png", drawing(0)), ("bad.png", b"x"), ("a.png", drawing(1))]
    answer = post(client, *files, headers={"Accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["x-annotator-failed"] == "1"
    ids = ["b", "bad", "a"]
    rows = answer.text.splitlines()
    assert rows[0] == "ID,CUIs" and [row.split(",")[0] for row in rows[1:]] == ids
    assert rows[2] == "bad,"
    (tmp_path / "run.csv").write_bytes(answer.content)
    assert validate_run(tmp_path / "run.csv", ids) == []
    one = post(client, ("bad.png", b"x"), headers={"Accept": "text/csv"})
    assert (one.status_code, one.text) == (200, "ID,CUIs\nbad,\n")


@pytest.mark.parametrize("names", [("a.png", "a.jpg"), ("a,b.png",), ("a|b.png",), (" a.png",)])
def test_ids_that_cannot_stand_in_a_run(client: TestClient, names: tuple[str, ...]) -> None:
    files = [(name, drawing(0)) for name in names]
    answer = post(client, *files, headers={"Accept": "text/csv"})
    assert problem(answer) == (422, "not_a_run")
    assert post(client, *files).status_code == 200


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ({"Content-Type": "text/plain"}, b"x", 415, "unsupported_media_type"),
        ({"Content-Type": ""}, b"x", 415, "unsupported_media_type"),
        ({"Content-Type": "image/png"}, b"", 400, "no_image"),
        ({"Content-Type": "multipart/form-data"}, b"x", 400, "malformed_multipart"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x--\r\n", 400, "no_image"),
        ({"Content-Type": "image/png", "Content-Encoding": "gzip"}, b"x", 415,
         "unsupported_encoding"),
    ],
)  # fmt: skip
def test_bodies_that_are_refused(
    client: TestClient, headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    assert problem(client.post("/v1/annotate", content=body, headers=headers)) == (status, code)


def test_too_large_announced_and_counted(make_client: MakeClient) -> None:
    client = make_client(max_upload_mb=1)
    chunk = b"x" * (1 << 16)

    def stream() -> Any:
        yield from (chunk for _ in range(17))

    for body in (chunk * 17, stream()):
        headers = {"Content-Type": "image/png"}
        answer = client.post("/v1/annotate", content=body, headers=headers)
        assert problem(answer) == (413, "body_too_large")


def test_too_many_images(make_client: MakeClient) -> None:
    three = [("a", drawing(0))] * 3
    assert problem(post(make_client(max_images=2), *three)) == (413, "too_many_images")


def test_no_time(make_client: MakeClient) -> None:
    client = make_client(timeout_s=0.001)
    answer = post(client, *[("a", drawing(i, (900, 900))) for i in range(3)])
    assert problem(answer) == (503, "timeout")
    assert "retry-after" in answer.headers
    assert client.app.state.service.admission.images == 0  # type: ignore[attr-defined]


def test_info(client: TestClient, engine: Engine) -> None:
    answer = client.get("/v1/info").json()
    assert numbered(answer["index"].pop("version")) == "v000001"
    assert answer["index"] == {
        "images": 12, "concepts": 4, "dim": 16, "thumbnails": False,
        "pictures": False, "groups": False,
    }  # fmt: skip
    assert answer["model"]["name"] == "tiny" and answer["voting"]["k"] == 5
    assert answer["limits"]["images"] == 32 and answer["notice"] == "Not for clinical use."


@pytest.mark.parametrize(
    ("query", "cuis", "total"),
    [
        ("", ["C9", "C0", "C1", "C2"], 4),
        ("limit=1", ["C9"], 4),
        ("q=c1", ["C1"], 1),
        ("q=ÜND <", ["C1"], 1),
        ("q=absent", [], 0),
    ],
)
def test_concepts(client: TestClient, query: str, cuis: list[str], total: int) -> None:
    answer = client.get(f"/v1/concepts?{query}").json()
    assert [concept["cui"] for concept in answer["concepts"]] == cuis
    assert answer["total"] == total


def test_pictures_of_an_index_without_them(client: TestClient) -> None:
    for name in ("train00", "absent", "a%2Fb"):
        assert problem(client.get(f"/v1/neighbors/{name}/image")) == (404, "no_picture")


def test_reloading_where_it_is_not_offered(client: TestClient) -> None:
    assert problem(client.post("/v1/reload")) == (403, "reload_disabled")


def test_health(client: TestClient) -> None:
    assert client.get("/livez").json() == client.get("/readyz").json() == {"status": "ok"}
    client.app.state.service.draining = True  # type: ignore[attr-defined]
    assert client.get("/livez").status_code == 200
    assert problem(client.get("/readyz")) == (503, "draining")


def _request(method: str, route: str, status: int, outcome: str) -> str:
    labels = f'method="{method}",outcome="{outcome}",route="{route}",status="{status}"'
    return f"annotator_requests_total{{{labels}}}"


def test_metrics(client: TestClient) -> None:
    post(client, ("a", drawing(0)), ("b", b"x"))
    client.get("/a/path/with/a/name")
    text = numbered(client.get("/metrics").text)
    for line in (
        _request("POST", "/v1/annotate", 200, "ok") + " 1.0",
        _request("GET", "none", 404, "not_found") + " 1.0",
        'annotator_images_total{outcome="ok"} 1.0',
        'annotator_images_total{outcome="unknown_format"} 1.0',
        'annotator_stage_seconds_count{stage="encode"} 1.0',
        'annotator_index_info{model="tiny",version="v000001"} 1.0',
        "annotator_admitted_images 0.0",
        "annotator_reload_failures_total 0.0",
    ):
        assert line in text.splitlines()
