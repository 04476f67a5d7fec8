"""Unfamiliar images in the answers, and what the metrics tell of familiarity and expected F1."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from asking import MakeClient, build, cpu_settings, drawing, post, problem
from PIL import Image
from starlette.testclient import TestClient

from annotator.knn.familiarity import UNFAMILIAR
from service.engine import Engine, open_engine

if TYPE_CHECKING:
    from annotator.encoders.torch_embedder import TorchEmbedder

LEAST = 0.1


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, tiny_embedder: TorchEmbedder) -> Path:
    """A tuned index of 90 drawings."""
    directory = tmp_path_factory.mktemp("familiarity") / "index"
    build(directory, tiny_embedder, n=90, tuning=True)
    return directory


def opened(index: Path, embedder: TorchEmbedder, **options: Any) -> Engine:
    return open_engine(cpu_settings(index, **options), embedder)


@pytest.fixture(scope="module")
def stranger() -> bytes:
    """A picture unlike the drawings: one white edge on black."""
    pixels = np.zeros((40, 48), np.uint8)
    pixels[:, 40:] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def count(client: TestClient, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


def test_unfamiliar_images_have_no_concepts_if_asked(
    make_client: MakeClient, index: Path, tiny_embedder: TorchEmbedder, stranger: bytes
) -> None:
    client = make_client(engine=opened(index, tiny_embedder))
    files = (("known.png", drawing(100)), ("stranger.png", stranger))
    known, odd = post(client, *files).json()["results"]
    assert known["familiarity"] > LEAST > odd["familiarity"] and odd["concepts"]
    for each in (known, odd):
        assert each["unfamiliar"] == (each["familiarity"] < UNFAMILIAR)
    asked = {"min_familiarity": LEAST}
    same, empty = post(client, *files, params=asked).json()["results"]
    assert same["concepts"] == known["concepts"] and same["error"] is None
    assert empty["concepts"] == [] and empty["error"]["code"] == "unfamiliar_image"
    assert "unlike the images of the index" in empty["error"]["detail"]
    assert problem(post(client, files[1], params=asked)) == (422, "unfamiliar_image")
    run = post(client, *files, params=asked, headers={"Accept": "text/csv"})
    assert run.headers["X-Annotator-Failed"] == "1"
    assert run.text.splitlines()[2] == "stranger,"
    vectors = client.post("/v1/embed", files=[("image", file) for file in files]).json()
    (_, by_vector) = client.post("/v1/annotate-vectors", json=vectors, params=asked).json()[
        "results"
    ]
    assert by_vector["error"]["code"] == "unfamiliar_image"


def test_the_setting_holds_unless_a_request_says_otherwise(
    make_client: MakeClient, index: Path, tiny_embedder: TorchEmbedder, stranger: bytes
) -> None:
    client = make_client(engine=opened(index, tiny_embedder, min_familiarity=LEAST))
    assert problem(post(client, ("a", stranger))) == (422, "unfamiliar_image")
    (result,) = post(client, ("a", stranger), params={"min_familiarity": 0}).json()["results"]
    assert result["error"] is None and result["concepts"]
    similar = client.post("/v1/similar", files={"a": stranger})
    assert similar.status_code == 200 and similar.json()["results"][0]["cases"]


def test_histograms_of_familiarity_and_expected_f1(
    make_client: MakeClient, index: Path, tiny_embedder: TorchEmbedder, stranger: bytes
) -> None:
    client = make_client(engine=opened(index, tiny_embedder))
    assert count(client, "annotator_familiarity_count") == 0  # there from the start
    post(client, ("known.png", drawing(100)), ("stranger.png", stranger), ("no.png", b"no image"))
    post(client, ("stranger.png", stranger), params={"min_familiarity": LEAST})
    assert count(client, "annotator_familiarity_count") == 3
    assert count(client, 'annotator_familiarity_bucket{le="0.1"}') == 2
    assert count(client, "annotator_expected_f1_count") == 2
    assert count(client, 'annotator_images_total{outcome="unfamiliar_image"}') == 1


def test_the_least_familiar_images_of_the_index(
    make_client: MakeClient, index: Path, tiny_embedder: TorchEmbedder
) -> None:
    client = make_client(engine=opened(index, tiny_embedder))
    answer = client.get("/v1/images", params={"sort": "familiarity", "limit": 90}).json()
    shares = [image["familiarity"] for image in answer["images"]]
    assert len(shares) == 90 and shares == sorted(shares)
    assert shares[0] < 0.05 and 0.4 < shares[45] < 0.6 and shares[-1] > 0.95


def test_an_engine_without_familiarity_observes_none(
    make_client: MakeClient, engine: Engine
) -> None:
    client = make_client(engine=replace(engine))
    post(client, ("a", drawing(0)))
    assert count(client, "annotator_familiarity_count") == 0
    assert count(client, "annotator_expected_f1_count") == 1
