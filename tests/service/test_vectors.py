"""Encoding and search on two machines: /v1/embed and /v1/annotate-vectors."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import MakeClient, cpu_settings, drawing, post, problem
from starlette.testclient import TestClient

from annotator.collection import read_collection
from annotator.indexing.build import build_index
from annotator.knn.voting import Voting
from annotator.vectors.table import VectorTable
from service.engine import Engine, open_engine

NPY = "application/x-npy"


def embed(client: TestClient, *files: bytes, **options: Any) -> Any:
    named = [("image", (f"d{i}.png", file)) for i, file in enumerate(files)]
    return client.post("/v1/embed", files=named, **options)


def annotate(client: TestClient, body: object, query: str = "", **headers: str) -> Any:
    return client.post(f"/v1/annotate-vectors{query}", json=body, headers=headers)


def npy(rows: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(rows))
    return file.getvalue()


def without_timings(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    whole = answer.json()
    del whole["timings"]
    return whole


def alike(result: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two results are the same but for the last digits.

    Those of a vector may depend on how many images were encoded at once.
    """
    for mine, theirs in zip(result["neighbors"], other["neighbors"], strict=True):
        for field in ("similarity", "weight"):
            mine[field] = pytest.approx(mine[field], abs=1e-4)
            assert theirs[field] == mine[field]
    for concept in result["concepts"]:
        concept["score"] = pytest.approx(concept["score"], abs=1e-4)
    result["expected_f1"] = pytest.approx(result["expected_f1"], abs=1e-4)
    return result == other


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_encoding_here_and_searching_there(client: TestClient, encoding: str) -> None:
    files = [drawing(100), b"no image", drawing(101)]
    names = [(f"d{i}.png", file) for i, file in enumerate(files)]
    expected = without_timings(post(client, *names))
    embedded = embed(client, *files, params={"encoding": encoding})
    answer = without_timings(annotate(client, embedded.json()))
    for index in (0, 2):
        assert alike(answer["results"][index], expected["results"][index])
    assert answer["results"][1]["id"] == "d1"
    assert answer["results"][1]["error"]["code"] == "unusable_vector"
    assert answer["names"] == expected["names"] and answer["model"] == expected["model"]
    run = client.post("/v1/annotate-vectors", json=embedded.json(), headers={"Accept": "text/csv"})
    assert run.headers["x-annotator-failed"] == "1"
    sent = [("image", name) for name in names]
    assert run.text == client.post("/v1/annotate", files=sent, headers={"Accept": "text/csv"}).text


def test_arrays_of_numpy(client: TestClient, engine: Engine) -> None:
    files = [drawing(100), b"no image", drawing(101)]
    embedded = embed(client, *files, headers={"Accept": NPY})
    assert embedded.headers["content-type"] == NPY
    assert embedded.headers["x-annotator-failed"] == "1"
    fingerprint = embedded.headers["x-annotator-fingerprint"]
    rows = np.load(io.BytesIO(embedded.content), allow_pickle=False)
    assert rows.dtype == np.float32 and rows.shape == (3, 16) and np.isnan(rows[1]).all()
    listed = embed(client, *files).json()
    assert listed["vectors"][1] is None
    for row in (0, 2):
        np.testing.assert_allclose(listed["vectors"][row], rows[row], atol=1e-5)
    assert (listed["dim"], listed["ids"]) == (16, ["d0", "d1", "d2"])
    assert listed["model"]["fingerprint"] == fingerprint
    assert [error and error["code"] for error in listed["errors"]] == [None, "unknown_format", None]
    answer = client.post(
        f"/v1/annotate-vectors?k=2&neighbors=1&fingerprint={fingerprint}",
        content=embedded.content, headers={"Content-Type": NPY},
    )  # fmt: skip
    results = without_timings(answer)["results"]
    assert [r["id"] for r in results] == ["vector-1", "vector-2", "vector-3"]
    assert [len(r["neighbors"]) for r in results] == [1, 0, 1]


def test_an_unusable_image_or_vector_alone(client: TestClient) -> None:
    assert problem(embed(client, b"no image")) == (415, "unknown_format")
    named = client.get("/v1/info").json()["model"]
    for bad in ([0.0] * 16, None):
        answer = annotate(client, {"model": named, "vectors": [bad]})
        assert problem(answer) == (422, "unusable_vector")


def test_vectors_of_any_norm(client: TestClient) -> None:
    embedded = embed(client, drawing(100)).json()
    expected = without_timings(annotate(client, embedded))
    embedded["vectors"] = [[8 * value for value in embedded["vectors"][0]]]
    answer = without_timings(annotate(client, embedded))
    assert [note["code"] for note in answer["results"][0].pop("notes")] == ["vector_scaled"]
    assert expected["results"][0].pop("notes") == []
    assert alike(answer["results"][0], expected["results"][0])


GOOD = [1.0] + [0.0] * 15


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"vectors": [GOOD]}, 422, "no_model"),
        ({"vectors": [GOOD], "model": {"name": "tiny"}}, 409, "other_encoder"),
        ({"vectors": [GOOD[:-1]], "model": {"fingerprint": "0" * 64}}, 409, "other_encoder"),
        ({"vectors": [GOOD, GOOD[:-1]]}, 422, "wrong_length"),
        ({"vectors": [[]]}, 422, "wrong_length"),
        ({"vectors": []}, 422, "malformed_vectors"),
        ({"vectors": GOOD}, 422, "malformed_vectors"),
        ({"vectors": [GOOD], "ids": ["a", "b"]}, 422, "malformed_vectors"),
        ({"vectors": [GOOD], "ids": [1]}, 422, "malformed_vectors"),
        ({"vectors": ["%%%"]}, 422, "malformed_vectors"),
        ({"vectors": ["QUJD"]}, 422, "malformed_vectors"),
        ({"vectors": [base64.b64encode(bytes(60)).decode()]}, 422, "wrong_length"),
        ({"vectors": [["a"] * 16]}, 422, "malformed_vectors"),
        ({"vectors": [[[1.0] * 16]]}, 422, "malformed_vectors"),
        ([GOOD], 422, "malformed_vectors"),
        ({"vectors": [GOOD] * 33}, 413, "too_many_images"),
        ({"vectors": [[0] * 9999]}, 413, "too_many_images"),
        ({"vectors": [[[]] * 9999]}, 413, "too_many_images"),
    ],
)
def test_bodies_that_are_refused(client: TestClient, body: object, status: int, code: str) -> None:
    query = "" if "model" in str(body) or "model" in code else _fingerprint(client)
    assert problem(annotate(client, body, query)) == (status, code)


def _fingerprint(client: TestClient) -> str:
    """The query that names the index's encoder."""
    return f"?fingerprint={client.get('/v1/info').json()['model']['fingerprint']}"


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("application/json", b"", 422, "malformed_vectors"),
        ("application/json", b'{"vectors": [[NaN', 422, "malformed_vectors"),
        ("application/json", b"\xff\xfe", 422, "malformed_vectors"),
        ("application/json", b"[" * 1500, 422, "malformed_vectors"),
        ("application/json", b"[" * 9999, 413, "too_many_images"),
        (NPY, b"", 400, "malformed_vectors"),
        (NPY, npy(GOOD), 400, "malformed_vectors"),
        (NPY, npy([GOOD])[:-1], 400, "malformed_vectors"),
        (NPY, npy([GOOD]) + b"more", 400, "malformed_vectors"),
        (NPY, npy(np.ones((1, 16), int)), 400, "malformed_vectors"),
        (NPY, npy([GOOD] * 33), 413, "too_many_images"),
        (NPY, npy([GOOD[:-1]]), 422, "wrong_length"),
        (NPY, npy([GOOD]), 422, "no_model"),
        ("image/png", drawing(0), 415, "unsupported_media_type"),
        ("application/vnd.apache.parquet", b"PAR1", 415, "unsupported_media_type"),
    ],
)
def test_bytes_that_are_refused(
    client: TestClient, content_type: str, body: bytes, status: int, code: str
) -> None:
    headers = {"Content-Type": content_type}
    query = "" if code == "no_model" else _fingerprint(client)
    answer = client.post(f"/v1/annotate-vectors{query}", content=body, headers=headers)
    assert problem(answer) == (status, code)


def test_numbers_that_are_none(client: TestClient) -> None:
    named = json.dumps(client.get("/v1/info").json()["model"])
    for number in ("NaN", "Infinity", "1e999", "1" + "0" * 500):
        rows = f"[[{number}{', 0' * 15}], {GOOD}]"
        answer = client.post(
            "/v1/annotate-vectors",
            content=f'{{"model": {named}, "vectors": {rows}}}',
            headers={"Content-Type": "application/json"},
        )
        if answer.status_code == 422:
            assert problem(answer)[1] == "malformed_vectors", number
        else:
            results = without_timings(answer)["results"]
            assert [bool(result["error"]) for result in results] == [True, False], number


def test_limits_are_those_of_images(make_client: MakeClient) -> None:
    body = {"vectors": [GOOD] * 3}
    assert problem(annotate(make_client(max_images=2), body)) == (413, "too_many_images")
    client = make_client(max_upload_mb=1)
    large = client.post(
        "/v1/annotate-vectors", content=bytes(2 << 20), headers={"Content-Type": NPY}
    )
    assert problem(large) == (413, "body_too_large")
    named = client.get("/v1/info").json()["model"]
    late = make_client(timeout_s=1e-9)
    assert problem(annotate(late, {"model": named, "vectors": [GOOD]})) == (503, "timeout")


def test_options_are_those_of_annotate(client: TestClient) -> None:
    body = {"model": client.get("/v1/info").json()["model"], "vectors": [GOOD], "ids": ["a,b"]}
    (result,) = without_timings(annotate(client, body, "?k=3&neighbors=2"))["results"]
    assert result["id"] == "a,b" and len(result["neighbors"]) == 2
    assert problem(annotate(client, body, Accept="text/csv")) == (422, "not_a_run")
    assert problem(annotate(client, body, "?k=0")) == (422, "invalid_parameter")
    assert problem(embed(client, drawing(0), params={"encoding": "hex"}))[0] == 422


# An index of vectors of an encoder of the user's


@pytest.fixture(scope="module")
def own_engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("own")
    rows = np.random.default_rng(0).normal(size=(12, 4))
    table = VectorTable.of(rows, [f"v{i}" for i in range(12)], encoder="my net")
    (folder / "concepts.csv").write_text("".join(f"v{i},C{i % 3}\n" for i in range(12)))
    collection = read_collection(table.found(), folder / "concepts.csv")
    directory: Path = folder / "index"
    build_index(
        collection, directory, table.embedder, voting=Voting(k=3), tuning=False,
        use_cache=False, runner=table.embed,
    )  # fmt: skip
    return open_engine(cpu_settings(directory))


def test_an_index_of_own_vectors(make_client: MakeClient, own_engine: Engine) -> None:
    client = make_client(engine=own_engine)
    info = client.get("/v1/info").json()
    assert info["model"]["name"] == "my net"
    for named in ({"name": "my net"}, {"fingerprint": info["model"]["fingerprint"]}):
        body = {"model": named, "vectors": [[1, 2, 3, 4]], "ids": ["q"]}
        (result,) = without_timings(annotate(client, body))["results"]
        assert result["id"] == "q" and len(result["neighbors"]) == 3 and not result["error"]
    answer = client.post(
        "/v1/annotate-vectors?name=my%20net", content=npy([[1.0, 2, 3, 4]]),
        headers={"Content-Type": NPY},
    )  # fmt: skip
    assert answer.status_code == 200
    body = {"model": {"name": "your net"}, "vectors": [[1, 2, 3, 4]]}
    assert problem(annotate(client, body)) == (409, "other_encoder")
    assert problem(annotate(client, {"vectors": [[1, 2, 3, 4]]})) == (422, "no_model")
    assert client.get("/v1/similar?id=v0").status_code == 200
    assert client.get("/v1/search?q=C1").status_code == 200


def test_images_for_an_index_of_own_vectors(make_client: MakeClient, own_engine: Engine) -> None:
    client = make_client(engine=own_engine)
    for path in ("/v1/annotate", "/v1/embed", "/v1/similar"):
        answer = client.post(path, files=[("image", ("a.png", drawing(0)))])
        assert problem(answer) == (409, "no_encoder")
        assert "'my net'" in answer.json()["detail"]
        assert "/v1/annotate-vectors" in answer.json()["hint"]
    assert client.get("/readyz").status_code == 200
