"""The images to review next, over HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from asking import build, cpu_settings, drawing, problem
from starlette.testclient import TestClient

from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.indexing.correct import relabel_images
from annotator.queue.rank import rank_indexed
from annotator.tables.corrections import WantedLabels
from index import open_index
from service.app import create_app
from service.corrections import opened_for_writing
from service.engine import open_engine
from service.keys import Keys
from service.schemas import QueueOut

READER, CORRECTOR = "r" * 20, "c" * 20


@pytest.fixture(scope="module")
def wrong_index(tmp_path_factory: pytest.TempPathFactory, tiny_embedder: TorchEmbedder) -> Path:
    """Drawings of three kinds, of which two have another kind's concept."""
    directory = tmp_path_factory.mktemp("queue") / "index"
    build(directory, tiny_embedder, n=30, wrong={3: "C1", 7: "C0"})
    return directory


@pytest.fixture
def client(wrong_index: Path, tmp_path: Path, tiny_embedder: TorchEmbedder) -> Iterator[TestClient]:
    index = Path(shutil.copytree(wrong_index, tmp_path / "index"))
    given = cpu_settings(index, writable=True, api_key_file=Path("keys.txt"))
    with ExitStack() as stack:
        store = stack.enter_context(opened_for_writing(given))
        keys = Keys([f"read:{READER}", f"correct:{CORRECTOR} Ada"])
        app = create_app(given, open_engine(given, tiny_embedder), keys, store)
        client = TestClient(app, "http://127.0.0.1", headers={"X-API-Key": CORRECTOR})
        yield stack.enter_context(client)


def queue(client: TestClient, **query: int) -> QueueOut:
    answer = client.get("/v1/queue", params=query, headers={"X-API-Key": READER})
    assert answer.status_code == 200, answer.text
    return QueueOut.model_validate(answer.json())


def correct(client: TestClient, id_: str, *concepts: str) -> None:
    body = {"concepts": concepts}
    answer = client.patch(f"/v1/images/{id_}", json=body, headers={"If-Match": "*"})
    assert answer.status_code == 200, answer.text


def test_doubtful_images_are_queued(client: TestClient, wrong_index: Path) -> None:
    found = queue(client)
    assert {item.id for item in found.items[:2]} == {"train03", "train07"}
    assert "lacks C0" in next(item.reason for item in found.items if item.id == "train03")
    gains = [item.gain for item in found.items]
    assert gains == sorted(gains, reverse=True)
    stored = open_index(wrong_index)
    expected = rank_indexed(stored, client.app.state.service.engine.annotator.voting, 50)  # type: ignore[attr-defined]
    assert [item.id for item in found.items] == [item.image_id for item in expected.items]
    assert found.total == expected.total
    assert queue(client, limit=1).items == found.items[:1]


def test_the_queue_and_the_list_by_doubt_have_one_judgement(client: TestClient) -> None:
    items = queue(client).items
    judged = client.app.state.judgements._judged  # type: ignore[attr-defined]
    listed = client.get("/v1/images", params={"sort": "doubt"}, headers={"X-API-Key": READER})
    assert client.app.state.judgements._judged is judged  # type: ignore[attr-defined]
    doubts = {image["id"]: image["doubt"] for image in listed.json()["images"]}
    assert {item.id for item in items} == {id_ for id_, doubt in doubts.items() if doubt > 0}


def test_what_somebody_corrected_is_not_asked_again(client: TestClient) -> None:
    before = queue(client)
    correct(client, "train03", "C0", "C9")
    after = queue(client)
    assert [i.id for i in after.items] == [i.id for i in before.items if i.id != "train03"]
    assert after.total == before.total - 1
    added = client.post("/v1/images?id=new&concepts=C7", files={"image": drawing(1)})
    assert added.status_code == 201
    client.app.state.judgements._judged = None  # type: ignore[attr-defined]
    assert "new" not in {item.id for item in queue(client).items}


def test_after_some_corrections_the_rest_is_ranked_anew(client: TestClient) -> None:
    before = queue(client)
    first = client.app.state.judgements  # type: ignore[attr-defined]
    ranked = first._judged
    kind = dict.fromkeys((f"train{number:02d}" for number in range(0, 27, 3)), ("C5", "C9"))
    for id_, concepts in kind.items():
        correct(client, id_, *concepts)
    queue(client)
    assert first._again is None and first._judged is ranked  # too few
    for number in range(1, 27, 3):
        correct(client, f"train{number:02d}", "C6", "C9")
    for number in range(2, 12, 3):
        correct(client, f"train{number:02d}", "C7", "C9")
    assert {item.id for item in queue(client).items} <= {item.id for item in before.items}
    while first._judged is ranked:
        queue(client)
    # The images of the first kind that were left as they were are the odd ones now.
    asked = [item.id for item in queue(client).items]
    assert "train27" in asked and not set(asked) & kind.keys()


def test_a_version_that_is_reloaded_is_ranked(
    wrong_index: Path, tmp_path: Path, tiny_embedder: TorchEmbedder
) -> None:
    index = Path(shutil.copytree(wrong_index, tmp_path / "index"))
    given = cpu_settings(index, allow_reload=True, api_key_file=Path("keys.txt"))
    app = create_app(given, open_engine(given, tiny_embedder), Keys([f"read:{READER}", CORRECTOR]))
    with TestClient(app, "http://127.0.0.1", headers={"X-API-Key": CORRECTOR}) as client:
        assert "train03" in {item.id for item in queue(client).items}
        change = {"train03": WantedLabels(("C0", "C9"))}
        relabel_images(index, change, by="Ada", reason="", names={})
        assert "train03" in {item.id for item in queue(client).items}
        assert client.post("/v1/reload").json()["changed"]
        assert "train03" not in {item.id for item in queue(client).items}


def test_what_is_refused(client: TestClient) -> None:
    assert problem(client.get("/v1/queue?limit=501")) == (422, "invalid_parameter")
    assert problem(client.get("/v1/queue", headers={"X-API-Key": "x" * 20}))[0] == 401
