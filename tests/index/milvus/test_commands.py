"""The commands with an index in Milvus print what they print with one in a folder."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from annotator.cli import cli
from annotator.phantoms import SamplePaths, write_sample

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]


def invoke(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.stderr)
    return result


def info(index: object) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(invoke("info", "--index", index, "--json").stdout)
    return facts


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SamplePaths:
    return write_sample(tmp_path_factory.mktemp("milvus-sample") / "sample", n=120)


@pytest.fixture(scope="module")
def halves(sample: SamplePaths, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Concepts of the training side: of the images to build from, and of those to add."""
    folder = tmp_path_factory.mktemp("halves")
    with (sample.directory / "split.csv").open() as file:
        train = {row[0] for row in csv.reader(file) if row[1] == "train"}
    header, *lines = (sample.directory / "concepts.csv").read_text().splitlines()
    lines = [line for line in lines if line.split(",")[0] in train]
    for name, some in (("first.csv", lines[:-12]), ("rest.csv", lines[-12:])):
        (folder / name).write_text("\n".join([header, *some]) + "\n")
    return folder / "first.csv", folder / "rest.csv"


@pytest.fixture(scope="module")
def both(
    milvus: Any, sample: SamplePaths, halves: tuple[Path, Path], tmp_path_factory: Any
) -> tuple[Path, str]:
    """The same index in a folder and in Milvus."""
    folder, address = tmp_path_factory.mktemp("local") / "index", milvus.address("of_commands")
    options = ["--names", sample.directory / "concept_names.csv", "--thumbnails"]
    options += ["--captions", sample.directory / "captions.csv"]
    options += ["--groups", sample.directory / "patients.csv"]
    for index in (folder, address, address):  # the last time there is nothing to do
        said = invoke(
            "build-index", sample.directory / "images", halves[0], *options, "--index", index
        ).stderr
        assert f"{index}: version v000001" in said
    assert "(0 embedded" in said
    return folder, address


@pytest.fixture(scope="module")
def annotate(sample: SamplePaths) -> Callable[..., str]:
    def annotate(index: object, *options: object) -> str:
        images = [sample.directory / "images", "--split", sample.directory / "split.csv"]
        return invoke("annotate", *images, "--only", "test", "--index", index, *options).stdout

    return annotate


def check_same(both: tuple[Path, str], annotate: Callable[..., str]) -> None:
    """Runs byte for byte, and what the commands say of the index."""
    folder, address = both
    assert annotate(address) == annotate(folder) != ""
    assert "is sound" in invoke("verify", "--index", address).stderr
    same = ("images", "concepts", "concepts_per_image", "removed", "dim", "fingerprint", "columns")
    facts = [info(index) for index in both]
    for key in (*same, "voting", "most_frequent", "index_type"):
        assert facts[0][key] == facts[1][key], key


def check_explanations(both: tuple[Path, str], annotate: Callable[..., str]) -> None:
    """Neighbours, votes and captions, to what float32 tells apart."""
    local, milvus = (
        [json.loads(line) for line in annotate(i, "--format", "jsonl", "--explain").splitlines()]
        for i in both
    )
    assert any(neighbor["caption"] for fields in milvus for neighbor in fields["neighbors"])
    for mine, theirs in zip(local, milvus, strict=True):
        for neighbor, other in zip(mine["neighbors"], theirs["neighbors"], strict=True):
            for key in ("similarity", "weight"):
                assert abs(neighbor.pop(key) - other.pop(key)) < 3e-6
        for kind in ("concepts", "considered"):
            for concept, other in zip(mine[kind], theirs[kind], strict=True):
                assert abs(concept.pop("score") - other.pop("score")) < 1e-4
        assert abs(mine.pop("expected_f1") - theirs.pop("expected_f1")) < 0.02
        # A server has no vectors at hand, and goes by the nearest similarity alone.
        assert all(0 <= fields.pop("familiarity") <= 1 for fields in (mine, theirs))
        assert mine == theirs


def test_all_the_way(
    both: tuple[Path, str],
    annotate: Callable[..., str],
    sample: SamplePaths,
    halves: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    check_same(both, annotate)
    check_explanations(both, annotate)
    images = sample.directory / "images"
    first, rest = (path.read_text().splitlines() for path in halves)

    for index in both:
        said = invoke("add", images, halves[1], "--index", index).stderr
        assert "12 images added" in said
    error = invoke("add", images, halves[1], "--index", both[1], code=1).stderr
    assert "12 of the 12 images are in the index already" in error and "--replace" in error

    # Other concepts for three images that came, and three that were there.
    corrected = [f"{line.split(',')[0]},C0000001;C0040405" for line in [*first[1:4], *rest[1:4]]]
    (tmp_path / "corrected.csv").write_text("\n".join([first[0], *corrected]) + "\n")
    for index in both:
        said = invoke("add", images, tmp_path / "corrected.csv", "--replace", "--index", index)
        assert "6 images added, 6 of them in place of others" in said.stderr
    check_same(both, annotate)

    gone = [line.split(",")[0] for line in [first[2], first[9], rest[5]]]
    for index in both:
        said = invoke("remove", *gone, "--index", index).stderr
        assert "3 images removed" in said and "annotator compact" in said
        error = invoke("remove", gone[0], "--index", index, code=1).stderr
        assert "1 of the 1 images are not in the index" in error
        invoke("remove", gone[0], "nobody", "--missing-ok", "--index", index)
    for index in both:
        said = invoke("tune", "--decider", "threshold", "--index", index).stderr
    check_same(both, annotate)
    for index in both:
        said = invoke("compact", "--index", index).stderr
    assert "are dropped, and the server deletes their files" in said
    check_same(both, annotate)
    assert info(both[1])["removed"] == info(both[1])["added"] == 0
    version = info(both[1])["version"]
    invoke("compact", "--index", both[1])  # nothing to do
    assert info(both[1])["version"] == version


def test_another_encoder_is_refused(both: tuple[Path, str], sample: SamplePaths) -> None:
    error = invoke(
        "annotate", sample.directory / "images", "--index", both[1], "--precision", "fp32",
        "--embedder", "efficientnet-lite0@192", code=1,
    ).stderr  # fmt: skip
    assert "built with another encoder or other settings" in error


def test_types_of_index_that_are_not_there(both: tuple[Path, str]) -> None:
    folder, address = both
    error = invoke("compact", "--index", address, "--index-type", "scan", code=1).stderr
    assert "Milvus has no index of the type scan" in error and "hnsw" in error
    error = invoke("compact", "--index", folder, "--index-type", "gpu-ivf", code=1).stderr
    assert "A folder has no index of the type gpu-ivf" in error and "scan" in error


def test_the_service_while_the_server_is_away(
    both: tuple[Path, str], milvus: Any, sample: SamplePaths, wait_for: Callable[..., None]
) -> None:
    image = sorted((sample.directory / "images").iterdir())[0].read_bytes()
    command = [sys.executable, "-m", "annotator", "serve", "--index", both[1], "--port", "0"]
    service = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert service.stdout is not None
    try:
        line = service.stdout.readline()
        assert line.startswith("Serving on http"), service.communicate()
        client = httpx.Client(base_url=line.split()[2], timeout=60)
        headers = {"Content-Type": "image/png"}

        def ask() -> httpx.Response:
            return client.post("/v1/annotate", content=image, headers=headers)

        def concepts(answer: httpx.Response) -> Any:
            (result,) = answer.json()["results"]
            return result["concepts"], result["neighbors"]

        before = ask()
        assert before.status_code == 200, before.text
        picture = concepts(before)[1][0]["thumbnail"]
        assert client.get(picture).headers["content-type"] == "image/jpeg"
        assert client.get("/v1/neighbors/nobody/image").status_code == 404
        milvus.kill()
        files = [("image", (f"{i}.png", image)) for i in range(20)]
        started = time.monotonic()
        for answer in (ask(), client.post("/v1/annotate", files=files), client.get(picture)):
            assert (answer.status_code, answer.json()["code"]) == (503, "index_unreachable")
            assert int(answer.headers["Retry-After"]) > 0
            assert "127.0.0.1" not in answer.text
        assert time.monotonic() - started < 40
        assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
        assert client.get("/v1/info").status_code == 200
        service.send_signal(signal.SIGHUP)
        milvus.start()
        wait_for(lambda: ask().status_code == 200)
        assert concepts(ask()) == concepts(before)
        assert client.get(picture).status_code == 200
        client.close()
    finally:
        service.terminate()
        log = service.communicate(timeout=60)[1]
    assert service.returncode == 0
    events = [json.loads(line) for line in log.splitlines()]
    assert {"the index could not be searched", "reload failed"} <= {e["event"] for e in events}
    assert not any("Traceback" in line for line in log.splitlines())
