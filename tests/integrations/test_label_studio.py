"""The way through a real Label Studio: predicted, annotated, corrected, exported, and back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from asking import Server, serving, wait_for
from invoking import invoke
from servers import free_port, require, wait_until

from index import open_index

ROOT = Path(__file__).parents[2]
PROGRAM = Path(
    os.environ.get("ANNOTATOR_LABEL_STUDIO") or ROOT / ".venv-label-studio/bin/label-studio"
)
TOKEN = "0123456789abcdef0123456789abcdef01234567"
ANNOTATOR, CORRECTOR = "a-key-that-annotates", "a-key-that-corrects-too"
IMAGES = 12

pytestmark = pytest.mark.slow


class LabelStudio:
    """A running server, with a client that is let in."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._token = ""
        self.client = httpx.Client(
            base_url=url, headers={"Authorization": f"Token {TOKEN}"}, timeout=120
        )

    def get(self, path: str, **query: Any) -> Any:
        return self._json(self.client.get(path, params=query))

    def post(self, path: str, body: Any = None, query: Any = None, **options: Any) -> Any:
        return self._json(self.client.post(path, json=body, params=query, **options))

    def patch(self, path: str, body: Any) -> Any:
        return self._json(self.client.patch(path, json=body))

    @staticmethod
    def _json(answer: httpx.Response) -> Any:
        assert answer.is_success, answer.text
        return answer.json()

    def personal_token(self) -> str:
        """Of which there can be one."""
        self._token = self._token or self.post("/api/token/")["token"]
        return self._token

    def project(self, config: str) -> int:
        return int(self.post("/api/projects", {"title": "Tests", "label_config": config})["id"])

    def upload(self, project: int, *files: Path) -> None:
        """Upload images: each becomes a task."""
        for file in files:
            sent = [("file", (file.name, file.read_bytes(), "image/png"))]
            answer = self.client.post(f"/api/projects/{project}/import", files=sent)
            assert answer.is_success, answer.text

    def tasks(self, project: int) -> dict[str, Any]:
        """Tasks with annotations and predictions, by the id of their image."""
        listed = self.get("/api/tasks", project=project, page_size=100)["tasks"]
        tasks = [self.get(f"/api/tasks/{one['id']}") for one in listed]
        return {one["data"]["image"].rpartition("-")[2].removesuffix(".png"): one for one in tasks}

    def predict(self, project: int) -> None:
        self.post(
            "/api/dm/actions",
            {"selectedItems": {"all": True, "excluded": []}},
            {"id": "retrieve_tasks_predictions", "project": project},
        )

    def connect(self, project: int, server: Server, key: str = ANNOTATOR) -> httpx.Response:
        return self.client.post(
            "/api/ml",
            json={
                "project": project,
                "url": f"{server.url}/label-studio",
                "title": "annotator",
                "auth_method": "BASIC_AUTH",
                "basic_auth_user": "annotator",
                "basic_auth_pass": key,
            },
        )


def result(*choices: str) -> list[dict[str, Any]]:
    value = {"choices": list(choices)}
    return [{"from_name": "concepts", "to_name": "image", "type": "choices", "value": value}]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    """With a database of its own, nothing sent to its makers, reached from this machine alone."""
    require("Label Studio", PROGRAM.exists())
    folder = tmp_path_factory.mktemp("label-studio")
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(tmp_path_factory.getbasetemp()),
        "WEBHOOK_TIMEOUT": "60",
        # Without these it calls nobody on this machine.
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
    }
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [
                *(PROGRAM, "start", "--no-browser", "--data-dir", folder),
                *("--internal-host", "127.0.0.1", "--port", str(port)),
                *("--username", "ada@example.org", "--password", "a password of the tests"),
                *("--user-token", TOKEN, "--enable-legacy-api-token"),
            ],
            stdout=file,
            stderr=file,
            env=environment,
            cwd=folder,
        )
    started = LabelStudio(f"http://127.0.0.1:{port}")

    def is_ready() -> bool:
        try:
            return started.client.get("/api/projects").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(process, log, is_ready)
        yield started
    finally:
        started.client.close()
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, draw: Callable[[Path, int, int], None]) -> Path:
    """A folder with images, an index of them, and a new image."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "images").mkdir()
    rows = []
    for i in range(IMAGES):
        draw(folder / "images" / f"scan{i:02d}.png", i % 3, i)
        rows.append(f"scan{i:02d},C000000{i % 3};C0000009\n")
    draw(folder / "new.png", 1, 100)
    (folder / "concepts.csv").write_text("ID,CUIs\n" + "".join(rows))
    (folder / "names.csv").write_text("CUI,Name\nC0000009,In all of them\nC0000001,Waves\n")
    built = invoke(
        *("build-index", folder / "images", folder / "concepts.csv", "--k", 3),
        *("--names", folder / "names.csv", "--index", folder / "index"),
    )
    assert built.exit_code == 0, built.stderr
    return folder


@contextmanager
def back_end(index: Path, studio: LabelStudio, token: str) -> Iterator[Server]:
    """The real command."""
    keys = index.parent / "keys.txt"
    keys.touch(mode=0o600)
    keys.write_text(f"annotate:{ANNOTATOR}\ncorrect:{CORRECTOR} Ada Lovelace\n")
    with serving(
        *(index, "--writable", "--api-key-file", keys, "--label-studio", studio.url),
        label_studio_token=token,
    ) as server:
        server.client.headers["X-API-Key"] = CORRECTOR
        yield server


def labels(server: Server, id_: str) -> list[str] | None:
    answer = server.client.get(f"/v1/images/{id_}")
    return None if answer.status_code == 404 else list(answer.json()["concepts"])


def test_the_whole_way(studio: LabelStudio, place: Path, tmp_path: Path) -> None:
    index = Path(shutil.copytree(place / "index", tmp_path / "index"))
    untouched = Path(shutil.copytree(place / "index", tmp_path / "untouched"))
    personal = studio.personal_token()
    config = invoke("concepts", "label-studio", "--uploads", "--index", index).stdout
    project = studio.project(config)
    studio.upload(project, *(place / "images" / f"scan{i:02d}.png" for i in range(5)))
    studio.upload(project, place / "new.png")

    with back_end(index, studio, personal) as server:
        wrong = studio.connect(project, server, "no key")
        assert wrong.status_code == 400 and "authentication" in wrong.text
        connected = studio.connect(project, server)
        assert connected.status_code == 201, connected.text
        assert connected.json()["model_version"].startswith("annotator v")
        (hook,) = studio.get("/api/webhooks/", project=project)
        assert hook["url"] == f"{server.url}/label-studio/webhook"

        # Predicted.
        studio.predict(project)
        tasks = studio.tasks(project)
        assert sorted(tasks) == ["new", *(f"scan{i:02d}" for i in range(5))]
        run = invoke("annotate", place / "new.png", "--index", untouched, "--format", "2026").stdout
        (prediction,) = tasks["new"]["predictions"]
        chosen = prediction["result"][0]["value"]["choices"]
        assert sorted(chosen) == sorted(run.splitlines()[1].partition(",")[2].split(";"))
        assert all(len(one["predictions"]) == 1 for one in tasks.values())

        # Annotated. Before the webhook has a key, nothing changes.
        def annotate(id_: str, *choices: str, **more: Any) -> Any:
            path = f"/api/tasks/{tasks[id_]['id']}/annotations/"
            return studio.post(path, {"result": result(*choices), **more})

        annotate("scan00", "C0000002")
        assert labels(server, "scan00") == ["C0000000", "C0000009"]
        hook["headers"] = {"X-API-Key": CORRECTOR}
        studio.patch(f"/api/webhooks/{hook['id']}/", hook)
        first = annotate("scan01", "C0000002", "C0000009")
        wait_for(lambda: labels(server, "scan01") == ["C0000002", "C0000009"])
        studio.patch(f"/api/annotations/{first['id']}/", {"result": result("C0000002")})
        wait_for(lambda: labels(server, "scan01") == ["C0000002"])
        annotate("scan02", "C0000001", was_cancelled=True)
        annotate("new", "C0000002")
        wait_for(lambda: labels(server, "new") == ["C0000002"])
        assert labels(server, "scan02") == ["C0000002", "C0000009"]

        # Learnt: other neighbours vote, and the next version predicts anew.
        answer = server.client.post(
            "/v1/annotate", files={"image": ("x.png", (place / "new.png").read_bytes())}
        )
        assert answer.json()["results"][0]["neighbors"][0]["id"] == "new"
        version = server.client.get("/v1/info").json()["index"]["version"]
        wait_for(lambda: server.client.get("/v1/info").json()["index"]["version"] != version)
        studio.predict(project)
        again = studio.tasks(project)["scan04"]["predictions"]
        assert len({one["model_version"] for one in again}) == 2

    # Who and why.
    history = [
        json.loads(line)
        for line in invoke("history", "--index", index, "--format", "json").stdout.splitlines()
    ]
    assert [one["id"] for one in history] == ["scan01", "scan01", "new"]
    assert {one["by"] for one in history} == {"Ada Lovelace"}
    assert all(one["reason"].startswith(f"Label Studio: project {project}") for one in history)

    # Exported, and read by `relabel`, which has no pictures.
    for kind in ("JSON", "JSON_MIN", "CSV"):
        export = studio.client.get(f"/api/projects/{project}/export", params={"exportType": kind})
        assert export.is_success, export.text
        path = tmp_path / f"{kind}.{'csv' if kind == 'CSV' else 'json'}"
        path.write_bytes(export.content)
        copy = Path(shutil.copytree(untouched, tmp_path / kind))
        done = invoke("relabel", path, "--index", copy)
        assert done.exit_code == 3, done.stderr  # `new` is not in the index
        assert f"an export of Label Studio ({kind})" in done.stderr
        stored = open_index(copy)
        rows = {id_: stored.labels.row(row) for row, id_ in enumerate(stored.ids)}
        assert rows["scan00"] == rows["scan01"] == ("C0000002",)
        assert rows["scan02"] == ("C0000002", "C0000009")


def test_tasks_with_predictions_from_a_local_storage(
    studio: LabelStudio, place: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`annotate` has written them; later on the back end predicts them, too."""
    config = invoke("concepts", "label-studio", "--index", place / "index").stdout
    project = studio.project(config)
    below = (place / "images").relative_to(tmp_path_factory.getbasetemp())
    written = invoke(
        *("annotate", place / "images", "--index", place / "index", "--exclude-self"),
        *("--format", "label-studio", "--output", tmp_path / "tasks.json"),
        *("--url-prefix", f"/data/local-files/?d={below}/"),
    )
    assert written.exit_code == 0, written.stderr
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    storage = {"project": project, "path": str(place / "images"), "use_blob_urls": True}
    studio.post("/api/storages/localfiles", storage)
    answer = studio.post(f"/api/projects/{project}/import", tasks)
    assert (answer["task_count"], answer["prediction_count"]) == (IMAGES, IMAGES)
    index = Path(shutil.copytree(place / "index", tmp_path / "index"))
    personal = studio.personal_token()
    with back_end(index, studio, personal) as server:
        assert studio.connect(project, server).status_code == 201
        studio.predict(project)
    for one in studio.tasks(project).values():
        first, second = one["predictions"]
        assert {first["model_version"].split()[0], second["model_version"].split()[0]} == {
            "annotator",
            str(place / "index"),
        }
        assert first["result"][0]["value"] == second["result"][0]["value"]
        assert first["score"] == second["score"] > 0


def test_tasks_that_name_something_else(studio: LabelStudio, place: Path) -> None:
    """Tasks may name what the back end must not ask for: they get no prediction."""
    config = invoke("concepts", "label-studio", "--uploads", "--index", place / "index").stdout
    project = studio.project(config)
    elsewhere = ["http://127.0.0.1:9/data/x.png", "/api/current-user/whoami", "/data/../x.png"]
    studio.post(f"/api/projects/{project}/import", [{"image": one} for one in elsewhere])
    index = Path(shutil.copytree(place / "index", place / "again"))
    with back_end(index, studio, TOKEN) as server:
        assert studio.connect(project, server).status_code == 201
        studio.predict(project)
        listed = studio.get("/api/tasks", project=project)["tasks"]
        assert [one["total_predictions"] for one in listed] == [0, 0, 0]
        codes = {one.get("code") for one in server.log() if one["event"].startswith("a task")}
        assert codes == {"undecodable_image"}
