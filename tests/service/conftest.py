"""An index of small drawings, an app over it, and the real command as a process."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.app import create_app
from service.engine import Engine, open_engine
from service.middleware.auth import Keys
from service.settings import Settings

if TYPE_CHECKING:
    from annotator.encoders.embedder import Embedder, TorchEmbedder

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))  # for `asking` and the modules bad_*
MakeClient = Callable[..., TestClient]
Build = Callable[..., None]


def drawing(seed: int, size: tuple[int, int] = (40, 48), format: str = "PNG") -> bytes:
    """A picture of one of three kinds of pattern, by `seed` modulo 3."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / 6 + rng.random(2)[:, None, None]
    waves = (np.sin(3 * x), np.sin(x) * np.sin(y), np.sin(4 * y))[seed % 3]
    pixels = (waves * 90 + 128 + rng.normal(0, 12, waves.shape)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def build(directory: Path, embedder: Embedder, n: int = 12, k: int = 5) -> None:
    """Publish an index of n drawings; the concepts of drawing i are C0..C2 by kind, and C9."""
    from annotator.collection import Collection
    from annotator.images.ref import ImageRef
    from annotator.indexing.build import build_index
    from annotator.knn.voting import Voting

    ids = [f"train{i:02d}" for i in range(n)]
    refs = [ImageRef(id_, id_, partial(drawing, i)) for i, id_ in enumerate(ids)]
    collection = Collection(
        images=refs,
        concepts={id_: (f"C{i % 3}", "C9") for i, id_ in enumerate(ids)},
        names={"C9": "In all of them", "C1": "Ünd <one>"},
        captions={id_: f"Drawing {i}." for i, id_ in enumerate(ids)},
        groups={},
        without_image=(),
        without_concepts=(),
        duplicates={},
        ignored=(),
    )
    build_index(collection, directory, embedder, voting=Voting(k=k), tuning=False, use_cache=False)


def settings(index: Path, **options: Any) -> Settings:
    """Settings for the CPU, with one thread for each stage."""
    given = {"index": str(index), "device": "cpu", "workers": 1, "encoders": 1, **options}
    return Settings(**given)


@pytest.fixture(scope="session", name="drawing")
def _drawing() -> Callable[..., bytes]:
    return drawing


@pytest.fixture(scope="session", name="build")
def _build() -> Build:
    return build


@pytest.fixture(scope="session", name="settings")
def _settings() -> Callable[..., Settings]:
    return settings


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
    return open_engine(settings(directory), clip_embedder)


@pytest.fixture(scope="session")
def engine(tiny_index: Path, tiny_embedder: TorchEmbedder) -> Engine:
    return open_engine(settings(tiny_index), tiny_embedder)


@pytest.fixture(scope="session")
def directionless(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine that fails on black: without a bias its vector is zero, which has no direction."""
    import torch
    from torch import nn

    from annotator.encoders.embedder import Encoder, TorchEmbedder
    from annotator.encoders.preprocess import Preprocess

    last = nn.Linear(48, 8, bias=False)
    nn.init.normal_(last.weight, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), last)
    preprocess = Preprocess(32, "letterbox", "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    encoder = Encoder(model, preprocess, "directionless")
    embedder = TorchEmbedder("directionless", encoder, device="cpu", precision="fp32")
    directory = tmp_path_factory.mktemp("directionless") / "index"
    build(directory, embedder)
    return open_engine(settings(directory), embedder)


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
        given = settings(tiny_index, **options)
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


class Server:
    """`annotator serve` as a process, on a port of its own choice."""

    def __init__(self, directory: Path, *arguments: object, **environment: object) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `wait`
        self.process = subprocess.Popen(
            [sys.executable, "-m", "annotator", "serve", "--index", str(directory), "--port", "0"]
            + [str(argument) for argument in arguments],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env=os.environ | {f"ANNOTATOR_{k.upper()}": str(v) for k, v in environment.items()},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()  # ends when the process does
        assert line.startswith("Serving on http"), self.wait()
        self.url = line.split()[2]
        self.host, _, port = self.url.removeprefix("http://").rpartition(":")
        self.port = int(port)
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def stop(self) -> tuple[int, str]:
        """Ask it to end; its exit code and what it logged."""
        self.process.terminate()
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """Its exit code and what it logged, once it has ended."""
        if hasattr(self, "client"):
            self.client.close()
        self.process.communicate(timeout=60)
        self._log.seek(0)
        with self._log:
            return self.process.returncode, self._log.read()


@contextmanager
def running(directory: Path, *arguments: object, **environment: object) -> Iterator[Server]:
    """A running server, ended afterwards."""
    server = Server(directory, *arguments, **environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[Server]]:
    return running
