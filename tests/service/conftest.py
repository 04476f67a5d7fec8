"""Engines over small indexes, and clients of an app over one."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parent))  # for `asking` and the modules bad_*

from asking import MakeClient, build, cpu_settings
from pages import Served, write_place

from service.app import create_app
from service.engine import Engine, open_engine
from service.keys import Keys

if TYPE_CHECKING:
    from annotator.encoders.embedder import Embedder
    from annotator.encoders.torch_embedder import TorchEmbedder


@pytest.fixture(scope="session")
def tiny_index(tmp_path_factory: pytest.TempPathFactory, tiny_embedder: TorchEmbedder) -> Path:
    directory = tmp_path_factory.mktemp("service") / "index"
    build(directory, tiny_embedder)
    return directory


@pytest.fixture(scope="session")
def clip_engine(tmp_path_factory: pytest.TempPathFactory, clip_embedder: Embedder) -> Engine:
    """An engine whose encoder has a text tower."""
    directory = tmp_path_factory.mktemp("service-clip") / "index"
    build(directory, clip_embedder)
    return open_engine(cpu_settings(directory), clip_embedder)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return write_place(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="session")
def engine(tiny_index: Path, tiny_embedder: TorchEmbedder) -> Engine:
    return open_engine(cpu_settings(tiny_index), tiny_embedder)


@pytest.fixture(scope="session")
def directionless(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine that fails on black: without a bias its vector is zero, which has no direction."""
    import torch
    from torch import nn

    from annotator.encoders.embedder import Encoder
    from annotator.encoders.preprocess import Preprocess
    from annotator.encoders.torch_embedder import TorchEmbedder

    last = nn.Linear(48, 8, bias=False)
    nn.init.normal_(last.weight, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), last)
    preprocess = Preprocess(32, "letterbox", "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    encoder = Encoder(model, preprocess, "directionless")
    embedder = TorchEmbedder("directionless", encoder, device="cpu", precision="fp32")
    directory = tmp_path_factory.mktemp("directionless") / "index"
    build(directory, embedder)
    return open_engine(cpu_settings(directory, allow_blank=True), embedder)


@pytest.fixture(scope="session")
def black() -> bytes:
    """An image of black alone."""
    file = io.BytesIO()
    Image.new("L", (32, 32)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def make_client(tiny_index: Path, engine: Engine) -> Iterator[MakeClient]:
    """Makes clients of an app with given settings; `keys` are its API keys."""
    clients: list[TestClient] = []

    def make(keys: Sequence[str] = (), engine: Engine = engine, **options: Any) -> TestClient:
        if keys:
            options["api_key_file"] = Path("keys.txt")
        given = cpu_settings(tiny_index, **options)
        engine = replace(engine, max_pixels=given.pixels, max_frames=given.max_frames)
        app = create_app(given, engine, Keys(keys) if keys else None)
        client = TestClient(app, "http://127.0.0.1", raise_server_exceptions=False)
        clients.append(client.__enter__())
        return clients[-1]

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    return make_client()


@pytest.fixture(scope="session")
def encoder() -> Embedder:
    """The packaged encoder."""
    from annotator.encoders.registry import make_embedder

    return make_embedder(device="cpu")
