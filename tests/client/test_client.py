"""The clients against the real server."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "service"))  # for `asking`

from asking import build, drawing, finish, metric, serving, started_request, wait_for

from annotator.client import AsyncClient, Client, ImageChanged, ServiceError, ServiceProblem

if TYPE_CHECKING:
    from annotator.encoders.embedder import Embedder

pytestmark = pytest.mark.slow

KEY = "a-key-of-the-tests-0123456789"
BEARER = {"Authorization": f"Bearer {KEY}"}


class InTurn:
    """An `AsyncClient` whose calls are waited for, so that both clients pass the same tests."""

    def __init__(self, client: AsyncClient, loop: asyncio.AbstractEventLoop) -> None:
        self._client, self._loop = client, loop

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            made = getattr(self._client, name)(*args, **options)
            if inspect.isasyncgen(made):
                return iter(self._loop.run_until_complete(_all(made)))
            return self._loop.run_until_complete(made)

        return call


async def _all(items: Any) -> list[Any]:
    return [item async for item in items]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server with room for two images at once, which takes corrections."""
    from annotator.encoders.registry import make_embedder

    folder = tmp_path_factory.mktemp("client")
    embedder: Embedder = make_embedder(device="cpu")
    build(folder / "index", embedder)
    keys = folder / "keys"
    keys.touch(0o600)
    keys.write_text(f"correct:{KEY} Ada\n")
    arguments = ("--api-key-file", keys, "--allow-reload", "--writable", "--max-queue", 2)
    with serving(folder / "index", *arguments) as running:
        yield running


@pytest.fixture(params=["sync", "async"])
def client(server: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "sync":
        with Client(server.url, api_key=KEY) as made:
            yield made
        return
    with asyncio.Runner() as runner:
        asked = InTurn(AsyncClient(server.url, api_key=KEY), runner.get_loop())
        yield asked
        asked.close()


def test_images_are_annotated(client: Any, tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    path.write_bytes(drawing(50))
    answer = client.annotate([path, ("named.png", drawing(51))], neighbors=2, exclude_self=True)
    assert [result["id"] for result in answer["results"]] == ["scan", "named"]
    assert all(len(result["neighbors"]) == 2 for result in answer["results"])
    assert answer["results"][0]["concepts"] and answer["names"]["C9"] == "In all of them"
    again = client.annotate(path, neighbors=2, exclude_self=True)
    assert again["results"] == answer["results"][:1]

    made = client.embed(path)
    model = client.info()["model"]
    assert made["model"] == model and len(made["vectors"][0]) == made["dim"]
    voted = client.annotate_vectors(
        made["vectors"], ids=["scan"], fingerprint=model["fingerprint"], neighbors=2
    )
    assert [c["cui"] for c in voted["results"][0]["concepts"]] == [
        c["cui"] for c in again["results"][0]["concepts"]
    ]


def test_many_images_go_in_several_requests(client: Any) -> None:
    files = [drawing(50), b"no image", drawing(51), drawing(52), b""]
    results = list(client.annotate_many(files, at_once=2))
    assert [result["id"] for result in results] == [f"image-{i}" for i in range(1, 6)]
    codes = [result["error"] and result["error"]["code"] for result in results]
    assert codes == [None, "unknown_format", None, None, "undecodable_image"]
    with pytest.raises(ServiceProblem) as caught:  # more than the service takes at once
        list(client.annotate_many(files, at_once=3))
    assert (caught.value.status, caught.value.code) == (413, "too_many_images")
    with pytest.raises(ServiceProblem) as caught:
        list(client.annotate_many(files[:1], k=5000))
    assert caught.value.code == "invalid_parameter"


def test_cases_and_concepts_are_found(client: Any) -> None:
    assert client.concepts("C9")["concepts"] == [
        {"cui": "C9", "name": "In all of them", "images": 12}
    ]
    assert client.search("C1", k=2)["concept"]["cui"] == "C1"
    near = client.neighbors("train01", k=3)["results"][0]["cases"]
    assert len(near) == 3 and "train01" not in {case["id"] for case in near}
    (found,) = client.neighbors_of(drawing(1), k=1)["results"]
    assert found["cases"][0]["id"] == "train01"
    for problem, call in {
        "no_such_image": lambda: client.image("a/b?c=ü"),
        "no_picture": lambda: client.thumbnail("train01"),
    }.items():
        with pytest.raises(ServiceProblem) as caught:
            call()
        assert (caught.value.status, caught.value.code) == (404, problem)
        assert caught.value.hint and caught.value.request_id


def test_images_are_listed_reviewed_and_seen(client: Any) -> None:
    listed = client.images(concept=["C1", "C9"], limit=2, facets=True)
    assert [image["id"] for image in listed["images"]] == ["train01", "train04"]
    assert listed["facets"]["concepts"][0] == {"cui": "C1", "images": listed["total"]}
    assert client.images(like="train05", limit=1)["images"][0]["id"] == "train05"
    places = client.map(concept=["C1"])
    assert len(places["x"]) == len(places["y"]) == places["total"] == listed["total"]
    queue = client.queue(limit=1)
    assert len(queue["items"]) == min(queue["total"], 1)
    votes = client.votes("train01", neighbors=2)
    assert votes["results"][0]["id"] == "train01"
    picture = client.picture(("a.png", drawing(60)), side=16, center=100, width=50)
    assert picture.content.startswith(b"\x89PNG") and picture.window == (100, 50)
    assert (picture.frame, picture.frames) == (0, 1) and picture.levels[0] < picture.levels[1]
    with pytest.raises(ServiceProblem) as caught:
        client.stored_picture("train01", format="jpeg")
    assert caught.value.code == "no_picture"


def test_labels_are_corrected_unless_somebody_was_first(client: Any) -> None:
    seen = client.image("train02")
    assert seen["concepts"] == ["C2", "C9"]
    changed = client.relabel("train02", add=["C5"], reason="second reading", etag=seen["etag"])
    assert changed["concepts"] == ["C2", "C5", "C9"] and changed["etag"] != seen["etag"]
    with pytest.raises(ImageChanged) as caught:
        client.relabel("train02", ["C1"], etag=seen["etag"])
    assert (caught.value.etag, caught.value.concepts) == (changed["etag"], changed["concepts"])
    assert client.relabel("train02", ["C2", "C9"])["concepts"] == seen["concepts"]

    made = client.add_image(("new.png", drawing(70)), ["C7"], image_id="a/b?c=ü", reason="new")
    assert client.image("a/b?c=ü") == made | {"index_version": made["index_version"]}
    (found,) = client.neighbors_of(drawing(70), k=1)["results"]
    assert found["cases"][0]["id"] == "a/b?c=ü"
    with pytest.raises(ImageChanged):
        client.remove_image("a/b?c=ü", etag=seen["etag"])
    client.remove_image("a/b?c=ü", etag=made["etag"])
    with pytest.raises(ServiceProblem, match="no image of this id"):
        client.image("a/b?c=ü")
    assert "index_version" in client.reload()


def test_a_busy_service_is_asked_again(
    server: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = f"Authorization: Bearer {KEY}"
    held = [started_request(server, drawing(i), header) for i in range(2)]
    wait_for(lambda: metric(server, "annotator_admitted_images", BEARER) == 2)
    waited = []

    def make_room(seconds: float) -> None:
        waited.append(seconds)
        for i, connection in enumerate(held):
            assert finish(connection, drawing(i)[-1:])[0] == 200

    async def make_room_for_others(seconds: float) -> None:
        make_room(seconds)

    monkeypatch.setattr("annotator.client.client.time.sleep", make_room)
    monkeypatch.setattr("annotator.client.client.asyncio.sleep", make_room_for_others)
    answer = client.annotate([drawing(50), drawing(51)])
    assert len(answer["results"]) == 2
    assert len(waited) == 1 and 1 <= waited[0] <= 1.1  # as its Retry-After says


def test_a_wrong_key_and_a_wrong_address(server: Any) -> None:
    with Client(server.url, api_key="wrong") as client, pytest.raises(ServiceProblem) as caught:
        client.info()
    assert (caught.value.status, caught.value.code) == (401, "unauthorized")
    nobody = Client("http://127.0.0.1:1", patience_s=0)
    with nobody, pytest.raises(ServiceError, match="did not answer") as nowhere:
        nobody.info()
    assert "whether it runs" in nowhere.value.hint
