"""Pictures over HTTP: of uploaded images, and of the index's own."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import MakeClient, drawing, problem
from bad_dicom import dicom
from PIL import Image
from starlette.testclient import TestClient

from annotator.errors import AnnotatorError
from service.app import create_app
from service.engine import Engine
from service.settings import Settings

DEEP = np.add.outer(np.arange(64) * 40, np.arange(48) * 20).astype(np.uint16)


def deep_dicom(**attributes: Any) -> bytes:
    sixteen = {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}
    window = {"RescaleIntercept": -1000, "RescaleSlope": 1, "WindowCenter": 40, "WindowWidth": 401}
    return dicom(DEEP.tobytes(), **{**sixteen, **window, **attributes})


def render(client: TestClient, data: bytes, **query: Any) -> Any:
    return client.post("/v1/pictures", params=query, files={"image": ("secret.dcm", data)})


def pixels(answer: Any) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_a_window(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    own = render(client, deep_dicom())
    assert own.headers["content-type"] == "image/png"
    assert own.headers["cache-control"] == "no-store"
    shown = {name: own.headers[f"x-annotator-{name}"] for name in ("frame", "frames", "levels",
                                                                  "window")}  # fmt: skip
    assert shown == {"frame": "0", "frames": "1", "levels": "-1000,2460", "window": "40,401"}
    units = DEEP.astype(float) - 1000
    assert np.abs(pixels(own) - np.clip((units - 39.5) / 400 + 0.5, 0, 1) * 255).max() < 0.51
    other = render(client, deep_dicom(), center=500, width=2001)
    assert other.headers["x-annotator-window"] == "500,2001"
    assert np.abs(pixels(other) - np.clip((units - 499.5) / 2000 + 0.5, 0, 1) * 255).max() < 0.51
    small = render(client, deep_dicom(), side=32, format="jpeg")
    assert (small.headers["content-type"], pixels(small).shape) == ("image/jpeg", (32, 24))
    assert "Secret" not in caplog.text and "secret" not in caplog.text


def test_frames(client: TestClient) -> None:
    frames = np.stack([np.roll(DEEP, 5 * i, axis=0) for i in range(3)])
    data = dicom(frames.tobytes(), BitsAllocated=16, BitsStored=16, HighBit=15, NumberOfFrames=3)
    answers = [render(client, data, frame=i) for i in range(3)]
    assert [answer.headers["x-annotator-frames"] for answer in answers] == ["3"] * 3
    assert len({answer.content for answer in answers}) == 3
    middle = render(client, data)
    assert middle.headers["x-annotator-frame"] == "1" and middle.content == answers[1].content
    assert problem(render(client, data, frame=3)) == (422, "invalid_parameter")


@pytest.mark.parametrize(
    "query",
    [{"center": 1}, {"width": 5}, {"center": 1, "width": 0}, {"frame": -1}, {"side": 5000},
     {"format": "gif"}, {"center": "nan", "width": 1}],
)  # fmt: skip
def test_parameters_that_are_refused(client: TestClient, query: dict[str, Any]) -> None:
    assert problem(render(client, deep_dicom(), **query)) == (422, "invalid_parameter")


def test_images_that_are_refused(make_client: MakeClient) -> None:
    client = make_client(max_megapixels=0.002)
    assert problem(render(client, b"no image")) == (415, "unknown_format")
    assert problem(render(client, drawing(0, (60, 60)))) == (413, "image_too_large")
    both = [("image", drawing(0)), ("image", drawing(1))]
    assert problem(client.post("/v1/pictures", files=both)) == (422, "several_images")
    assert problem(client.post("/v1/pictures", data={"a": "b"})) == (415, "unsupported_media_type")


def test_pictures_of_the_index(make_client: MakeClient, tmp_path: Path) -> None:
    for i in (1, 2):
        (tmp_path / f"train{i:02d}.png").write_bytes(drawing(i))
    (tmp_path / "stranger.png").write_bytes(drawing(3))
    (tmp_path / "train03.png").write_bytes(b"broken")
    client = make_client(images=str(tmp_path))
    assert client.get("/v1/info").json()["index"]["pictures"] is True
    answer = client.get("/v1/pictures/train01", params={"side": 40})
    expected = Image.open(io.BytesIO(drawing(1)))
    expected.thumbnail((40, 40), Image.Resampling.BICUBIC)
    assert np.array_equal(pixels(answer), np.asarray(expected))
    assert problem(client.get("/v1/pictures/train09")) == (404, "no_picture")
    assert problem(client.get("/v1/pictures/stranger")) == (404, "no_picture")
    assert problem(client.get("/v1/pictures/train03")) == (415, "unknown_format")
    (tmp_path / "train02.png").unlink()
    assert problem(client.get("/v1/pictures/train02"))[0] == 422
    assert make_client().get("/v1/info").json()["index"]["pictures"] is False


def test_a_folder_without_images(tiny_index: Path, engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(AnnotatorError, match="image"):
        create_app(Settings(index=str(tiny_index), images=str(tmp_path)), engine)
