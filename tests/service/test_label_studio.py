"""The back end as Label Studio calls it; tests/integrations has a real one."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from asking import MakeClient, cpu_settings, drawing, problem
from file_host import Host
from starlette.requests import Request
from starlette.testclient import TestClient

from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.errors import ImageError
from annotator.tables.label_studio import configuration
from service import label_studio_host
from service.app import create_app
from service.corrections import opened_for_writing
from service.engine import open_engine
from service.keys import Keys
from service.label_studio_host import LabelStudioHost
from service.problems import Problem
from service.service import Fetched, Service

READER, ANNOTATOR, CORRECTOR = (f"{letter * 20}" for letter in "rac")
KEYS = [f"read:{READER}", ANNOTATOR, f"correct:{CORRECTOR} Ada"]
CONFIG = configuration([("C0", ""), ("C1", "Ünd <one>"), ("C2", ""), ("C9", "In all of them")])
UPLOADED = "/data/upload/1/0a1b2c3d-"


@pytest.fixture
def host() -> Iterator[Host]:
    started = Host()
    yield started
    started.close()


@pytest.fixture
def client(
    host: Host, tiny_index: Path, tiny_embedder: TorchEmbedder, tmp_path: Path
) -> Iterator[TestClient]:
    """Of a service that takes corrections, with the key of a corrector."""
    index = Path(shutil.copytree(tiny_index, tmp_path / "index"))
    with ExitStack() as stack:
        given = cpu_settings(
            index, writable=True, api_key_file=Path("keys.txt"), label_studio=host.url
        )
        store = stack.enter_context(opened_for_writing(given))
        app = create_app(given, open_engine(given, tiny_embedder), Keys(KEYS), store)
        client = TestClient(app, "http://127.0.0.1", raise_server_exceptions=False)
        client.headers["X-API-Key"] = CORRECTOR
        yield stack.enter_context(client)


def task(number: int, image: object, **data: object) -> dict[str, Any]:
    return {"id": number, "project": 1, "data": {"image": image, **data}}


def predict(client: TestClient, *tasks: Any, config: str = CONFIG, **headers: str) -> Any:
    body = {"tasks": tasks, "project": "1.1", "label_config": config, "params": {}}
    return client.post("/label-studio/predict", json=body, headers=headers)


def tell(client: TestClient, image: str, *choices: str, **more: Any) -> Any:
    """What Label Studio tells when somebody has annotated an image."""
    result = {"from_name": "concepts", "to_name": "image", "type": "choices"}
    annotation = {"id": 5, "project": 1, "result": [{**result, "value": {"choices": choices}}]}
    body = {
        "action": "ANNOTATION_CREATED",
        "annotation": annotation | more.pop("annotation", {}),
        "task": task(3, image),
        "project": {"id": 1, "label_config": CONFIG},
        **more,
    }
    return client.post("/label-studio/webhook", json=body)


def labels(client: TestClient, id_: str) -> list[str]:
    found: list[str] = client.get(f"/v1/images/{id_}").json()["concepts"]
    return found


def test_it_is_there_if_it_is_asked_for(client: TestClient, make_client: MakeClient) -> None:
    assert client.get("/label-studio/health").json()["status"] == "UP"
    version = client.post("/label-studio/setup", json={"access_token": "x"}).json()["model_version"]
    assert version == f"annotator {client.get('/v1/info').json()['index']['version']}"
    assert client.get("/label-studio/versions").json() == {"versions": [version]}
    assert "/label-studio/predict" not in client.get("/openapi.json").text
    assert problem(make_client().get("/label-studio/health")) == (404, "not_found")


def test_tasks_get_predictions(client: TestClient, host: Host) -> None:
    host.files = {f"{UPLOADED}{i}.png": (200, drawing(i)) for i in range(20, 32)}
    tasks = [task(i, f"{UPLOADED}{i}.png") for i in range(20, 32)]
    tasks[1]["data"]["image"] = f"{host.url}{UPLOADED}21.png"  # with its host is as well
    answer = predict(client, *tasks)
    assert answer.status_code == 200
    body = answer.json()
    assert body["model_version"].startswith("annotator v") and len(body["results"]) == 12
    for i, (one,) in enumerate(body["results"], 20):
        assert one["model_version"] == body["model_version"] and 0 < one["score"] <= 1
        (result,) = one["result"]
        assert (result["from_name"], result["to_name"], result["type"]) == (
            "concepts",
            "image",
            "choices",
        )
        asked = client.post(
            "/v1/annotate", content=drawing(i), headers={"Content-Type": "image/png"}
        )
        concepts = asked.json()["results"][0]["concepts"]
        assert result["value"]["choices"] == [one["cui"] for one in concepts]


def test_one_bad_task_costs_the_others_nothing(client: TestClient, host: Host) -> None:
    good = f"{UPLOADED}1.png"
    host.files = {good: (200, drawing(1)), f"{UPLOADED}2.png": (200, b"no image")}
    bad: list[object] = [f"{UPLOADED}2.png", "/data/gone.png", "http://example.org/x.png", None, 7]
    answer = predict(client, *(task(i, image) for i, image in enumerate([*bad, good])), {"id": 9})
    assert [len(one) for one in answer.json()["results"]] == [0, 0, 0, 0, 0, 1, 0]


def test_other_configurations(client: TestClient, host: Host) -> None:
    """Choices by name or CUI, of which one alone can be chosen; what they lack is left out."""
    host.files = {f"{UPLOADED}1.png": (200, drawing(1))}
    config = (
        '<View><Image name="xray" value="$url"/><Choices name="dx" toName="xray">'
        '<Choice value="In all of them"/><Choice value="C1"/></Choices></View>'
    )
    sent = {"id": 1, "data": {"url": f"{UPLOADED}1.png"}}
    ((one,),) = predict(client, sent, config=config).json()["results"]
    (result,) = one["result"]
    assert (result["from_name"], result["to_name"]) == ("dx", "xray")
    assert result["value"]["choices"] in (["In all of them"], ["C1"])
    other = config.replace("In all of them", "x").replace('"C1"', '"y"')
    assert predict(client, sent, config=other).json()["results"][0][0]["result"] == []


def test_configurations_that_offer_nothing(client: TestClient) -> None:
    nothing = '<View><Image name="i"/><Choices name="c" toName="i"><Choice/></Choices></View>'
    for config, complaint in (
        ("", "no XML"),
        ("<View/>", "no choices"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><View>&a;</View>', "entities"),
        (nothing, "without a value"),
    ):
        answer = predict(client, config=config)
        assert problem(answer) == (422, "unusable_configuration")
        assert complaint in answer.json()["detail"]


def test_an_annotation_is_a_correction(client: TestClient) -> None:
    answer = tell(client, f"{UPLOADED}train01.png", "C2", "In all of them")
    assert answer.json() == {
        "status": "ok", "changed": 1, "added": 0, "unchanged": 0, "skipped": 0,
    }  # fmt: skip
    assert labels(client, "train01") == ["C2", "C9"]
    assert tell(client, f"{UPLOADED}train01.png", "C9", "C2").json()["unchanged"] == 1
    assert tell(client, "x.png", "C0", task=task(3, "x.png", image_id="train01")).json()["changed"]
    assert labels(client, "train01") == ["C0"]
    newer = tell(client, "train01.png", "C1", action="ANNOTATION_UPDATED")
    assert newer.json()["changed"] == 1 and labels(client, "train01") == ["C1"]


def test_who_and_why_is_known(client: TestClient, tmp_path: Path) -> None:
    tell(client, "train01.png", "C2")
    journal = (tmp_path / "index" / "journal.jsonl").read_text(encoding="utf-8")
    assert "Ada" in journal and "Label Studio: project 1, task 3, annotation 5" in journal


def test_what_could_not_be_chosen_is_not_taken_away(client: TestClient) -> None:
    few = configuration([("C1", ""), ("C2", "")])
    tell(client, "train01.png", "C2", project={"label_config": few})
    assert labels(client, "train01") == ["C2", "C9"]
    tell(client, "train01.png", "C1", project={})  # all that the image has, where that is not known
    assert labels(client, "train01") == ["C1"]


def test_an_image_that_is_not_in_the_index_is_added(client: TestClient, host: Host) -> None:
    host.files = {f"{UPLOADED}new.png": (200, drawing(50))}
    answer = tell(client, f"{UPLOADED}new.png", "C2", "Something new")
    assert answer.json()["added"] == 1
    assert labels(client, "new") == ["C2", "SOMETHING_NEW"]
    picture = ("x.png", drawing(50))
    (result,) = client.post("/v1/annotate", files=[("image", picture)]).json()["results"]
    assert result["neighbors"][0]["id"] == "new"
    assert tell(client, f"{UPLOADED}new.png", "C1").json()["changed"] == 1
    gone = tell(client, f"{UPLOADED}gone.png", "C1")
    assert problem(gone)[0] == 422 and client.get("/v1/images/gone").status_code == 404


def test_who_told_of_an_image_need_not_wait(client: TestClient) -> None:
    """Label Studio waits a second; who asks for predictions has to."""
    service: Service = client.app.state.service  # type: ignore[attr-defined]

    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def fetch() -> bytes:
        await asyncio.sleep(0.1)
        return drawing(1)

    request = Request({"type": "http", "headers": [], "state": {}}, gone)  # type: ignore[arg-type]
    portal = client.portal
    assert portal is not None
    new = portal.call(service.new_fetched, request, Fetched("x", fetch))
    assert (new.id, new.data) == ("x", drawing(1))
    with pytest.raises(Problem, match="client_closed_request"):
        portal.call(service.annotate_fetched, request, [Fetched("x", fetch)], {})


def test_what_is_passed_over(client: TestClient) -> None:
    before = labels(client, "train01")
    skipped = tell(client, "train01.png", "C2", annotation={"was_cancelled": True})
    assert skipped.json()["skipped"] == 1
    for action in ("ANNOTATIONS_DELETED", "PROJECT_UPDATED", "START_TRAINING", None, 3):
        assert tell(client, "train01.png", "C2", action=action).json() == {"status": "ignored"}
    assert labels(client, "train01") == before


def test_malformed_bodies(client: TestClient) -> None:
    one: dict[str, Any] = {"action": "ANNOTATION_CREATED"}
    for body in (
        *([], 7, one),
        one | {"annotation": {"result": 3}, "task": {"data": {"image": "x.png"}}},
        one | {"annotation": {}, "task": {"data": []}},
        one | {"annotation": {}, "task": {}},
        {"action": "ANNOTATIONS_CREATED", "annotation": [{}], "task": ["x"]},
    ):
        assert problem(client.post("/label-studio/webhook", json=body))[0] == 422, body
        assert problem(client.post("/label-studio/predict", json=body))[0] == 422, body
    nested = client.post(
        "/label-studio/predict",
        content=b"[" * 100_000,
        headers={"Content-Type": "application/json"},
    )
    assert problem(nested) == (422, "malformed_body")


def test_roles(client: TestClient, host: Host) -> None:
    host.files = {f"{UPLOADED}1.png": (200, drawing(1))}

    def as_(key: str) -> dict[str, str]:
        return {"Authorization": f"Basic {base64.b64encode(f'anybody:{key}'.encode()).decode()}"}

    del client.headers["X-API-Key"]
    for key, health, predicted, told in (
        ("nobody's key, surely", 401, 401, 401),
        (READER, 200, 403, 403),
        (ANNOTATOR, 200, 200, 403),
        (CORRECTOR, 200, 200, 200),
    ):
        assert client.get("/label-studio/health", headers=as_(key)).status_code == health
        one = predict(client, task(1, f"{UPLOADED}1.png"), **as_(key))
        assert one.status_code == predicted
        client.headers.update(as_(key))
        assert tell(client, "train01.png", "C2").status_code == told
        del client.headers["Authorization"]
    # Browsers keep what was typed for HTTP Basic: it opens nothing else.
    assert client.get("/v1/info", headers=as_(CORRECTOR)).status_code == 401
    for wrong in ("Basic", "Basic !", "Basic " + base64.b64encode(b"x").decode()):
        answer = client.get("/label-studio/health", headers={"Authorization": wrong})
        assert answer.status_code == 401


def test_a_form_of_a_page_of_another_site_is_refused(client: TestClient) -> None:
    answer = client.post(
        "/label-studio/webhook", content=b"{}", headers={"Content-Type": "text/plain"}
    )
    assert problem(answer) == (415, "unsupported_media_type")


def test_a_service_that_takes_no_corrections(make_client: MakeClient) -> None:
    client = make_client(label_studio="http://127.0.0.1:9")
    assert problem(tell(client, "train01.png", "C2")) == (403, "read_only")
    answer = predict(client, task(1, "/data/x.png"))
    assert answer.json()["results"] == [[]]  # nobody is there


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/data/upload/1/a%20b.png", "/data/upload/1/a%20b.png"),
        ("/data/local-files/?d=x/a.png", "/data/local-files/?d=x/a.png"),
        ("https://ls.example.org/data/upload/a.png", "/data/upload/a.png"),
        ("https://ls.example.org:443/data/a.png?x=1#y", "/data/a.png?x=1"),
        ("/storage-data/uploaded/?filepath=a.png", "/storage-data/uploaded/?filepath=a.png"),
    ],
)
def test_addresses_on_the_host(address: str, path: str) -> None:
    with LabelStudioHost("https://ls.example.org/", "", 1) as host:
        assert host.path_of(address) == path


def test_a_host_below_a_path() -> None:
    with LabelStudioHost("https://example.org/labels", "", 1) as host:
        for address in (
            "/data/a.png",
            "/labels/data/a.png",
            "https://example.org/labels/data/a.png",
        ):
            assert host.path_of(address) == "/labels/data/a.png"


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:9200/data/x",
        "http://ls.example.org/data/a.png",  # not over TLS
        "https://ls.example.org:8443/data/a.png",
        "https://ls.example.org.evil.org/data/a.png",
        "https://ls.example.org@evil.org/data/a.png",
        "https://evil.org#@ls.example.org/data/a.png",
        "//evil.org/data/a.png",
        "\\\\evil.org\\data\\a.png",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "s3://bucket/data/a.png",
        "/api/users/",
        "/data/../api/users/",
        "/data/%2e%2e/api/users/",
        "/data/..%2f..%2fapi/users/",
        "/data//../../api/users",
        "/data/x\r\nHost: evil.org",
        "/data/a b.png",
        "https://[/data/",
        "https://ls.example.org:x/data/",
        "",
    ],
)
def test_nothing_else_is_asked(address: str) -> None:
    with LabelStudioHost("https://ls.example.org", "token", 1) as host:
        with pytest.raises(ImageError) as caught:
            host.path_of(address)
        assert caught.value.hint


def fetched(host: Host, path: str = "/data/x", token: str = "", most: int = 1000) -> bytes:
    with LabelStudioHost(host.url, token, most) as fetcher:
        return fetcher._fetch(fetcher.path_of(path))


def test_files_that_cannot_be_fetched(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.files = {"/data/x": (200, b"x" * 1000), "/data/elsewhere": (302, b"")}
    assert fetched(host) == b"x" * 1000
    with pytest.raises(ImageError, match="over the limit of 999") as caught:
        fetched(host, most=999)
    assert caught.value.code == "too_large"
    host.headers = {"Location": f"{host.url}/data/x"}
    with pytest.raises(ImageError, match="302"):
        fetched(host, "/data/elsewhere")
    with pytest.raises(ImageError, match="404"):
        fetched(host, "/data/gone")
    host.headers, host.cut = {}, 10
    with pytest.raises(ImageError, match="cut off"):
        fetched(host)
    host.cut = 0
    monkeypatch.setattr(label_studio_host, "_MOST_SECONDS", -1.0)
    with pytest.raises(ImageError, match="in time"):
        fetched(host)


def test_tokens(host: Host) -> None:
    host.files = {
        "/data/x": (200, b"x"),
        "/api/token/refresh": (200, json.dumps({"access": "short"}).encode()),
    }
    fetched(host)
    fetched(host, token="0123abc")
    with LabelStudioHost(host.url, "a.b.c", 1000) as fetcher:
        for _ in range(2):
            assert fetcher._fetch("/data/x") == b"x"
    assert host.asked == [
        ("/data/x", ""),
        ("/data/x", "Token 0123abc"),
        ("/api/token/refresh", ""),
        ("/data/x", "Bearer short"),
        ("/data/x", "Bearer short"),
    ]
    host.files["/api/token/refresh"] = (401, b"")
    with pytest.raises(ImageError, match="does not take our access token"):
        fetched(host, token="a.b.c")


def test_an_image_that_never_comes_ends_with_the_request(
    host: Host, tiny_index: Path, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer has no prediction, and comes all the same."""
    monkeypatch.setattr(label_studio_host, "_SILENCE_SECONDS", 0.05)
    client = make_client(label_studio=host.url)

    def slow(self: Any, path: str) -> bytes:
        time.sleep(0.2)
        raise ImageError("Label Studio does not answer in time")

    monkeypatch.setattr(LabelStudioHost, "_fetch", slow)
    assert predict(client, task(1, "/data/x")).json()["results"] == [[]]
