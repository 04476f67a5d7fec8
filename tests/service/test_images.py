"""Images of the index over HTTP: their labels, corrections, and who may make them."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from asking import build, cpu_settings, drawing, post, problem
from starlette.testclient import TestClient
from versions import numbered

from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.errors import AnnotatorError
from index import IndexProblem, open_index
from index.folder.journal import JOURNAL, Journal
from index.folder.location import FolderLocation
from service.app import create_app
from service.corrections import opened_for_writing
from service.engine import open_engine
from service.keys import Keys

READER, ANNOTATOR, CORRECTOR, OTHER = (f"{letter * 20}" for letter in "rabc")
KEYS = [f"read:{READER}", ANNOTATOR, f"correct:{CORRECTOR} Ada", f"correct:{OTHER}"]

Start = Callable[..., tuple[TestClient, Callable[[], None]]]


def header(key: str, **more: str) -> dict[str, str]:
    return {"X-API-Key": key, **{name.replace("_", "-"): value for name, value in more.items()}}


@pytest.fixture
def index(tiny_index: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(tiny_index, tmp_path / "index"))


@pytest.fixture
def start(index: Path, tiny_embedder: TorchEmbedder) -> Iterator[Start]:
    """Starts a service that takes corrections; `stop` ends it as a signal does."""
    with ExitStack() as every:

        def start(**options: Any) -> tuple[TestClient, Callable[[], None]]:
            stack = every.enter_context(ExitStack())
            given = cpu_settings(index, writable=True, api_key_file=Path("keys.txt"), **options)
            store = stack.enter_context(opened_for_writing(given))
            app = create_app(given, open_engine(given, tiny_embedder), Keys(KEYS), store)
            client = TestClient(app, "http://127.0.0.1", raise_server_exceptions=False)
            return stack.enter_context(client), stack.close

        yield start


@pytest.fixture
def client(start: Start) -> TestClient:
    client, _ = start()
    client.headers["X-API-Key"] = CORRECTOR
    return client


def etag(client: TestClient, id_: str) -> str:
    return str(client.get(f"/v1/images/{id_}").headers["etag"])


def correct(client: TestClient, id_: str, tag: str | None = None, **body: Any) -> Any:
    return client.patch(
        f"/v1/images/{id_}", json=body, headers={"If-Match": tag or etag(client, id_)}
    )


def test_an_image(client: TestClient) -> None:
    answer = client.get("/v1/images/train01")
    assert answer.json() == {
        "id": "train01",
        "concepts": ["C1", "C9"],
        "names": {"C1": "Ünd <one>", "C9": "In all of them"},
        "caption": "Drawing 1.",
        "group": "",
        "thumbnail": None,
        "index_version": client.get("/v1/info").json()["index"]["version"],
    }
    same = client.get("/v1/images/train01", headers={"If-None-Match": answer.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert etag(client, "train04") != etag(client, "train01")
    assert problem(client.get("/v1/images/nobody")) == (404, "no_such_image")


def test_a_correction_changes_the_next_answer(client: TestClient) -> None:
    picture = ("x.png", drawing(1))
    (before,) = post(client, picture).json()["results"]
    assert "C1" in [c["cui"] for c in before["concepts"]]
    for number in (1, 4, 7, 10):  # all that have it
        tag = etag(client, f"train{number:02d}")
        answer = correct(client, f"train{number:02d}", tag, concepts=["C5", "A mass"], reason="r")
        assert answer.status_code == 200
        assert answer.json()["concepts"] == ["A_MASS", "C5"]
        assert answer.json()["names"] == {"A_MASS": "A mass"}
        assert answer.headers["etag"] == etag(client, f"train{number:02d}") != tag
    (after,) = post(client, picture).json()["results"]
    assert {"A_MASS", "C5"} <= {c["cui"] for c in after["concepts"]}
    assert [n["id"] for n in after["neighbors"]] == [n["id"] for n in before["neighbors"]]
    listed = {c["cui"]: c["images"] for c in client.get("/v1/concepts").json()["concepts"]}
    assert listed["C5"] == listed["A_MASS"] == 4 and "C1" not in listed
    (found,) = client.get("/v1/search", params={"q": "A mass", "k": 1}).json()["cases"]
    assert found["cuis"] == ["A_MASS", "C5"]


def test_concepts_that_no_image_has_yet(start: Start, tmp_path: Path) -> None:
    table = tmp_path / "names.csv"
    table.write_text("CUI,Name\nC0018800,Cardiomegaly\nC1,Of another table\n")
    client, _ = start(names=table)
    client.headers["X-API-Key"] = CORRECTOR

    def suggested(text: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = client.get("/v1/concepts", params={"q": text}).json()[
            "concepts"
        ]
        return found

    new = {"cui": "C0018800", "name": "Cardiomegaly", "images": 0}
    assert suggested("cardio") == [new]
    assert [concept["name"] for concept in suggested("C1")] == ["Ünd <one>"]
    answer = correct(client, "train02", add=["C0018800"])
    assert answer.json()["names"]["C0018800"] == "Cardiomegaly"
    assert suggested("cardio") == [new | {"images": 1}]


def test_what_changes_is_added_and_removed(client: TestClient) -> None:
    assert correct(client, "train02", add=["C7"], remove=["C9", "C8"]).json()["concepts"] == [
        "C2",
        "C7",
    ]
    assert correct(client, "train02", remove=["C2", "C7"]).json()["concepts"] == []
    assert correct(client, "train02", concepts=[]).json()["concepts"] == []


def test_labels_that_are_confirmed(start: Start, index: Path) -> None:
    client, stop = start()
    client.headers["X-API-Key"] = CORRECTOR
    assert correct(client, "train02", concepts=["C2", "C9"]).status_code == 200
    assert correct(client, "train03", add=["C0"], reviewed=True).json()["concepts"] == ["C0", "C9"]
    stop()
    (kept,) = FolderLocation(index).history()
    assert (kept.image_id, kept.before, kept.after) == ("train03", ("C0", "C9"), ("C0", "C9"))


def test_of_two_people_the_second_sees_what_the_first_did(client: TestClient) -> None:
    tag = etag(client, "train03")
    assert correct(client, "train03", tag, concepts=["C5"]).status_code == 200
    late = correct(client, "train03", tag, concepts=["C6"])
    assert problem(late) == (412, "image_changed")
    present = late.json()["present"]
    assert (present["id"], present["concepts"]) == ("train03", ["C5"])
    assert present["etag"] == late.headers["etag"] == etag(client, "train03")
    assert correct(client, "train03", present["etag"], concepts=["C6"]).status_code == 200
    bare = client.patch("/v1/images/train03", json={"concepts": ["C7"]})
    assert problem(bare) == (428, "no_if_match")
    assert correct(client, "train03", "*", concepts=["C7"]).status_code == 200
    assert (
        correct(client, "train03", f'"x", {etag(client, "train03")}', add=["C8"]).status_code == 200
    )


def test_of_many_at_once_one_wins(client: TestClient, index: Path) -> None:
    tag = etag(client, "train03")
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda i: correct(client, "train03", tag, concepts=[f"C5{i}"]).status_code, range(8)
            )
        )
    assert sorted(answers) == [200, *[412] * 7]


def test_an_image_comes_and_goes(client: TestClient, index: Path) -> None:
    stripes = drawing(51, (90, 70))
    sent = {"concepts": ["C3", "new sign"], "caption": "Late.", "reason": "asked for"}
    answer = client.post("/v1/images", params=sent, files={"f": ("late/x.png", stripes)})
    assert (answer.status_code, answer.headers["location"]) == (201, "/v1/images/x")
    assert answer.json()["concepts"] == ["C3", "NEW_SIGN"]
    assert answer.json()["caption"] == "Late."
    (result,) = post(client, ("again.png", stripes)).json()["results"]
    assert result["same_image"] == "x" and result["neighbors"][0]["id"] == "x"
    again = client.post("/v1/images", params={"id": "x"}, content=stripes,
                        headers={"Content-Type": "image/png"})  # fmt: skip
    assert problem(again) == (409, "image_exists")
    assert correct(client, "x", concepts=["C4"]).status_code == 200
    assert client.get("/v1/info").json()["index"]["images"] == 13
    wrong = client.delete("/v1/images/x", headers={"If-Match": '"old"'})
    assert problem(wrong) == (412, "image_changed")
    assert client.delete("/v1/images/x", params={"reason": "withdrawn"}).status_code == 204
    assert problem(client.get("/v1/images/x")) == (404, "no_such_image")
    assert problem(client.delete("/v1/images/x")) == (404, "no_such_image")
    (result,) = post(client, ("again.png", stripes)).json()["results"]
    assert result["same_image"] is None
    other = client.post("/v1/images", params={"id": "y"}, files={"f": ("n.png", drawing(52))})
    assert other.status_code == 201 and other.json()["concepts"] == []


def test_the_last_image_stays(client: TestClient) -> None:
    for number in range(11):
        assert client.delete(f"/v1/images/train{number:02d}").status_code == 204
    assert problem(client.delete("/v1/images/train11")) == (409, "last_image")
    assert client.get("/v1/info").json()["index"]["images"] == 1
    assert post(client, ("x.png", drawing(1))).status_code == 200


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b'{"concepts": ["C5"]}', "text/plain", (415, "unsupported_media_type")),
        (b"{", "application/json", (422, "malformed_correction")),
        (b"[]", "application/json", (422, "malformed_correction")),
        (b"{}", "application/json", (422, "malformed_correction")),
        (b'{"concepts": ["C5"], "add": ["C6"]}', "application/json", (422, "malformed_correction")),
        (b'{"concept": ["C5"]}', "application/json", (422, "malformed_correction")),
        (b'{"concepts": [5]}', "application/json", (422, "malformed_correction")),
        (b'{"concepts": ["C00O0001"]}', "application/json", (422, "invalid_label")),
        (b'{"concepts": ["' + b"x" * 300_000 + b'"]}', "application/json", (413, "body_too_large")),
    ],
)
def test_bodies_that_are_refused(
    client: TestClient, index: Path, body: bytes, kind: str, expected: tuple[int, str]
) -> None:
    headers = {"If-Match": etag(client, "train00"), "Content-Type": kind}
    answer = client.patch("/v1/images/train00", content=body, headers=headers)
    assert problem(answer) == expected
    assert client.get("/v1/images/train00").json()["concepts"] == ["C0", "C9"]
    assert (index / JOURNAL).read_bytes() == b""


def test_images_that_are_refused(client: TestClient) -> None:
    both = [("f", ("a.png", drawing(1))), ("f", ("b.png", drawing(2)))]
    assert problem(client.post("/v1/images", files=both)) == (422, "several_images")
    assert problem(client.post("/v1/images", files={"f": ("a.png", b"no")})) == (
        415,
        "unknown_format",
    )
    bad = client.post("/v1/images", params={"id": "a\tb"}, files={"f": ("a.png", drawing(1))})
    assert problem(bad) == (422, "invalid_id")
    bad = client.post("/v1/images", params={"concepts": "C00O01"}, files={"f": ("a", drawing(1))})
    assert problem(bad) == (422, "invalid_label")
    assert client.get("/v1/info").json()["index"]["images"] == 12


# Who may


def test_what_each_role_may_do(client: TestClient) -> None:
    del client.headers["X-API-Key"]
    tag = client.get("/v1/images/train00", headers=header(READER)).headers["etag"]
    asks: dict[str, Callable[[str], Any]] = {
        "read": lambda key: client.get("/v1/concepts", headers=header(key)),
        "annotate": lambda key: client.post(
            "/v1/annotate", content=drawing(0), headers=header(key, Content_Type="image/png")
        ),
        "correct": lambda key: client.patch(
            "/v1/images/train00",
            json={"concepts": ["C0", "C9"]},
            headers=header(key, If_Match=tag),
        ),
        "add": lambda key: client.post("/v1/images", headers=header(key)),
        "remove": lambda key: client.delete("/v1/images/nobody", headers=header(key)),
    }
    allowed = {
        READER: {"read"},
        ANNOTATOR: {"read", "annotate"},
        CORRECTOR: set(asks),
        "x" * 20: set(),
    }
    for key, may in allowed.items():
        for what, ask in asks.items():
            answer = ask(key)
            refused = problem(answer) if answer.status_code in (401, 403) else None
            stranger = key == "x" * 20
            expected = (401, "unauthorized") if stranger else (403, "forbidden")
            assert refused == (None if what in may else expected), (key, what)


def test_a_service_that_is_read_only(make_client: Callable[..., TestClient]) -> None:
    client = make_client(KEYS)
    client.headers["X-API-Key"] = CORRECTOR
    assert client.get("/v1/images/train00").status_code == 200
    assert problem(correct(client, "train00", concepts=[])) == (403, "read_only")
    assert problem(client.delete("/v1/images/train00")) == (403, "read_only")
    added = client.post("/v1/images", files={"f": ("a.png", drawing(1))})
    assert problem(added) == (403, "read_only")


# What stays


def test_corrections_become_one_version(start: Start, index: Path) -> None:
    client, stop = start()
    client.headers["X-API-Key"] = CORRECTOR
    for i in range(12):
        assert correct(client, f"train{i:02d}", concepts=[f"C7{i}"], reason="r").status_code == 200
    client.patch(
        "/v1/images/train00",
        json={"add": ["C1"]},
        headers=header(OTHER, If_Match=etag(client, "train00")),
    )
    client.post("/v1/images", params={"concepts": "C1"}, files={"f": ("x.png", drawing(5))})
    client.delete("/v1/images/train11")
    assert numbered(open_index(index).version) == "v000001"
    stop()
    stored = open_index(index)
    assert numbered(stored.version) == "v000002" and stored.manifest.n == 12
    assert stored.labels.row(stored.row_of["train03"]) == ("C73",)
    assert stored.labels.row(stored.row_of["train00"]) == ("C1", "C70")
    assert (index / JOURNAL).read_bytes() == b""
    place = FolderLocation(index)
    assert place.problems() == []
    history = place.history()
    assert [one.number for one in history] == list(range(1, 16))
    assert {one.by for one in history[:12]} == {"Ada"} and history[0].reason == "r"
    assert history[12].by.startswith("key ") and OTHER not in json.dumps(history[12].to_dict())
    assert (history[13].before, history[14].after) == (None, None)


def test_a_reload_publishes_what_waits(client: TestClient, index: Path) -> None:
    app: Any = client.app
    correct(client, "train00", concepts=["C5"])
    service = app.state.service
    assert service.corrections.waiting == 1
    assert client.portal is not None
    assert client.portal.call(service.reload) is True
    assert numbered(open_index(index).version) == "v000002" and service.corrections.waiting == 0
    answer = client.get("/v1/images/train00").json()
    assert (answer["concepts"], numbered(answer["index_version"])) == (["C5"], "v000002")
    assert client.portal.call(service.reload) is False
    assert correct(client, "train00", concepts=["C6"]).status_code == 200


def test_corrections_while_others_are_published(client: TestClient, index: Path) -> None:
    """Nothing that is accepted is ever not seen."""
    app: Any = client.app
    assert client.portal is not None
    stop = threading.Event()
    wrong: list[Any] = []

    def correcting(letter: str) -> None:
        number = 0
        while not stop.is_set():
            wanted = [f"C5{number}"]
            answer = correct(client, f"train0{letter}", concepts=wanted)
            seen = client.get(f"/v1/images/train0{letter}").json()["concepts"]
            if answer.status_code != 200 or seen != wanted:
                wrong.append((answer.status_code, seen, wanted))
            number += 1

    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(correcting, letter) for letter in "123"]
        for _ in range(4):
            time.sleep(0.1)
            client.portal.call(app.state.service.corrections.fold)
        stop.set()
        for one in done:
            one.result()
    assert wrong == []


def test_a_disk_that_is_full_refuses_and_forgets(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = etag(client, "train00")
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", _full)
        assert problem(correct(client, "train00", concepts=["C5"])) == (503, "journal_failed")
        assert problem(client.delete("/v1/images/train01")) == (503, "journal_failed")
    assert etag(client, "train00") == before
    assert correct(client, "train00", before, concepts=["C6"]).status_code == 200
    assert client.delete("/v1/images/train01").status_code == 204


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_second_process_is_refused(start: Start, index: Path) -> None:
    _, stop = start()
    with pytest.raises(IndexProblem, match="Another process is writing"):
        start()
    with pytest.raises(IndexProblem, match="Another process is writing"):
        FolderLocation(index).remove_rows(["train00"])
    stop()
    start()


def test_an_index_in_milvus_takes_no_corrections() -> None:
    given = cpu_settings(Path("x"), writable=True, api_key_file=Path("keys.txt"))
    given = given.model_copy(update={"index": "milvus://127.0.0.1:1/x"})
    with pytest.raises(AnnotatorError, match="takes no corrections"), opened_for_writing(given):
        pass


def test_answers_are_the_same_before_and_after_publishing(
    tmp_path: Path, tiny_embedder: TorchEmbedder
) -> None:
    build(tmp_path / "index", tiny_embedder, n=60, tuning=True)
    given = cpu_settings(tmp_path / "index", writable=True, api_key_file=Path("keys.txt"))
    with opened_for_writing(given) as store:
        app = create_app(given, open_engine(given, tiny_embedder), Keys(KEYS), store)
        with TestClient(app, "http://127.0.0.1", headers=header(CORRECTOR)) as client:
            for id_ in ("train03", "train04"):
                assert correct(client, id_, concepts=["C5"]).status_code == 200
            assert client.delete("/v1/images/train09").status_code == 204
            sent = {"f": ("x.png", drawing(301))}
            assert client.post("/v1/images", params={"concepts": "C5"}, files=sent).is_success
            answers = []
            for published in (False, True):
                if published:
                    assert client.portal is not None
                    assert client.portal.call(app.state.service.reload)
                # One by one: a vector's last digits depend on what is encoded with it.
                alone = [post(client, ("q.png", drawing(100 + i))) for i in range(6)]
                answers.append([answer.json()["results"][0] for answer in alone])
    assert answers[0] == answers[1]
    assert all(result["familiarity"] is not None for result in answers[0])
    shown = {n["id"] for result in answers[0] for n in result["neighbors"]}
    assert "train09" not in shown
